"""What the commands that take a RUN share: the trained model and the data it was trained on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgrnn.cli import say

if TYPE_CHECKING:
    from cgrnn.checkpoint import Run
    from data_prep.store import Dataset

SWEEPS_HELP = "Gibbs sweeps to draw a frame, for models with an energy; more come nearer the model"


def open_data(path: str, split: str | None = None, target: str | None = None) -> Dataset:
    """A data set of any kind.

    Args:
        path: the file.
        split: the only one to read; None for all.
        target: of a model of notes: "integers" takes every pitch by itself, for its regression.
    """
    from data_prep import notes, store

    if not Path(path).is_file() or not notes.holds_notes(path):
        return store.read(path, split)
    data = notes.load(path, "pitches" if target == "integers" else "tokens")
    data.attributes |= {"mean": 0.0, "std": 1.0}
    return data


def read_data(run: Run, path: str | None, split: str, others: bool = False) -> Dataset:
    """The data set of a run, or another one that fits its model.

    Args:
        run: the trained model.
        path: data set to read in place of the one it was trained on.
        split: the split that is needed.
        others: read the other splits too.

    Raises:
        FileNotFoundError: when the data set has gone.
        ValueError: when its frames do not fit the model, or the split is empty.
    """
    file = path or run.data["path"]
    if not Path(file).is_file():
        raise FileNotFoundError(f"{file}: the data set of this run is gone; name one with --data")
    data = open_data(file, None if others else split, getattr(run.model, "target", None))
    units = data.splits[split].frames.shape[1]
    if units != run.model.visible_dim:
        raise ValueError(
            f"{file}: frames of {units} units, but the model was trained on "
            f"{run.model.visible_dim}; prepare the data as for training"
        )
    if run.model.visible != data.attributes["kind"]:
        raise ValueError(
            f"{file}: holds {data.attributes['kind']} frames, but the model was trained on "
            f"{run.model.visible} ones; name another data set with --data"
        )
    if run.data.get("vocabulary") != data.attributes.get("vocabulary"):
        raise ValueError(f"{file}: its vocabulary is not the one that the model was trained on")
    if not len(data.splits[split].lengths):
        raise ValueError(f"{file}: its {split} split is empty; name another data set with --data")
    if data.attributes["fingerprint"] != run.data["fingerprint"]:
        say(f"note: {file} is not the data set that the model was trained on")
    return data


def normalisation(attributes: Mapping[str, Any]) -> tuple[float, float]:
    """`mean` and `std` that a data set's frames are normalised by for a model."""
    return float(attributes["mean"]), float(attributes["std"])


def folder_of(run: str) -> Path:
    """Where a run's results go: its directory, or that of the checkpoint file given.

    Raises:
        FileNotFoundError: when there is no such run.
    """
    path = Path(run)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such run; make one with `cgrnn train -o {path}`")
    return path if path.is_dir() else path.parent


def make_folder(path: str | Path) -> Path:
    """A folder that results can be written to, made where there is none.

    Raises:
        ValueError: when that cannot be: worth knowing before the work.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"{path}: cannot make this folder ({error.strerror}); choose another"
        ) from error
    if not os.access(path, os.W_OK):
        raise ValueError(f"{path}: this folder cannot be written to; choose another")
    return path


def playback(run: Run) -> dict[str, Any]:
    """How frames of a run's data sound: `frame_rate` and `lowest_pitch`.

    Raises:
        ValueError: when they are not notes.
    """
    for name in ("frame_rate", "lowest_pitch"):
        if name not in run.data:
            raise ValueError(f"{run.data['path']}: has no {name}, its frames are not notes")
    return {
        "frame_rate": float(run.data["frame_rate"]),
        "lowest_pitch": int(run.data["lowest_pitch"]),
    }
