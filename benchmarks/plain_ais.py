"""Annealed importance sampling as a textbook has it: what `evaluation.ais` is measured against.

One path, even levels, all chains of all frames at once, a torch call for each step of the formula.
It shares no code with the package, so that it stays the same measure whatever becomes of that.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus


class Estimate(NamedTuple):
    """`log Ẑ` of every frame and its standard error, `(B,)` each."""

    log_z: Tensor
    stderr: Tensor


@torch.no_grad()
def log_partition(
    density: Any, chains: int, levels: int, generator: torch.Generator | None = None
) -> Estimate:
    """`log Z` of a flat batch of binary spike-and-slab RBMs, couplings annealed from 0 to 1.

    Formula: `log w = log Z_0 + Σ_k F_{k-1}(v_{k-1}) - F_k(v_{k-1})`, `v_k` one Gibbs sweep under
    `β_k = k/levels` from `v_{k-1}`; `log Ẑ = log mean exp(log w)`, to which half its squared error
    is added, by which the log of a mean is low: so does `evaluation.mean_partition`.

    Source: Salakhutdinov & Murray 2008; the densities: Liu, Xie & Wang §4.2.
    """
    W, alpha, mu = density.weight, density.alpha, density.mu
    b_v, b_h = density.visible_bias, density.hidden_bias

    slabs = 0.5 * torch.log(2 * math.pi / alpha).sum()

    def logits(vW: Tensor, beta: float) -> Tensor:
        return b_h + beta * mu * vW + (beta * vW) ** 2 / (2 * alpha)

    def free_energy(v: Tensor, vW: Tensor, beta: float) -> Tensor:
        return -(v * b_v).sum(-1) - softplus(logits(vW, beta)).sum(-1) - slabs

    def sweep(vW: Tensor, beta: float) -> Tensor:
        h = torch.bernoulli(torch.sigmoid(logits(vW, beta)), generator=generator)
        s = h * (beta * vW / alpha + mu) + torch.randn(h.shape, generator=generator) / alpha.sqrt()
        return torch.bernoulli(torch.sigmoid(beta * ((h * s) @ W.T) + b_v), generator=generator)

    v = torch.bernoulli(torch.sigmoid(b_v).expand(chains, *b_v.shape), generator=generator)
    log_w = (softplus(b_v).sum(-1) + softplus(b_h).sum(-1) + slabs).expand(chains, -1).clone()
    for level in range(1, levels + 1):
        vW = v @ W
        before, after = (level - 1) / levels, level / levels
        log_w += free_energy(v, vW, before) - free_energy(v, vW, after)
        v = sweep(vW, after)
    relative = torch.exp(log_w - log_w.logsumexp(0)) * chains
    stderr = relative.std(0) / chains**0.5
    return Estimate(log_w.logsumexp(0) - math.log(chains) + 0.5 * stderr**2, stderr)
