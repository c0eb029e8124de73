"""Training and validation batches of sequences held in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(eq=False)  # not frozen: lightning fills in a copy for precision 64-true
class Batch:
    """Sequences padded at the end.

    Attributes:
        frames: `(batch, frames, V)` float32.
        lengths: `(batch,)`.
        rows: place of every frame in the split, `(batch, frames)`; 0 in the padding.
        shifts: keys by which each sequence was moved up, `(batch,)`.
    """

    frames: Tensor
    lengths: Tensor
    rows: Tensor
    shifts: Tensor

    def to(self, device: torch.device) -> Batch:
        return Batch(*(x.to(device) for x in (self.frames, self.lengths, self.rows, self.shifts)))


def moved(frames: Tensor, shifts: Tensor) -> Tensor:
    """Move each sequence of `(batch, frames, V)` up by its number of keys, around the edge.

    Example:
        >>> moved(torch.tensor([[[1, 0, 0]]]), torch.tensor([2])).tolist()
        [[[0, 0, 1]]]
    """
    keys = frames.shape[-1]
    source = (torch.arange(keys, device=frames.device) - shifts[:, None]) % keys
    return frames.gather(-1, source[:, None].expand(frames.shape))


class Batches:
    """Batches of one pass over a split: a pure function of its arguments.

    Args:
        frames: all frames of the split end to end, `(total, V)` uint8.
        lengths: `(sequences,)`.
        batch_size: sequences a batch.
        segment_frames: longer sequences are cut into pieces of so many frames; None keeps them.
        transpose: largest move in keys; a sequence moves by a random number of keys within it,
            as far as none of its notes leaves the keyboard.
        shuffle: seed of the order and of the moves; None keeps the order and moves nothing.
    """

    def __init__(
        self,
        frames: np.ndarray,
        lengths: np.ndarray,
        batch_size: int,
        segment_frames: int | None = None,
        transpose: int = 0,
        shuffle: tuple[int, ...] | None = None,
    ) -> None:
        self.frames, self.batch_size = frames, batch_size
        self.transpose, self.shuffle = transpose, shuffle
        ends = np.cumsum(lengths)
        self.pieces = [
            (start, min(start + (segment_frames or end - begin), end))
            for begin, end in zip(ends - lengths, ends, strict=True)
            for start in range(begin, end, segment_frames or int(end - begin))
        ]

    def __len__(self) -> int:
        return -(-len(self.pieces) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        random = np.random.default_rng(self.shuffle)
        order = np.arange(len(self.pieces))
        if self.shuffle is not None:
            random.shuffle(order)
        for start in range(0, len(order), self.batch_size):
            pieces = [self.pieces[i] for i in order[start : start + self.batch_size]]
            shifts = [0 if self.shuffle is None else self._shift(random, *p) for p in pieces]
            yield self._batch(pieces, shifts)

    def _shift(self, random: np.random.Generator, begin: int, end: int) -> int:
        sounding = np.flatnonzero(self.frames[begin:end].any(axis=0))
        if not self.transpose or not len(sounding):
            return 0
        down = min(self.transpose, sounding[0])
        up = min(self.transpose, self.frames.shape[1] - 1 - sounding[-1])
        return int(random.integers(-down, up + 1))

    def _batch(self, pieces: list[tuple[int, int]], shifts: list[int]) -> Batch:
        lengths = torch.tensor([end - begin for begin, end in pieces])
        offsets = torch.arange(int(lengths.max()))
        rows = torch.tensor([begin for begin, _ in pieces])[:, None] + offsets
        inside = offsets < lengths[:, None]
        rows = torch.where(inside, rows, 0)
        frames = torch.from_numpy(self.frames[rows.numpy()]).float() * inside[..., None]
        moves = torch.tensor(shifts)
        return Batch(moved(frames, moves) if any(shifts) else frames, lengths, rows, moves)
