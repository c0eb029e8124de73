"""Exact partition functions and draws, by enumeration: for small models and to test the rest."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from evaluation import contract
from evaluation.result import LogPartition

MAX_VISIBLE = 20
MAX_HIDDEN = 15
_BLOCK = 1 << 20  # numbers in a block of states


def all_frames(units: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Every state of so many binary units, `(2^units, units)`.

    Example:
        >>> all_frames(2).tolist()
        [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    """
    index = torch.arange(1 << units)
    return ((index[:, None] >> torch.arange(units)) & 1).to(dtype)


@torch.no_grad()
def log_partition(density: Any) -> Tensor:
    """`log Z` of every density of a batch, `(*B,)` float64.

    Formula: over binary frames `log Σ_v exp(-F(v))`, up to 20 visible units. Over continuous frames
        the frame and the slabs are integrated in closed form for every state of the spikes,
        `log Σ_h ∫∫ exp(-E(v, h, s)) ds dv`, up to 15 hidden units and any number of visible ones.

    Raises:
        ValueError: when there are too many states to enumerate, or the density does not declare
            its frames or breaks its contract (`evaluation.contract`).

    Example:
        >>> from cgrnn.layers import BernoulliRBM
        >>> layer = BernoulliRBM(visible_dim=3, hidden_dim=2)
        >>> _ = layer.W.data.zero_()
        >>> log_partition(layer(None))  # five free units: 5 log 2
        tensor(3.4657, dtype=torch.float64)
    """
    return log_masses(density)[1].logsumexp(0)


def result(density: Any) -> LogPartition:
    """`log_partition` in the form that estimators return, without error and without weights."""
    log_z = log_partition(density)
    none = torch.zeros_like(log_z)
    return LogPartition(log_z, none, none, "exact", log_z.new_empty(0, *density.batch_shape))


@torch.no_grad()
def sample(density: Any, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw frames from every density of a batch exactly, `(count, *B, V)`.

    Args:
        density: small enough for `log_partition`.
        count: draws from each density.
        generator: source of the draws.
    """
    states, masses = log_masses(density)
    share = masses.reshape(len(states), -1).softmax(0).T
    index = torch.multinomial(share, count, replacement=True, generator=generator).T
    chosen = states[index].view(count, *density.batch_shape, -1)
    if density.frames == "continuous":
        return density.sample_collapsed(chosen, generator)
    return chosen


def log_masses(density: Any) -> tuple[Tensor, Tensor]:
    """The states enumerated, `(n, units)`, and the log of their unnormalised mass, `(n, *B)`.

    The states are those of the frame, or of the spikes where the frame is continuous.
    """
    continuous = contract.frames(density, "exact") == "continuous"
    units = density.hidden_dim if continuous else density.visible_dim
    limit, kind = (MAX_HIDDEN, "hidden") if continuous else (MAX_VISIBLE, "visible")
    if units > limit:
        raise ValueError(
            f"{kind}_dim: enumeration is limited to {limit} {kind} units, got {units}; "
            "estimate with evaluation.ais.log_partition instead"
        )
    contract.check_enumerable(density)
    contract.check(density)
    states = all_frames(units, density.weight.dtype).to(density.weight.device)
    mass = density.hidden_log_mass if continuous else lambda v: -density.free_energy(v)
    # A state of the spikes needs the precision matrix of the frame.
    size = density.visible_dim**2 if continuous else density.hidden_dim
    singles = (1,) * len(density.batch_shape)
    rows = max(1, _BLOCK // (size * max(1, math.prod(density.batch_shape))))
    blocks = [
        mass(block.view(-1, *singles, units).expand(-1, *density.batch_shape, -1)).double()
        for block in states.split(rows)
    ]
    return states, torch.cat(blocks)
