"""`cgrnn train`: a data set and a model in, a run directory out."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from cgrnn import units
from cgrnn.cli import say
from cgrnn.cli.parsing import Parser, add_options, make, pick
from cgrnn.cli.runs import make_folder, normalisation, open_data
from cgrnn.settings import MODEL_OPTIONS, TrainingOptions

SHIPPED = Path(__file__).parents[1] / "configs"
DESCRIPTION = (
    "Train a model. The run directory gets config.yaml, checkpoints/best.ckpt and last.ckpt, "
    "metrics.csv and TensorBoard events. Validation likelihoods are nats a frame (of normalised "
    "frames, (v - mean)/std, where they are continuous): exact, a lower bound by one path of "
    "latents, or by a short annealed importance sampling on fixed frames; "
    "`cgrnn evaluate` gives the figure to quote. `torchrun --nproc-per-node N -m cgrnn train …` "
    "shares every batch over N processes or devices, with --nnodes also over machines that see the "
    "same files."
)


# What a resumed run may be given anew. The rest would be ignored, lightning restoring it, or would
# make it another run.
MAY_CHANGE = ("max_epochs", "max_minutes", "clip_norm", "workers", "accelerator")


def parser(argv: Sequence[str]) -> Parser:
    """The parser for the model that the arguments, or their file of options, name."""
    first = _first(argv)
    file = _file_of_options(first)
    values = {} if file is None else _read(file)
    model = first.model or values.get("model") or "cgrnn"
    if not isinstance(model, str) or model not in MODEL_OPTIONS:
        raise ValueError(f"unknown model {model!r}; known: {', '.join(MODEL_OPTIONS)}")
    if first.resume and model != values.get("model"):
        raise ValueError(f"--model: {first.output} was begun with {values.get('model')}, keeps it")
    result = make(f"train --model {model}", DESCRIPTION, seed=False)
    shipped = ", ".join(sorted(file.stem for file in SHIPPED.glob("*.yaml")))
    result.add_argument(
        "--config",
        type=str,
        help=f"YAML file with options as below, `name: value`; or published settings: {shipped}",
    )
    result.add_argument(
        "--resume", action="store_true", help="go on with the run in -o, with the options it has"
    )
    result.add("--model", kind=str, default=model, help="model, see `cgrnn models`")
    result.add("--data", kind=str, help="data set made by `cgrnn prepare`")
    result.add("-o", "--output", kind=str, help="run directory to make")
    add_options(result, MODEL_OPTIONS[model])
    add_options(result, TrainingOptions)
    if file is not None:
        result.take(file, values | {"model": model})
    return result


def _first(argv: Sequence[str]) -> argparse.Namespace:
    """What decides which options there are. What is wrong with them is left to the full parser."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flags in (["--model"], ["--config"], ["-o", "--output"]):
        parser.add_argument(*flags, nargs="?")
    parser.add_argument("--resume", action="store_true")
    return parser.parse_known_args(argv)[0]


def _file_of_options(first: argparse.Namespace) -> Path | None:
    """The YAML file that `--config` names, or that of the run that `--resume` goes on with."""
    if not first.resume:
        return _config(first.config) if first.config else None
    if first.config:
        raise ValueError("--config: leave it out, a resumed run has the options of its config.yaml")
    if not first.output:
        raise ValueError("--resume: name the run to go on with, as `-o RUN`")
    file = Path(first.output) / "config.yaml"
    if not file.is_file():
        raise FileNotFoundError(
            f"{first.output}: no run to resume, it has no config.yaml; leave out --resume to begin"
        )
    return file


def _config(name: str) -> Path:
    """A file of the user's, or one that comes with the program."""
    shipped = SHIPPED / f"{name}.yaml"
    return shipped if shipped.is_file() and not Path(name).exists() else Path(name)


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
    for name, remedy in (("data", "make one with `cgrnn prepare`"), ("output", "a folder to make")):
        if not options[name]:
            raise ValueError(f"--{name} is missing: {remedy}; see `cgrnn train --help`")
    data = open_data(options.data, target=options.get("target"))
    folder = Path(options.output)
    if not options.resume and (folder / "checkpoints").exists():
        raise ValueError(f"{folder}: holds a run already; add --resume or choose another -o")
    _check_kind(options, data.attributes["kind"])
    if not len(data.splits["valid"].lengths):
        raise ValueError(f"{options.data}: the valid split is empty; prepare the data with one")
    return _train(options, data, folder)


def _check_kind(options: Any, kind: str) -> None:
    from cgrnn.models import MODELS

    takes = MODELS[options.model].kinds
    if kind not in takes:
        others = [name for name, model in MODELS.items() if kind in model.kinds]
        raise ValueError(
            f"{options.data}: holds {kind} frames, and model {options.model!r} is for "
            f"{' and '.join(takes)} ones; take one of {', '.join(others)}"
        )


