"""What the stages of estimating a mean of partition functions find, and how they compare."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

PILOT_FRAMES, PILOT_CHAINS = 100, 20
FORGOTTEN = 4.0  # standard errors by which a pilot may lie above the long annealing


class Gap(NamedTuple):
    """A mean difference in nats, and its standard error."""

    mean: float
    error: float

    @classmethod
    def between(cls, high: Tensor, low: Tensor) -> Gap:
        difference = high - low
        count = len(difference)
        error = float(difference.std()) / count**0.5 if count > 1 else math.inf
        return cls(float(difference.mean()), error)


class Annealed(NamedTuple):
    """Estimates of some frames: those of `LogPartition`, `(n,)` each."""

    log_z: Tensor
    stderr: Tensor
    ess: Tensor
    bound: Tensor
    missed: Tensor

    @property
    def corrected(self) -> Tensor:
        """`log Ẑ` without its bias: the log of a mean is low by half its relative variance. What
        is missed has no such error: it stands at its proven bound."""
        return self.log_z + 0.5 * self.noise

    @property
    def noise(self) -> Tensor:
        """Squared standard errors; 0 where there is none."""
        return self.stderr.masked_fill(self.missed, 0.0) ** 2

    @property
    def variance(self) -> float:
        """Mean squared standard error, of what has one."""
        return float(self.noise.sum() / (~self.missed).sum().clamp(min=1))

    def joined(self, other: Annealed) -> Annealed:
        return Annealed(*(torch.cat(parts) for parts in zip(self, other, strict=True)))

    @classmethod
    def none(cls) -> Annealed:
        empty = torch.empty(0, dtype=torch.float64)
        return cls(empty, empty, empty, empty, empty.bool())


class Pilot(NamedTuple):
    """What annealing the pilot frames at some levels found."""

    levels: int
    estimate: Annealed

    @property
    def variance(self) -> float:
        """Of `log Ẑ` from a single chain, were it small: the relative variance of the weights."""
        return self.estimate.variance * PILOT_CHAINS


def forgotten(pilots: list[Pilot], annealed: Annealed) -> Gap:
    """How far a pilot lies above what came after it, on the frames where no error explains it.

    Of so few chains none is trusted to within less than the root of their number. The mean is that
    over these frames, the error their share of the pilot's.
    """
    worst = Gap(0.0, 0.0)
    for pilot in pilots:
        shared = min(len(pilot.estimate.log_z), len(annealed.log_z))
        before, after = pilot.estimate.log_z[:shared], annealed.log_z[:shared]
        doubt = [part.stderr[:shared].nan_to_num(posinf=0.0) for part in (pilot.estimate, annealed)]
        least = PILOT_CHAINS**-0.5
        error = torch.hypot(*(part.clamp(min=least) for part in doubt))
        above = before - after > FORGOTTEN * error
        if float(above.double().mean()) > worst.error:
            worst = Gap(float((before - after)[above].mean()), float(above.double().mean()))
    return worst
