"""How heavy the tail of a set of weights is: the shape of the Pareto law that fits the largest."""

from __future__ import annotations

import math

import torch
from torch import Tensor

HEAVY = 1.0  # from here on the law has no mean; from a half on no variance
_FEWEST = 8  # of the largest weights that a law can be fitted to
_PRIOR = 10.0  # weights that the prior, a shape of a half, counts for


def tail_index(log_weights: Tensor) -> Tensor:
    """Shape `k` of the generalised Pareto law of the largest weights, `(*B,)`.

    Formula: of `n` weights the largest `M = min(n/5, 3√n)`, less the next one, are fitted by
        `p(x) ∝ (1 + k x/σ)^(-1/k - 1)`, a law that has no mean from `k = 1` on and no variance
        from `k = ½` on. The fit is the posterior mean of Zhang & Stephens 2009, drawn towards a
        half by a prior worth ten weights, as in Pareto smoothed importance sampling.
    Source: Vehtari, Simpson, Gelman, Yao & Gabry, "Pareto smoothed importance sampling", 2024.

    Args:
        log_weights: `(n, *B)`.

    Returns:
        `k`; 0 where the largest weights are equal, or fewer than eight.

    Example:
        >>> even, heavy = torch.linspace(0, 1, 400), -torch.linspace(0.001, 1, 400).log() * 3
        >>> bool(tail_index(even) < 0.5), bool(tail_index(heavy) > 1)
        (True, True)
    """
    count = len(log_weights)
    largest = int(min(count / 5, 3 * math.sqrt(count)))
    if largest < _FEWEST:
        return torch.zeros_like(log_weights[0])
    top = log_weights.topk(largest + 1, 0).values.flip(0).double()
    x = (top[1:] - top[-1]).exp() - (top[0] - top[-1]).exp()  # ascending, at most 1
    quartile, most = x[int(largest / 4 + 0.5) - 1], x[-1]
    flat = quartile < 1e-12
    grid = torch.arange(1, 31 + int(math.sqrt(largest))).to(x)
    grid = (1 - (len(grid) / (grid - 0.5)).sqrt()).view(-1, *[1] * quartile.dim())
    b = grid / (3 * quartile.where(~flat, 1.0)) + 1 / most.where(~flat, 1.0)
    k = torch.log1p(-b[:, None] * x.where(~flat, 0.5)).mean(1)
    fit = largest * ((-b / k).log() - k - 1)
    posterior = (fit - fit.logsumexp(0)).exp().nan_to_num()
    b = (posterior * b).sum(0) / posterior.sum(0)
    shape = torch.log1p(-b * x).mean(0)
    shape = (largest * shape + 0.5 * _PRIOR) / (largest + _PRIOR)
    return shape.masked_fill(flat | ~shape.isfinite(), 0.0)
