"""Contrastive divergence, from the data (CD-k) or from persistent chains (PCD)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from samplers.gibbs import chain
from samplers.tempering import swap_log_ratio

RESTART_STEPS = 5  # times as many sweeps for a chain that comes from noise
RESTART_BETA = 0.9  # inverse temperature of such a chain


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

    Restarts. Chains that begin at data never leave their surroundings. With none from elsewhere, a
    binary spike-and-slab RBM, whose energy is quadratic in the frame, grows a mode of nearly full
    frames that nothing pushes up and that in the end holds all of `Z`. So a share of the frames
    gets a second chain, which begins at noise, makes five times as many sweeps, and is a little
    hotter: its density is `p_β`, `density.at_temperature(1/β)`. Its end `r` is offered in exchange
    for `ṽ` as in replica exchange, and the two count with the probabilities of its rule:
        `(1 - a) F(ṽ) + a F(r)`,  `a = min(1, exp(F(ṽ) - F(r) + F_β(r) - F_β(ṽ)))`.
    An exchange leaves `p` invariant. Where the ends are draws of `p` and of `p_β`, the gradient is
    therefore exact, whatever the share. As `F_β` is about `βF`, `a` is about
    `min(1, exp((1-β) (F(ṽ) - F(r))))`: a chain that has not come down from the noise counts next to
    nothing, and one that has found a mode deeper than the data's counts alone. Two chains of one
    temperature cannot have both: the rule would always exchange them, and Boltzmann weights would
    favour low energies a second time.

    Source of the exchange: Swendsen & Wang 1986, Geyer 1991.

    Args:
        density: energy density with batch shape `(*B,)`.
        v: frames, `(*B, V)`.
        steps: k, sweeps of the chain.
        generator: source of the draws.
        chains: for persistent CD the frames where the chains stand, `(*B, V)`; overwritten with
            where they end.
        restarts: share of the frames that get a second chain.

    Returns:
        Per-frame loss, `(*B,)`.
    """
    start = (v if chains is None else chains).detach()
    negative = chain(density, start, steps, generator)
    if chains is not None:
        chains.copy_(negative)
    data, phase = density.free_energy(torch.stack([v, negative]))
    if restarts > 0:
        near, ends = phase.flatten(), negative.reshape(-1, negative.shape[-1])
        phase = _with_restarts(density.flatten(), near, ends, restarts, steps, generator)
    return data - phase.view_as(data)


def _with_restarts(
    density: Any,
    phase: Tensor,
    ends: Tensor,
    share: float,
    steps: int,
    generator: torch.Generator | None,
) -> Tensor:
    """The negative phase `F(ṽ)` at `ends`, where some have been offered an exchange."""
    count, device = max(1, round(share * len(phase))), phase.device
    chosen = torch.randperm(len(phase), generator=generator, device=device)[:count]
    few = density[chosen]
    hot = few.at_temperature(1 / RESTART_BETA)
    found = chain(hot, few.sample_noise(generator), RESTART_STEPS * steps, generator)
    with torch.no_grad():
        # Both project for themselves: their couplings differ.
        log_odds = swap_log_ratio((few, hot), (ends[chosen], found), (None, None))
        accepted = log_odds.clamp(max=0).exp()
    exchanged = torch.lerp(phase[chosen], few.free_energy(found), accepted)
    return phase.index_copy(0, chosen, exchanged)
