"""Contrastive divergence, from the data (CD-k) or from persistent chains (PCD)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from samplers.gibbs import chain


def contrastive_loss(
    density: Any,
    v: Tensor,
    steps: int,
    generator: torch.Generator | None = None,
    chains: Tensor | None = None,
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

    Returns:
        Per-frame loss, `(*B,)`.
    """
    start = v if chains is None else chains
    negative = chain(density, start.detach(), steps, generator)
    if chains is not None:
        chains.copy_(negative)
    return density.free_energy(v) - density.free_energy(negative)
