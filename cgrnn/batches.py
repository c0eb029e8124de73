"""Training and validation batches of sequences, in memory or on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

POOL = 8  # batches whose sequences are sorted by length among themselves


@dataclass(eq=False)  # not frozen: lightning fills in a copy for precision 64-true
class Batch:
    """Sequences padded at the end.

    Attributes:
        frames: `(batch, frames, V)` float32.
        lengths: `(batch,)`.
        rows: place of every frame in the split, `(batch, frames)`; 0 in the padding.
        shifts: keys by which each sequence was moved up, `(batch,)`.
        sequences: how many the batch has in all processes.
        share: how much of the batch's scored frames these are; 0 where they only stand in for none.
    """

    frames: Tensor
    lengths: Tensor
    rows: Tensor
    shifts: Tensor
    sequences: int
    share: float

    def to(self, device: torch.device, non_blocking: bool = False) -> Batch:
        return self._each(lambda x: x.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        return self._each(Tensor.pin_memory)

    def _each(self, function: Callable[[Tensor], Tensor]) -> Batch:
        frames, lengths, rows, shifts = map(function, self._tensors())
        return Batch(frames, lengths, rows, shifts, self.sequences, self.share)

    def _tensors(self) -> tuple[Tensor, ...]:
        return self.frames, self.lengths, self.rows, self.shifts


def moved(frames: Tensor, shifts: Tensor) -> Tensor:
    """Move each sequence of `(batch, frames, V)` up by its number of keys, around the edge.

    Example:
        >>> moved(torch.tensor([[[1, 0, 0]]]), torch.tensor([2])).tolist()
        [[[0, 0, 1]]]
    """
    keys = frames.shape[-1]
    source = (torch.arange(keys, device=frames.device) - shifts[:, None]) % keys
    return frames.gather(-1, source[:, None].expand(frames.shape))


class Batches(torch.utils.data.Dataset[Batch]):
    """Batches of one pass over a split, by their number: a pure function of its arguments.

    Shuffled, the sequences of a batch are of like length, which saves work on padding: of every
    eight batches' worth of sequences in random order, the shortest make one batch, and so on.

    Args:
        frames: all frames of the split end to end, `(total, V)`, an array or
            `data_prep.store.StoredFrames`, which is read as the batches are asked for.
        lengths: `(sequences,)`.
        batch_size: sequences a batch.
        segment_frames: longer sequences are cut into pieces of so many frames; None keeps them.
        transpose: largest move in keys; a sequence moves by a random number of keys within it,
            as far as none of its notes leaves the keyboard.
        shuffle: seed of the order and of the moves; None keeps the order and moves nothing.
        mean, std: frames come as `(frames - mean) / std`.
        part: the process that asks, and how many there are. Each gets sequences of its own of every
            batch, moved as they would be for one process; they are of like length, to take it equal
            time.
        given_frames: how many first frames of each piece are not scored.
    """

    def __init__(
        self,
        frames: Any,
        lengths: np.ndarray,
        batch_size: int,
        segment_frames: int | None = None,
        transpose: int = 0,
        shuffle: tuple[int, ...] | None = None,
        mean: float = 0.0,
        std: float = 1.0,
        part: tuple[int, int] = (0, 1),
        given_frames: int = 0,
    ) -> None:
        self.part, self.given_frames = part, given_frames
        self.frames, self.batch_size = frames, batch_size
        self.transpose, self.shuffle = transpose, shuffle
        self.mean, self.std = mean, std
        self.pieces = _pieces(lengths, segment_frames)
        self.order = np.arange(len(self.pieces))
        if shuffle is not None:
            self.order = _shuffled(self.pieces, batch_size, np.random.default_rng(shuffle))

    def __len__(self) -> int:
        return -(-len(self.pieces) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> Batch:
        batch = self.order[number * self.batch_size : (number + 1) * self.batch_size]
        own, share = self._own(self.pieces[batch])
        pieces = self.pieces[batch[own]]
        rolls = [self.frames[begin:end] for begin, end in pieces]
        lengths = torch.from_numpy(pieces[:, 1] - pieces[:, 0])
        offsets = torch.arange(int(lengths.max()))
        rows = torch.from_numpy(pieces[:, :1]) + offsets
        rows = torch.where(offsets < lengths[:, None], rows, 0)
        frames = torch.zeros(len(rolls), len(offsets), self.frames.shape[1])
        for place, roll in zip(frames, rolls, strict=True):
            place[: len(roll)] = torch.from_numpy(roll)
            if (self.mean, self.std) != (0.0, 1.0):
                place[: len(roll)].sub_(self.mean).div_(self.std)
        shifts = torch.tensor(self._shifts(number, own, rolls))
        frames = moved(frames, shifts) if shifts.any() else frames
        return Batch(frames, lengths, rows, shifts, len(batch), share)

    def _own(self, pieces: np.ndarray) -> tuple[np.ndarray, float]:
        """Places in a batch of this process's sequences, and their share of its scored frames.

        A process whose sequences have none stands by with the batch's longest, for no share: models
        take no batch without scored frames, and no process may miss a step.
        """
        process, processes = self.part
        own = np.arange(process, len(pieces), processes)
        if processes == 1:
            return own, 1.0
        scored = np.maximum(pieces[:, 1] - pieces[:, 0] - self.given_frames, 0)
        if not scored[own].any():
            return scored.argmax(keepdims=True), 0.0
        return own, float(scored[own].sum() / scored.sum())

    def _shifts(self, number: int, own: np.ndarray, rolls: list[np.ndarray]) -> list[int]:
        if self.shuffle is None or not self.transpose:
            return [0] * len(rolls)
        # A number for each place, whoever has it and whatever its notes.
        draws = np.random.default_rng((*self.shuffle, number)).random(self.batch_size)[own]
        shifts = []
        for roll, draw in zip(rolls, draws, strict=True):
            sounding = np.flatnonzero(roll.any(axis=0))
            edges = (sounding[0], sounding[-1]) if len(sounding) else (0, roll.shape[1] - 1)
            down = min(self.transpose, edges[0])
            up = min(self.transpose, roll.shape[1] - 1 - edges[1])
            shifts.append(int(draw * (down + up + 1)) - int(down))
        return shifts


def _pieces(lengths: np.ndarray, segment_frames: int | None) -> np.ndarray:
    """(begin, end) of what sequences are cut into, `(pieces, 2)`."""
    ends = np.cumsum(lengths, dtype=np.int64)
    size = segment_frames or int(lengths.max(initial=1))
    counts = -(-lengths // size)
    whole = np.repeat(np.arange(len(lengths)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    begin = (ends - lengths)[whole] + size * within
    return np.stack([begin, np.minimum(begin + size, ends[whole])], axis=1)


def _shuffled(pieces: np.ndarray, batch_size: int, random: np.random.Generator) -> np.ndarray:
    """The order of the pieces, those of each batch of like length."""
    order = random.permutation(len(pieces))
    length = np.diff(pieces, axis=1)[:, 0]
    pools = [order[n : n + POOL * batch_size] for n in range(0, len(order), POOL * batch_size)]
    # The short batch, if any, stays at the end, where slicing by number looks for it.
    by_length = [pool[np.argsort(length[pool], kind="stable")] for pool in pools]
    batches = [
        pool[n : n + batch_size] for pool in by_length for n in range(0, len(pool), batch_size)
    ]
    full = [batch for batch in batches if len(batch) == batch_size]
    rest = [batch for batch in batches if len(batch) < batch_size]
    turns = random.permutation(len(full))
    return np.concatenate([*(full[n] for n in turns), *rest]) if len(order) else order
