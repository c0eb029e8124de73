"""Nats of error against seconds: the mean log Z of a test split, by fixed and automatic annealing.

The automatic estimator does the whole split; plain loop and fixed settings anneal frames drawn at
random, and their seconds are scaled to all. The error is the mean difference from 100 chains × 3000
even levels on the same frames, with its standard error.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import plain_ais
import torch
from harness import Row, peaks, seconds
from torch import Tensor

from cgrnn.batches import Batches
from cgrnn.checkpoint import open_run
from data_prep import store
from evaluation import ais
from evaluation.blocks import Blocks
from evaluation.mean_partition import Gap, MeanLogPartition

CHAINS, LEVELS = 100, 1000
# Frames of the truth, and frames that the plain loop takes at once: with more it is slower.
FRAMES, AT_ONCE = 300, 32


def rows(run: str, quick: bool) -> list[Row]:
    """A row for each way, against the seconds of the plain loop on every frame."""
    levels, frames, at_once = (LEVELS // 100, 20, 2) if quick else (LEVELS, FRAMES, AT_ONCE)
    targets = (2.0, 1.0) if quick else (0.02, 0.05)
    split = split_density(run)
    split = split[:60] if quick else split
    even(split[:8], 10)  # compiles what is compiled
    precise = automatic(split, targets[0], levels if quick else None)
    order = precise.mean.order  # the same for every target
    plain = [fixed(plain_loop, split, order[:at_once], levels)]
    rough = automatic(split, targets[1], levels if quick else None)
    plain.append(fixed(plain_loop, split, order[at_once : 2 * at_once], levels))
    few = order[: 2 * at_once]
    truth = fixed(even, split, order[:frames], 3 * levels).log_z
    against = f"plain loop, {CHAINS} × {levels}, every frame"
    reference = sum(part.seconds for part in plain) / len(plain)

    def row(name: str, taken: float, log_z: Tensor, note: str, memory: float | None = None) -> Row:
        gap = Gap.between(log_z, truth[: len(log_z)])
        note += f"; off by {gap.mean:+.3f} ± {gap.error:.3f} nat on {len(log_z)} frames"
        return Row(f"log Z of a test split: {name}", taken, against, reference, "s", memory, note)

    scaled = f"scaled to {split.batch_shape[0]} frames"
    found = [row("plain loop", reference, torch.cat([part.log_z for part in plain]), scaled)]
    for many in (levels // 10, levels):
        own = fixed(even, split, few, many)
        found.append(row(f"even levels, {CHAINS} × {many}", own.seconds, own.log_z, scaled))
    for target, way in zip(targets, (precise, rough), strict=True):
        log_z, name = way.mean.long[:frames], f"automatic to ± {target}"
        note = f"± {way.mean.stderr:.3f}, {way.mean.chain_levels / 1e6:.0f} M chain-levels"
        found.append(row(name, way.seconds, log_z, note, way.memory))
    return found


def split_density(run: str) -> Any:
    """The densities of all frames of the test split that a run's model was trained for, flat."""
    trained = open_run(run)
    model, contexts = trained.model, []
    split = store.read(trained.data["path"], "test").splits["test"]
    batches = Batches(split.frames, split.lengths, batch_size=16)
    with torch.no_grad():
        for number in range(len(batches)):
            batch, own = batches[number], torch.Generator().manual_seed(number)
            inside = model.scored(batch.lengths, batch.frames.shape[1])
            contexts.append(model.contexts(batch.frames, own)[0][inside])
        return model.layer(torch.cat(contexts))


def plain_loop(density: Any, levels: int) -> Tensor:
    own = torch.Generator().manual_seed(levels)
    return plain_ais.log_partition(density, CHAINS, levels, own).log_z


def even(density: Any, levels: int) -> Tensor:
    own = torch.Generator().manual_seed(levels)
    found = ais.log_partition(density, CHAINS, levels, own, schedule="linear")
    return found.log_z + 0.5 * found.stderr**2


class Fixed(NamedTuple):
    """`log Ẑ` of some frames, and the seconds that all frames of the split would take."""

    log_z: Tensor
    seconds: float


def fixed(way: Callable[[Any, int], Tensor], split: Any, chosen: Tensor, levels: int) -> Fixed:
    made: list[Tensor] = []
    taken = seconds(lambda: made.append(way(split[chosen], levels)))
    return Fixed(made[0], taken * split.batch_shape[0] / len(chosen))


class Automatic(NamedTuple):
    """What `cgrnn evaluate --stderr` does, its seconds and MB."""

    mean: MeanLogPartition
    seconds: float
    memory: float


def automatic(split: Any, target: float, levels: int | None) -> Automatic:
    total = split.batch_shape[0]
    share = torch.full((total,), 1.0 / total, dtype=torch.float64)
    made: list[MeanLogPartition] = []

    def work() -> None:
        made.append(MeanLogPartition(split, share, 20, levels, target, Blocks(), _say))

    times: list[float] = []
    memory = peaks([lambda: times.append(seconds(work))])[0]
    return Automatic(made[0], times[0], memory)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
