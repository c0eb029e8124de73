"""Gibbs chains over the frames of an energy density."""

from __future__ import annotations

from collections.abc import Sequence
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
        return fused.sweep(density, v, [fused.SELF] * sweeps, generator)
    for _ in range(sweeps):
        v = density.gibbs_step(v, generator)
    return v


@torch.no_grad()
def cool(
    density: Any, v: Tensor, betas: Sequence[float], generator: torch.Generator | None = None
) -> Tensor:
    """Sweep once at each `beta` of `density.tempered` and return where the chains end.

    With rising betas a chain goes down from where it can move to where the mass is: it finds modes
    that a chain at `beta = 1` is long in finding. Its ends are no draws of the density.
    """
    if fused.knows(density):
        levels = [density.path_factors("tempered", beta) for beta in betas]
        return fused.sweep(density, v, levels, generator)
    for beta in betas:
        v = density.tempered(beta).gibbs_step(v, generator)
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
