"""Gibbs chains over the frames of an energy density."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from samplers import fused


@torch.no_grad()
def chain(density: Any, v: Tensor, sweeps: int, generator: torch.Generator | None = None) -> Tensor:
    """Run block Gibbs sweeps from frames `v` `(*S, *B, V)` and return where they end.

    On a CPU the sweeps of a density that it knows are made by a compiled kernel (`samplers.fused`).

    Args:
        density: the energy density to leave invariant.
        v: frames to start from.
        sweeps: sweeps to make; 0 returns `v`.
        generator: source of the draws.
    """
    if sweeps > 0 and fused.knows(density):
        return fused.sweep(density, v, sweeps, generator)
    for _ in range(sweeps):
        v = density.gibbs_step(v, generator)
    return v


@torch.no_grad()
def draw(
    density: Any, shape: tuple[int, ...], sweeps: int, generator: torch.Generator | None = None
) -> Tensor:
    """Draw frames `(*shape, *B, V)` that owe nothing to any given frame.

    The chain starts from an exact draw at `beta = 0`, where the units are independent; the draws
    are those of the density as `sweeps` grows. (Raising `beta` on the way was measured on trained
    models and came no nearer in as many sweeps.)

    Args:
        density: the energy density to draw from.
        shape: sample dimensions.
        sweeps: sweeps to make; 0 returns draws from the base density.
        generator: source of the draws.
    """
    return chain(density, density.sample_base(shape, generator), sweeps, generator)
