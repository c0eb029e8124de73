"""A data set in memory or on disk: its splits, and what identifies it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import h5py

SPLITS = ("train", "valid", "test")
DTYPES: dict[str, np.dtype[Any]] = {"binary": np.dtype("uint8"), "continuous": np.dtype("<f4")}
BLOCK_BYTES = 1 << 22  # what is held at a time of frames that are written, verified or counted


class StoredFrames:
    """Frames that stay on disk, read by rows as they are asked for: `frames[start:end]`.

    Each process opens the file for itself, so that it may be handed to workers.
    """

    ndim = 2

    def __init__(
        self, path: str | os.PathLike[str], split: str, shape: tuple[int, int], kind: str
    ) -> None:
        self.path, self.split, self.shape, self.dtype = Path(path), split, shape, DTYPES[kind]
        self._open: tuple[int, h5py.Dataset] | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        import h5py

        if self._open is None or self._open[0] != os.getpid():
            self._open = os.getpid(), h5py.File(self.path, "r")[f"{self.split}/frames"]
        return np.asarray(self._open[1][rows], dtype=self.dtype)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": None}


Frames = np.ndarray | StoredFrames


@dataclass
class Split:
    """The sequences of one split, end to end.

    Attributes:
        frames: (total frames, visible) uint8 or float32.
        lengths: (sequences,) int64, frames in each sequence.
        source: where each sequence came from.
        labels: what else is known of each sequence, by name.
    """

    frames: Frames
    lengths: np.ndarray
    source: list[str]
    labels: dict[str, list[str]] = field(default_factory=dict)

    def sequences(self) -> Iterator[np.ndarray]:
        """Each sequence (length, visible) in turn; a view where the frames are in memory.

        >>> split = Split(np.eye(3, dtype=np.uint8), np.array([1, 2]), ["a", "b"])
        >>> [s.shape for s in split.sequences()]
        [(1, 3), (2, 3)]
        """
        ends = np.cumsum(self.lengths)
        return (self.frames[end - n : end] for n, end in zip(self.lengths, ends, strict=True))

    def sequence(self, number: int) -> np.ndarray:
        """One sequence, `(length, visible)`."""
        end = int(self.lengths[: number + 1].sum())
        return self.frames[end - int(self.lengths[number]) : end]


@dataclass
class Dataset:
    """Splits by name, and what is known of them all.

    Attributes:
        splits: ``train``, ``valid`` and ``test`` (or the one asked for).
        attributes: ``kind`` ('binary' or 'continuous'); ``frame_rate`` (frames a second, at
            120 quarter notes a minute where the grid is in beats) or ``sample_rate`` (Hz);
            ``mean`` and ``std`` over every cell of the training frames, so that
            ``(frames - mean) / std`` is normalised (0 and 1 for binary frames, which stay as they
            are); ``fingerprint``; and what the maker added (``lowest_pitch``: the MIDI note of
            key 0, ``frame_unit``, ``name``, …). Frames are stored unnormalised.
    """

    splits: dict[str, Split]
    attributes: dict[str, Any] = field(default_factory=dict)


def fingerprint(kind: str, splits: Mapping[str, Split]) -> str:
    """sha256 (hex) of what the data are, however the file holds them."""
    digest = started(kind)
    for name in SPLITS:
        frames = splits[name].frames
        add_split(digest, name, splits[name].lengths, frames.shape[1])
        for block in blocks(frames):
            digest.update(np.ascontiguousarray(block).data)
    return digest.hexdigest()


def blocks(frames: Any) -> Iterator[np.ndarray]:
    """The rows of `frames` in turn, some megabytes at a time."""
    rows = max(1, BLOCK_BYTES // (frames.shape[1] * frames.dtype.itemsize or 1))
    return (frames[start : start + rows] for start in range(0, len(frames), rows))


def started(kind: str) -> Any:
    """The hash before any split."""
    return hashlib.sha256(f"{kind}\n".encode())


def add_split(digest: Any, name: str, lengths: np.ndarray, visible: int) -> None:
    """Add to the hash what comes before the frames of a split."""
    digest.update(f"{name} {len(lengths)} x {visible}\n".encode())
    digest.update(np.ascontiguousarray(lengths, dtype="<i8").data)
