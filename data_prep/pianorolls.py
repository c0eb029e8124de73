"""The four standard sets of piano-rolls, in their published splits.

Boulanger-Lewandowski et al. 2012 publish `.mat` files (JSB Chorales, MuseData, Nottingham,
Piano-midi), Fraccaro et al. 2016 `.npz` files of the same music. The two do not hold the same
sequences (their JSB Chorales are on another time grid), so likelihoods on one do not compare
with likelihoods on the other.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from data_prep import store
from data_prep.summary import summary

KEYS = 88
LOWEST_PITCH = 21
FIRST_FRAMES = ("scored", "input")
Rolls = list[tuple[str, np.ndarray]]


def load(path: str | os.PathLike[str], with_first: bool = False) -> dict[str, Rolls]:
    """(source, roll) pairs of each split, rolls being (frames, 88) uint8, key 0 MIDI note 21.

    The training and validation rolls of an `.npz` are pieces cut into 100 frames; its test rolls
    are whole, their ends given by `mask_test`.

    Args:
        path: the file.
        with_first: of an `.npz`, put before each roll the frame that its ``u_`` begins with.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not one of these files; one line that says why.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give a standard .mat or .npz file")
    readers: dict[str, Callable[[Path], dict[str, list[np.ndarray]]]]
    readers = {".mat": _load_mat, ".npz": partial(_load_npz, with_first=with_first)}
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path}: not a .mat or .npz file; give one of the standard sets")
    rolls = readers[path.suffix.lower()](path)
    return {
        split: [
            (name := f"{path.stem}/{split}/{n}", _checked(roll, f"{path}: {name}"))
            for n, roll in enumerate(pieces)
        ]
        for split, pieces in rolls.items()
    }


def prepare_pianorolls(
    path: str | os.PathLike[str], output: str | os.PathLike[str], first_frame: str = "scored"
) -> dict[str, Any]:
    """Write a standard set to the data file `output`; returns the summary of `prepare --json`.

    Args:
        path: the `.mat` or `.npz` file.
        output: HDF5 file to make.
        first_frame: "scored", or "input": the first frame of each sequence is told, and not
            scored, as the attribute ``given_frames`` says. The sequences of an `.npz` then begin
            a frame earlier, with the first frame of its ``u_``: the protocol of the SRNN.
    """
    if first_frame not in FIRST_FRAMES:
        known = ", ".join(FIRST_FRAMES)
        raise ValueError(f"first_frame: expected one of {known}, got {first_frame!r}")
    given = first_frame == "input"
    rolls = load(path, with_first=given)
    if given:
        rolls = {
            split: [(name, roll) for name, roll in pieces if len(roll) > 1]
            for split, pieces in rolls.items()
        }
    unit, rate = _grid(Path(path))
    dataset = store.write(
        output,
        rolls,
        kind="binary",
        name=Path(path).stem,
        frame_unit=unit,
        frame_rate=rate,
        lowest_pitch=LOWEST_PITCH,
        given_frames=1 if given else None,
    )
    return summary(dataset, output, found=1, read=1, skipped=[])


def _grid(path: Path) -> tuple[str, float]:
    """What a frame lasts, and frames a second (at 120 quarter notes a minute) to play it back."""
    if not path.name.lower().startswith("jsb"):
        return "frame", 4.0
    return ("quarter note", 2.0) if path.suffix.lower() == ".mat" else ("eighth note", 4.0)


def _load_mat(path: Path) -> dict[str, list[np.ndarray]]:
    from scipy.io import loadmat

    try:
        contents = loadmat(path)
    except Exception as error:  # scipy raises a dozen kinds on files that are not MATLAB's
        raise ValueError(f"{path}: not a readable .mat file ({error}); fetch it again") from error
    return {split: list(_member(path, contents, f"{split}data").ravel()) for split in store.SPLITS}


def _load_npz(path: Path, with_first: bool) -> dict[str, list[np.ndarray]]:
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            contents = {name: file[name] for name in file.files}
    except Exception as error:  # numpy raises zipfile's, zlib's and its own
        raise ValueError(f"{path}: not a readable .npz file ({error}); fetch it again") from error
    train, valid, test = (_member(path, contents, f"x_{split}") for split in store.SPLITS)
    mask = _member(path, contents, "mask_test")
    if test.ndim != 3 or mask.shape != test.shape[:2]:
        raise ValueError(f"{path}: mask_test is {mask.shape} where x_test is {test.shape}")
    lengths = mask.astype(bool).sum(axis=1)
    if not np.array_equal(mask, np.arange(test.shape[1]) < lengths[:, None]):
        raise ValueError(f"{path}: mask_test must be ones, then zeros, in each row; fetch it again")
    whole = [roll[:length] for roll, length in zip(test, lengths, strict=True)]
    rolls = {"train": list(train), "valid": list(valid), "test": whole}
    if with_first:
        for split, pieces in rolls.items():
            delayed = _member(path, contents, f"u_{split}")  # x_ one frame later
            if delayed.shape[:1] != (len(pieces),) or delayed.ndim != 3:
                raise ValueError(f"{path}: u_{split} is {delayed.shape} for {len(pieces)} rolls")
            rolls[split] = [
                np.concatenate([before[:1], roll])
                for before, roll in zip(delayed, pieces, strict=True)
            ]
    return rolls


def _member(path: Path, contents: dict[str, Any], name: str) -> np.ndarray:
    if name not in contents:
        found = ", ".join(sorted(key for key in contents if not key.startswith("_"))) or "nothing"
        raise ValueError(f"{path}: holds {found}, but not {name}; give one of the standard sets")
    return contents[name]


def _checked(roll: Any, where: str) -> np.ndarray:
    roll = np.asarray(roll)
    if roll.ndim != 2 or roll.shape[1] != KEYS or len(roll) == 0:
        raise ValueError(f"{where}: shape {roll.shape}, must be (frames, {KEYS})")
    if roll.dtype.kind not in "biuf" or not np.isin(roll, (0, 1)).all():
        raise ValueError(f"{where}: holds something other than 0 and 1; fetch the file again")
    return roll.astype(np.uint8)
