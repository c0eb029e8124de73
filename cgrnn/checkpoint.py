"""Checkpoints: all that evaluation and generation need, and nothing that could run code."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cgrnn.models import MODELS, SequenceModel

FORMAT = 2


@dataclass(frozen=True)
class Run:
    """A trained model with what it was trained on.

    Attributes:
        model: in evaluation mode, on the CPU, in float32 whatever it was trained in.
        data: attributes of the data set, its `path` and `fingerprint` included.
        epoch: epochs trained.
    """

    model: SequenceModel
    data: dict[str, Any]
    epoch: int


def describe(
    name: str,
    options: dict[str, Any],
    data: dict[str, Any],
    training: dict[str, Any],
    arithmetic: dict[str, Any],
) -> dict[str, Any]:
    """What a checkpoint says of its model, data and training, in plain types.

    `arithmetic` is what digits depended on (`cgrnn.arithmetic.use_fast_products`), of which a
    resumed run keeps what it can. Older checkpoints do not have it.
    """
    return {
        "format": FORMAT,
        "model": name,
        "options": options,
        "data": data,
        "training": training,
        "arithmetic": arithmetic,
    }


def find(path: str | Path) -> Path:
    """The best checkpoint of a run directory, or the file itself.

    Raises:
        FileNotFoundError: when there is none.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such run; make one with `cgrnn train -o {path}`")
    for name in ("best", "last"):
        checkpoint = path / "checkpoints" / f"{name}.ckpt"
        if checkpoint.is_file():
            return checkpoint
    raise FileNotFoundError(
        f"{path}: no checkpoint in its folder checkpoints/; is it the -o of a `cgrnn train`?"
    )


def read(file: Path) -> dict[str, Any]:
    """All that a checkpoint file holds; no code in it is run.

    Raises:
        ValueError: when the file is not a checkpoint of this program, or of another version.
    """
    try:
        with warnings.catch_warnings():  # torch remarks on foreign pickles before it refuses them
            warnings.simplefilter("ignore")
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds on files that are not its own
        raise ValueError(
            f"{file}: not a readable checkpoint; train again or use another"
        ) from error
    head = content.get("cgrnn") if isinstance(content, dict) else None
    if not isinstance(head, dict):
        raise ValueError(f"{file}: not a checkpoint of cgrnn; give the -o of a `cgrnn train`")
    if head.get("format") != FORMAT:
        raise ValueError(
            f"{file}: checkpoint of format {head.get('format')}, this version reads format "
            f"{FORMAT}; use the version of cgrnn that wrote it, or train again"
        )
    missing = {"model", "options", "data"} - head.keys()
    missing |= {"state_dict", "epoch"} - content.keys()
    if missing:
        raise ValueError(f"{file}: damaged, has no {min(missing)}; train again or use another")
    return content


def open_run(path: str | Path) -> Run:
    """Read a run directory or a checkpoint file.

    Raises:
        FileNotFoundError: when there is none.
        ValueError: when the file is not a checkpoint of this program, or of another version.
    """
    file = find(path)
    content = read(file)
    head = content["cgrnn"]
    if head["model"] not in MODELS:
        raise ValueError(f"{file}: unknown model {head['model']!r}; known: {', '.join(MODELS)}")
    prefix = "model."
    weights = {
        key.removeprefix(prefix): value
        for key, value in content["state_dict"].items()
        if key.startswith(prefix)
    }
    try:
        model = MODELS[head["model"]](**head["options"])
        model.load_state_dict(weights)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{file}: its weights do not fit the model it names; train again or use another"
        ) from error
    model.given_frames = int(head["data"].get("given_frames", 0))
    return Run(model.eval(), head["data"], int(content["epoch"]) + 1)


def load(path: str | Path) -> SequenceModel:
    """The trained model of a run directory or a checkpoint file, ready for evaluation.

    Raises:
        FileNotFoundError: when there is none.
        ValueError: when the file is not a checkpoint that this version reads.
    """
    return open_run(path).model
