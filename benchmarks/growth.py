"""How time and memory grow with the sizes: slopes of straight lines through their logarithms.

1 is proportional, 0 constant. A part that does not grow makes the slope smaller.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from harness import EXPONENT, Row, alternating, apart, peaks

from cgrnn import CGRNN
from cgrnn.layers import BinarySpikeSlabRBM
from evaluation import ais

Work = Callable[[], object]

KEYS, LEVELS, FACTORS = 128, 20, (1, 2, 4, 8)
# Less memory than this is that of caches and compiled code: it must not make a slope.
LEAST_MB = 4.0


def training(batch: int = 16, frames: int = 60, hidden: int = 250) -> Work:
    """A step of CD-1 of the published Lakh setting but for the sizes."""
    model = CGRNN(KEYS, hidden, 500, (400, 400), dropout=0.0, cd_steps=1, restarts=0.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(0)
    v = (torch.rand(batch, frames, KEYS, generator=generator) < 0.04).float()
    lengths = torch.full((batch,), frames)

    def step() -> None:
        optimizer.zero_grad()
        model.loss(v, lengths).backward()
        optimizer.step()

    return step


def density(frames: int) -> Any:
    """Of so many frames, with 250 hidden units."""
    generator = torch.Generator().manual_seed(0)
    layer = BinarySpikeSlabRBM(KEYS, 250, context_dim=8).requires_grad_(False)
    layer.W.normal_(std=0.1, generator=generator)
    return layer(torch.randn(frames, 8, generator=generator))


def annealing(frames: int = 120, chains: int = 50) -> Work:
    """Annealed importance sampling at even levels."""
    densities = density(frames)
    return lambda: ais.log_partition(densities, chains, LEVELS, schedule="linear")


# What is made larger, and its size at the least.
AXES: dict[str, tuple[str, Callable[..., Work], str, int]] = {
    "batch": ("training step", training, "batch", 5),
    "frames": ("training step", training, "frames", 30),
    "hidden": ("training step", training, "hidden", 100),
    "ais-frames": ("AIS", annealing, "frames", 60),
    "ais-chains": ("AIS", annealing, "chains", 20),
}


def rows(quick: bool) -> list[Row]:
    """The exponents of time and of memory along each axis; the reference is 1, proportional."""
    found = []
    for axis, (what, _, size, least) in AXES.items():
        works = dict(enumerate(_works(axis, quick)))
        times = alternating(works, 1 if quick else 3)
        memory = apart("growth:memory", axis=axis, quick=quick)
        sizes = f"{size} {least} to {least * FACTORS[len(works) - 1]}"
        for name, measured, least_of_it, unit in (
            ("time", [1e3 * times[n] for n in works], 0.0, "ms"),
            ("memory", memory, LEAST_MB, "MB"),
        ):
            exponent = _slope([max(value, least_of_it) for value in measured])
            note = f"{sizes}: {' '.join(f'{value:.3g}' for value in measured)} {unit}"
            name = f"{what}: {name} with {size}"
            found.append(Row(name, exponent, "proportional", 1.0, EXPONENT, memory[-1], note))
    return found


def memory(axis: str, quick: bool) -> list[float]:
    """MB of each size, the smallest first."""
    _works(axis, quick)[0]()  # what is made once
    return peaks(_works(axis, quick))


def _works(axis: str, quick: bool) -> list[Work]:
    _, make, size, least = AXES[axis]
    factors = FACTORS[:2] if quick else FACTORS
    return [make(**{size: least * factor}) for factor in factors]


def _slope(measured: list[float]) -> float:
    slope, _ = np.polyfit(np.log(FACTORS[: len(measured)]), np.log(measured), 1)
    return round(float(slope), 3)
