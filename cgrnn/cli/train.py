"""`cgrnn train`: a data set and a model in, a run directory out."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from cgrnn.cli import say
from cgrnn.cli.parsing import Parser, add_options, make, pick
from cgrnn.settings import MODEL_OPTIONS, TrainingOptions

DESCRIPTION = (
    "Train a model. The run directory gets config.yaml, checkpoints/best.ckpt and last.ckpt, "
    "metrics.csv and TensorBoard events. Validation likelihoods are nats a frame, by a short "
    "annealed importance sampling on fixed frames; `cgrnn evaluate` gives the figure to quote."
)


def parser(argv: Sequence[str]) -> Parser:
    """The parser for the model that the arguments name."""
    result = make("train", DESCRIPTION, seed=False)
    model = _named(argv, "--model") or "cgrnn"
    for flag in ("--config", "--resume"):
        file = _config_of(argv, flag)
        if file is not None:
            result.default_config_files = [str(file)] if flag == "--resume" else []
            model = _named(argv, "--model") or _read(file).get("model", model)
    if model not in MODEL_OPTIONS:
        raise ValueError(f"unknown model {model!r}; known: {', '.join(MODEL_OPTIONS)}")
    result.add_argument("--config", action="config", help="YAML file with options as below")
    result.add_argument("--model", type=str, default=model, help="model, see `cgrnn models`")
    result.add_argument("--data", type=str, help="data set made by `cgrnn prepare`")
    result.add_argument("-o", "--output", type=str, help="run directory to make")
    result.add_argument(
        "--resume", action="store_true", help="go on with the run in -o, with the options it has"
    )
    add_options(result, MODEL_OPTIONS[model])
    add_options(result, TrainingOptions)
    return result


def _named(argv: Sequence[str], flag: str) -> str | None:
    for place, word in enumerate(argv):
        if word.startswith(flag + "="):
            return word.split("=", 1)[1]
        if word == flag and place + 1 < len(argv):
            return argv[place + 1]
    return None


def _config_of(argv: Sequence[str], flag: str) -> Path | None:
    """The YAML file that `--config` names, or that of the run that `--resume` goes on with."""
    if flag == "--config":
        name = _named(argv, flag)
        return Path(name) if name else None
    output = _named(argv, "-o") or _named(argv, "--output")
    if flag not in argv or output is None or not (Path(output) / "config.yaml").is_file():
        return None
    return Path(output) / "config.yaml"


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such configuration file")
    try:
        content = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file}: expected options as `name: value`")
    return content


def run(options: Any) -> dict[str, Any]:
    """Train as the options say; return what `train --json` prints."""
    for name in ("data", "output"):
        if not options[name]:
            raise ValueError(f"--{name} is missing; see `cgrnn train --help`")
    from data_prep import store

    data = store.read(options.data)
    folder = Path(options.output)
    if not options.resume and (folder / "checkpoints").exists():
        raise ValueError(f"{folder}: holds a run already; add --resume or choose another -o")
    if data.attributes["kind"] != "binary":
        raise ValueError(f"{options.data}: model {options.model!r} is for binary frames")
    return _train(options, data, folder)


def _train(options: Any, data: Any, folder: Path) -> dict[str, Any]:
    import torch

    from cgrnn import checkpoint
    from cgrnn.arithmetic import use_fast_products
    from cgrnn.models import MODELS
    from cgrnn.training import Training, fit, marginals
    from evaluation import ais

    _quiet()
    use_fast_products()
    training_options = TrainingOptions(**pick(options, TrainingOptions))
    train, valid = (data.splits[name] for name in ("train", "valid"))
    if not len(valid.lengths):
        raise ValueError(f"{options.data}: the valid split is empty; prepare the data with one")
    model_options = pick(options, MODEL_OPTIONS[options.model])
    model_options |= {"visible_dim": train.frames.shape[1], "visible": data.attributes["kind"]}
    model_options["mlp_dims"] = list(model_options["mlp_dims"])
    torch.manual_seed(training_options.seed)
    model = MODELS[options.model](**model_options)
    model.set_marginals(marginals(train.frames))
    attributes = data.attributes | {"path": str(Path(options.data).resolve())}
    training = Training(
        model,
        (train.frames, train.lengths),
        (valid.frames, valid.lengths),
        training_options,
        partial(
            ais.log_partition,
            chains=training_options.valid_chains,
            levels=training_options.valid_levels,
        ),
        checkpoint.describe(options.model, model_options, attributes),
    )
    folder.mkdir(parents=True, exist_ok=True)
    _write_config(options, folder / "config.yaml")
    result = fit(training, folder, options.resume, say, progress=sys.stderr.isatty())
    return {"run": str(folder), **result}


def _write_config(options: Any, file: Path) -> None:
    kept = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in vars(options).items()
        if name not in ("config", "resume", "json")
    }
    partial_file = file.with_suffix(".partial")
    partial_file.write_text(yaml.safe_dump(kept, sort_keys=False))
    os.replace(partial_file, file)


def _quiet() -> None:
    """Keep Lightning's hints about devices, workers and loggers off the screen."""
    import logging

    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")


def render(result: dict[str, Any]) -> str:
    """What a person reads at the end."""
    return (
        f"{result['run']}: {result['epochs']} epochs in {result['seconds'] / 60:.1f} min, best "
        f"validation {result['valid']:.3f} nats a frame at epoch {result['best_epoch']}\n"
        f"next: cgrnn evaluate {result['run']}\n"
    )
