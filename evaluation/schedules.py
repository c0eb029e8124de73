"""Where on the annealing path the levels lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from torch import Tensor

Schedule = Literal["adaptive", "linear", "sigmoid"]
Path = Callable[[float], Any]

_STEEPNESS = 4.0
# Share of the levels that the adaptive schedule spreads evenly, so that a stretch whose variance
# the pilot missed is not leapt over.
_EVEN = 0.1


def linear(levels: int) -> list[float]:
    """`beta_k = k / levels`.

    Example:
        >>> linear(4)
        [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    return [k / levels for k in range(levels + 1)]


def sigmoid(levels: int) -> list[float]:
    """A logistic curve from 0 to 1 that is dense at both ends.

    Formula: `beta_k = (σ(δ(2k/K - 1)) - σ(-δ)) / (σ(δ) - σ(-δ))` with δ = 4.
    Source: Grosse, Maddison & Salakhutdinov 2013.

    Example:
        >>> [round(beta, 2) for beta in sigmoid(4)]
        [0.0, 0.1, 0.5, 0.9, 1.0]
    """
    curve = 1 / (1 + np.exp(-_STEEPNESS * np.linspace(-1, 1, levels + 1)))
    curve = (curve - curve[0]) / (curve[-1] - curve[0])
    return [float(beta) for beta in curve]


def constant_divergence(rises: Tensor, levels: int) -> list[float]:
    """Levels between which the densities differ by the same Kullback-Leibler divergence.

    For a small step `KL(p_β, p_β+δ) = ½ δ² Var_β[dF/dβ]`, and the effective share of the sample
    after it is `1 / (1 + δ² Var_β[dF/dβ])`: steps in proportion to `1 / std(dF/dβ)` hold both
    constant. The deviation is taken from chains that stepped evenly.

    Args:
        rises: what each step of a linear schedule added to the log-weights,
            `(steps, chains, *B)`; one schedule is made for all of the batch.
        levels: steps wanted.

    Returns:
        `levels + 1` numbers from 0 to 1.

    Example:
        >>> import torch
        >>> wild, calm = torch.tensor([-3.0, 3.0]), torch.tensor([-1.0, 1.0])
        >>> betas = constant_divergence(torch.stack([wild, calm]), 4)
        >>> sum(beta <= 0.5 for beta in betas) > sum(beta >= 0.5 for beta in betas)
        True
    """
    deviation = rises.double().var(1).reshape(len(rises), -1).mean(1).sqrt()
    speed = (1 - _EVEN) * deviation / deviation.mean().clamp(min=1e-300) + _EVEN
    length = np.concatenate([[0.0], speed.cumsum(0).cpu().numpy()])
    even = np.linspace(0, 1, levels + 1)
    betas = np.interp(even, length / length[-1], np.linspace(0, 1, len(length)))
    return [float(beta) for beta in betas]
