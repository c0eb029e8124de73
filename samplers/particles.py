"""The likelihood of sequences by weighted paths of latents: one path, many, or a particle filter.

For paths `z` drawn frame by frame from a proposal `q`, with weights
`w_n = p(v_n | z_≤n, v_<n) p(z_n | z_<n, v_<n) / q(z_n | z_<n, v)`, the mean of `Π_n w_n` is
`p(v_1..N)`. So `E[Σ log w_n]` is a lower bound of its logarithm (the ELBO), the logarithm of the
mean over K paths a tighter one (Burda, Grosse & Salakhutdinov 2016), and resampling the paths by
their weights on the way gives a mean that is as unbiased with less spread (FIVO, Maddison et al.
2017; Naesseth et al., Le et al. 2018). All three are low on average and rise to the likelihood.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

METHODS = ("paths", "filter")
RESAMPLE_BELOW = 0.5  # of the paths, in effective number


class Walk(Protocol):
    """K paths for each of a batch of sequences, taken one frame at a time."""

    def step(self) -> Tensor:
        """Draw the latents of the next frame; return `log w_n`, `(paths, batch)`."""

    def select(self, ancestors: Tensor) -> None:
        """Let each path go on from another one's place, `(paths, batch)`."""


@torch.no_grad()
def log_likelihood(
    walk: Walk,
    lengths: Tensor,
    method: str = "filter",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Lower bound of `log p(v_1..N)` of each sequence, in nats, `(batch,)` float64.

    Args:
        walk: the paths.
        lengths: frames in each sequence, `(batch,)`; what follows them counts nothing.
        method: "paths", the logarithm of the mean weight of independent paths (with one path, the
            ELBO); or "filter", where the paths of a sequence are resampled, systematically, when
            their effective number falls below half.
        generator: source of the draws.

    Raises:
        ValueError: for an unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    total = torch.zeros(lengths.shape, dtype=torch.float64, device=lengths.device)
    log_weight = torch.zeros((), dtype=torch.float64)
    for n in range(int(lengths.max())):
        step = walk.step().double()
        log_weight = log_weight + torch.where(n < lengths, step, 0.0)
        if method == "filter" and len(step) > 1:
            poor = _effective(log_weight) < RESAMPLE_BELOW * len(step)
            if poor.any():
                total = total + torch.where(poor, _log_mean(log_weight), 0.0)
                walk.select(_ancestors(log_weight, poor, generator))
                log_weight = torch.where(poor, 0.0, log_weight)
    return total + _log_mean(log_weight)


def _log_mean(log_weight: Tensor) -> Tensor:
    return log_weight.logsumexp(0) - math.log(len(log_weight))


def _effective(log_weight: Tensor) -> Tensor:
    """Effective number of paths, `(Σ w)² / Σ w²`, `(batch,)`."""
    return (2 * log_weight.logsumexp(0) - (2 * log_weight).logsumexp(0)).exp()


def _ancestors(log_weight: Tensor, poor: Tensor, generator: torch.Generator | None) -> Tensor:
    """Systematic resampling where `poor`, everyone himself elsewhere, `(paths, batch)`.

    Path `i` is chosen `K w_i` times on average, rounded up or down.
    """
    paths, batch = log_weight.shape
    own = torch.arange(paths, device=log_weight.device)
    offset = torch.rand(batch, 1, generator=generator, device=log_weight.device)
    points = (own + offset.double()) / paths
    edges = log_weight.softmax(0).cumsum(0).t().contiguous()
    drawn = torch.searchsorted(edges, points).clamp_(max=paths - 1).t()
    return torch.where(poor, drawn, own[:, None])
