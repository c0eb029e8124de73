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
        restarts: share of the frames whose chain begins anew at noise, of a density drawn uniformly
            for each, and makes five times as many sweeps. Chains that begin at data never leave
            their surroundings. With none from elsewhere, a spike-and-slab RBM, whose energy is
            quadratic in the frame, grows a mode of nearly full frames that nothing pushes up and
            that in the end holds all of `Z`.

    Returns:
        Per-frame loss, `(*B,)`.
    """
    start = (v if chains is None else chains).detach()
    negative = chain(density, start, steps, generator)
    if restarts > 0:
        _restart(density.flatten(), negative.view(-1, v.shape[-1]), restarts, steps, generator)
    if chains is not None:
        chains.copy_(negative)
    return density.free_energy(v) - density.free_energy(negative)


@torch.no_grad()
def _restart(
    density: Any, frames: Tensor, share: float, steps: int, generator: torch.Generator | None
) -> None:
    """Put the ends of chains that begin at noise of every density in the place of some frames."""
    count = max(1, round(share * len(frames)))
    chosen = torch.randint(len(frames), (count,), generator=generator, device=frames.device)
    draws = torch.empty(count, 1 + frames.shape[1], device=frames.device, dtype=frames.dtype)
    draws.uniform_(generator=generator)
    noise = (draws[:, 1:] < draws[:, :1]).to(frames.dtype)
    frames[chosen] = chain(density[chosen], noise, RESTART_STEPS * steps, generator)
