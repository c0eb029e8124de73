"""Contrastive divergence, from the data (CD-k) or from persistent chains (PCD)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from samplers.gibbs import chain

RESTART_STEPS = 5  # times as many sweeps for a chain that comes from noise


def contrastive_loss(
    density: Any,
    v: Tensor,
    steps: int,
    generator: torch.Generator | None = None,
    chains: Tensor | None = None,
    restarts: float = 0.0,
) -> Tensor:
    """`F(v) - F(ṽ)` per frame, whose gradient is the contrastive estimate of `-∇ log p(v)`.

    The exact gradient of `-log p(v) = F(v) + log Z` has `E_{ṽ~p}[∇F(ṽ)]` for `-∇ log Z`. Here `ṽ`
    is where a Gibbs chain stands after `steps` sweeps: started at `v` for CD-k (Hinton 2002), at
    where the frame's chain stood last time for persistent CD (Tieleman 2008). No gradient passes
    through the chain. The value is not a likelihood.

    Args:
        density: energy density with batch shape `(*B,)`.
        v: frames, `(*B, V)`.
        steps: k, sweeps of the chain.
        generator: source of the draws.
        chains: for persistent CD the frames where the chains stand, `(*B, V)`; overwritten with
            where they end.
        restarts: share of the frames that get a second chain, which begins at noise
            (`density.sample_noise`) and makes five times as many sweeps. The ends of both count
            with their Boltzmann weights. Chains that begin at data never leave their surroundings.
            With none from elsewhere, a binary spike-and-slab RBM, whose energy is quadratic in the
            frame, grows a mode of nearly full frames that nothing pushes up and that in the end
            holds all of `Z`.

    Returns:
        Per-frame loss, `(*B,)`.
    """
    start = (v if chains is None else chains).detach()
    negative = chain(density, start, steps, generator)
    if chains is not None:
        chains.copy_(negative)
    data, phase = density.free_energy(torch.stack([v, negative]))
    if restarts > 0:
        near = phase.flatten()
        phase = _with_restarts(density.flatten(), near, restarts, steps, generator).view_as(phase)
    return data - phase


def _with_restarts(
    density: Any, phase: Tensor, share: float, steps: int, generator: torch.Generator | None
) -> Tensor:
    """Weigh the negative phase of some frames against the ends of chains that begin at noise.

    Two ends `ṽ`, `r` stand for the model with their Boltzmann weights, `r` with
    `σ(F(ṽ) - F(r))`: a chain that has not come down from the noise counts nothing, and one that has
    found a mode deeper than the data's counts alone.
    """
    count, device = max(1, round(share * len(phase))), phase.device
    chosen = torch.randperm(len(phase), generator=generator, device=device)[:count]
    few = density[chosen]
    noise = few.sample_noise(generator)
    found = few.free_energy(chain(few, noise, RESTART_STEPS * steps, generator))
    near = phase[chosen]
    weight = torch.sigmoid(near - found).detach()
    return phase.index_copy(0, chosen, torch.lerp(near, found, weight))
