"""How far ahead a model can see: predictions k steps on, from its own output."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cgrnn.models.sequence import SequenceModel
from evaluation.accuracy import Sums, frame_counts, measures_of, plain, stderr_of
from evaluation.blocks import BatchList, Blocks, blocks_of

HORIZON = 32
# A start every so many frames, and no more than so many in a sequence: on JSB each frame is drawn
# about twice, and where sequences are long the cost stays below that of the other protocols.
SPACING, STARTS = 16, 8


@dataclass(frozen=True, eq=False)
class Recursive:
    """What k steps ahead score, k = 1 … K.

    Attributes:
        steps: k, `(K,)`.
        frames: that were compared at each k, `(K,)`.
        measures: those of `evaluation.accuracy.measures_of`, each `(K,)`.
        stderr: standard error over sequences of the first of them, `(K,)`; NaN for one sequence.
    """

    steps: Tensor
    frames: Tensor
    measures: dict[str, Any]
    stderr: Tensor

    def plain(self) -> dict[str, Any]:
        """As `evaluation.json` has it."""
        found = {"steps": self.steps, **self.measures, "stderr": self.stderr, "frames": self.frames}
        return {name: plain(value) for name, value in found.items()}


@torch.no_grad()
def steps_ahead(
    model: SequenceModel,
    batches: BatchList,
    horizon: int = HORIZON,
    generator: torch.Generator | Blocks | None = None,
) -> Recursive:
    """Let a model go on by itself, and compare what it makes with what comes.

    It is told `v_1 … v_n`, draws `v_{n+1} … v_{n+horizon}` on its own output, once, and the k-th
    of them is held against the true `v_{n+k}`. Starts n are common to a batch: the first is at one
    frame, or the frames that are given, and the others follow every 16 frames, or as many as leave
    8 of them in the longest sequence. A sequence takes part in those before its last frame.

    Args:
        model: in evaluation mode.
        batches: sequences; large batches save time.
        horizon: K at the most; fewer where no sequence is as long.
        generator: source of the draws, or the blocks in which the work is done.

    Raises:
        ValueError: for a horizon below 1.
    """
    if horizon < 1:
        raise ValueError(f"horizon must be at least 1, got {horizon}")
    blocks = blocks_of(generator, model)
    lengths = [batches[number].lengths for number in range(len(batches))]
    first = max(1, model.given_frames)
    places = [
        (number, start)
        for number, its in enumerate(lengths)
        for start in starts(first, int(its.max()))
    ]

    def one(place: tuple[int, int], own: torch.Generator) -> dict[str, Any]:
        number, start = place
        batch = batches[number].to(blocks.device)
        long_enough = batch.lengths > start
        frames, left = batch.frames[long_enough], batch.lengths[long_enough] - start
        steps = min(horizon, int(left.max()))
        made = model.generate(steps, len(frames), frames[:, :start], own)[:, start:]
        counts = frame_counts(model.visible, made, frames[:, start : start + steps])
        inside = torch.arange(steps, device=left.device) < left[:, None]

        def placed(count: Tensor) -> Tensor:
            result = count.new_zeros(len(batch.lengths), horizon)
            result[long_enough, :steps] = torch.where(inside, count, 0.0)
            return result

        return {name: placed(count) for name, count in counts.items()}

    found = blocks.run("recursive", places, one)
    return _curve(model.visible, _by_sequence(places, found))


def starts(first: int, longest: int) -> range:
    """Frames told before each continuation of a batch whose longest sequence has so many.

    >>> list(starts(1, 40)), list(starts(1, 17)), len(starts(1, 4000)), list(starts(1, 1))
    ([1, 17, 33], [1], 8, [])
    """
    return range(first, longest, max(SPACING, math.ceil((longest - first) / STARTS)))


def _by_sequence(places: list[tuple[int, int]], found: list[dict[str, Any]]) -> Sums:
    """Sums over the starts of each sequence, `(sequences, horizon)`."""
    batches: dict[int, Sums] = {}
    for (number, _), counts in zip(places, found, strict=True):
        before = batches.get(number)
        batches[number] = {
            name: count + before[name] if before else count for name, count in counts.items()
        }
    names = found[0] if found else ()
    return {name: torch.cat([sums[name] for sums in batches.values()]) for name in names}


def _curve(kind: str, by_sequence: Sums) -> Recursive:
    if not by_sequence:
        nothing = torch.zeros(0)
        return Recursive(nothing, nothing, {}, nothing)
    reached = int((by_sequence["frames"].sum(0) > 0).sum())
    by_sequence = {name: count[:, :reached] for name, count in by_sequence.items()}
    sums = {name: count.sum(0) for name, count in by_sequence.items()}
    return Recursive(
        torch.arange(1, reached + 1),
        sums["frames"].long(),
        measures_of(kind, sums),
        stderr_of(kind, by_sequence),
    )
