"""What the commands that take a RUN share: the trained model and the data it was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgrnn.cli import say

if TYPE_CHECKING:
    from cgrnn.checkpoint import Run
    from data_prep.store import Dataset


def read_data(run: Run, path: str | None, split: str | None = None) -> Dataset:
    """The data set of a run, or another one that fits its model.

    Args:
        run: the trained model.
        path: data set to read in place of the one it was trained on.
        split: read this split's frames alone.

    Raises:
        FileNotFoundError: when the data set has gone.
        ValueError: when its frames do not fit the model.
    """
    from data_prep import store

    file = path or run.data["path"]
    if not Path(file).is_file():
        raise FileNotFoundError(f"{file}: the data set of this run is gone; name one with --data")
    data = store.read(file, split)
    units = next(iter(data.splits.values())).frames.shape[1]
    if units != run.model.visible_dim:
        raise ValueError(
            f"{file}: frames of {units} units, but the model was trained on "
            f"{run.model.visible_dim}; prepare the data as for training"
        )
    if data.attributes["fingerprint"] != run.data["fingerprint"]:
        say(f"note: {file} is not the data set that the model was trained on")
    return data


def folder_of(run: str) -> Path:
    """Where a run's results go: its directory, or that of the checkpoint file given."""
    path = Path(run)
    return path if path.is_dir() else path.parent


def playback(run: Run) -> dict[str, Any]:
    """How frames of a run's data sound: `frame_rate` and `lowest_pitch`."""
    return {
        "frame_rate": float(run.data["frame_rate"]),
        "lowest_pitch": int(run.data["lowest_pitch"]),
    }