def _train(options: Any, data: Any, folder: Path) -> dict[str, Any]:
    import torch

    from cgrnn import checkpoint
    from cgrnn.arithmetic import keep_memory, rounding_pays, use_fast_products
    from cgrnn.models import MODELS
    from cgrnn.processes import rank
    from cgrnn.training import Training, fit, marginals
    from data_prep.dataset import blocks
    from evaluation import ais

    _quiet()
    last = folder / "checkpoints" / "last.ckpt"
    before = checkpoint.read(last) if options.resume and last.is_file() else None
    earlier = before["cgrnn"].get("arithmetic", {}) if before else {}
    arithmetic = use_fast_products(earlier)
    keep_memory()
    if options.precision == "bf16" and not rounding_pays():
        say("--precision bf16: on this processor such products are slower; 32-true is the better")
    _check_devices(options.accelerator)
    training_options = TrainingOptions(**pick(options, TrainingOptions))
    train, valid = (data.splits[name] for name in ("train", "valid"))
    model_options = pick(options, MODEL_OPTIONS[options.model])
    model_options |= {"visible_dim": train.frames.shape[1], "visible": data.attributes["kind"]}
    model_options = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in model_options.items()
    }
    if data.attributes["kind"] == "notes":
        model_options["classes"] = len(data.attributes["vocabulary"])
    attributes = data.attributes | {"path": str(Path(options.data).resolve())}
    settings = dataclasses.asdict(training_options)
    head = checkpoint.describe(options.model, model_options, attributes, settings, arithmetic)
    if before:
        _check_same_run(before["cgrnn"], head, folder)
        if before["epoch"] >= options.max_epochs:
            raise ValueError(
                f"--max-epochs: {folder} has {before['epoch'] + 1} epochs already; give as many"
            )
        if rank() == 0:
            _tell_other_digits(earlier, arithmetic, folder)
    torch.manual_seed(training_options.seed)
    try:
        model = MODELS[options.model](**model_options)
    except RuntimeError as error:  # torch's for memory that is not there
        raise ValueError(f"the model is too large, lower its sizes ({error})") from error
    model.given_frames = int(data.attributes.get("given_frames", 0))
    if model.visible == "binary":
        model.set_marginals(marginals(blocks(train.frames)))
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
        head,
        normalisation(data.attributes),
        partial(ais.draw, count=4, levels=training_options.valid_levels)
        if model.has_chains
        else None,
    )
    if rank() == 0:
        _write_config(options, make_folder(folder) / "config.yaml")
    try:
        result = fit(training, folder, options.resume, say, progress=sys.stderr.isatty())
    except FloatingPointError:
        if rank() == 0:
            raise
        raise SystemExit(
            0
        ) from None  # all processes have it; torchrun ends the rest at another code
    except SystemExit as end:  # how lightning leaves on Ctrl-C
        if rank():
            raise
        raise KeyboardInterrupt(f"go on with `cgrnn train -o {folder} --resume`") from end
    if rank():
        raise SystemExit(0)  # the first process alone prints
    return {"run": str(folder), **result, "unit": units.unit(*normalisation(data.attributes))}


def _check_devices(accelerator: str) -> None:
    import torch

    from cgrnn.processes import world_here

    cuda, processes = torch.cuda.device_count(), world_here()
    if accelerator == "gpu" and not cuda and not torch.backends.mps.is_available():
        raise ValueError("--accelerator: torch finds no GPU here; leave it out or give cpu")
    if accelerator != "cpu" and 0 < cuda < processes:
        raise ValueError(
            f"--nproc-per-node: {processes} processes here, but torch finds {cuda} GPUs; start as "
            "many, or give --accelerator cpu"
        )


def _check_same_run(before: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    """Refuse to go on with a run on other data, or with options that would make it another run."""
    if before["data"]["fingerprint"] != now["data"]["fingerprint"]:
        raise ValueError(
            f"{now['data']['path']}: not the data set that {folder} was begun with; give that one "
            "as --data, or begin another run with another -o"
        )
    old, new = (
        {"model": head["model"], **head["options"], **head["training"]} for head in (before, now)
    )
    for name, value in old.items():
        if name not in MAY_CHANGE and value != new.get(name):
            raise ValueError(
                f"--{name.replace('_', '-')}: {folder} was begun with {value}, and keeps it; "
                "leave it out, or begin another run with another -o"
            )


def _tell_other_digits(before: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    """Say so where the run cannot end in the digits that it would have had unbroken."""
    unlike = "the digits will not be those of an unbroken run"
    old, new = before.get("matmul", now["matmul"]), now["matmul"]
    if old != new:
        say(f"note: {folder} multiplied by {old} so far, which is not to be had here; {unlike}")
    old, new = before.get("threads", now["threads"]), now["threads"]
    if old != new:
        say(
            f"note: {folder} had {old} threads so far and has {new} now; {unlike}, unless you set "
            f"OMP_NUM_THREADS={old}"
        )


def _write_config(options: Any, file: Path) -> None:
    """Write what `--config` reads back. The folder is left out: the run may be moved."""
    kept = {"model": options.model, "data": str(Path(options.data).resolve())}
    for kind in (MODEL_OPTIONS[options.model], TrainingOptions):
        kept |= pick(options, kind)
    kept = {name: list(v) if isinstance(v, tuple) else v for name, v in kept.items()}
    from data_prep import store

    with store.replacing(file) as partial_file:
        partial_file.write_text(yaml.safe_dump(kept, sort_keys=False))


def _quiet() -> None:
    """Keep Lightning's hints about devices, workers and loggers off the screen."""
    import logging

    for name in ("lightning.fabric", "lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")


def render(result: dict[str, Any]) -> str:
    """What a person reads at the end."""
    return (
        f"{result['run']}: {result['epochs']} epochs in {result['seconds'] / 60:.1f} min, best "
        f"validation at epoch {result['best_epoch']}: {result['valid']:.3f} {result['unit']}\n"
        f"next: cgrnn evaluate {result['run']}\n"
    )
