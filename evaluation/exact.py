"""Exact partition functions, by enumeration: for small models and for the tests of the rest."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

MAX_VISIBLE = 20
_BLOCK = 1 << 14


def all_frames(visible_dim: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Every binary frame of `visible_dim` units, `(2^V, V)`.

    Example:
        >>> all_frames(2).tolist()
        [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    """
    if visible_dim > MAX_VISIBLE:
        raise ValueError(
            f"visible_dim: enumeration is limited to {MAX_VISIBLE} visible units, got "
            f"{visible_dim}; estimate with evaluation.ais.log_partition instead"
        )
    index = torch.arange(1 << visible_dim)
    return ((index[:, None] >> torch.arange(visible_dim)) & 1).to(dtype)


@torch.no_grad()
def log_partition(density: Any) -> Tensor:
    """`log Z = log Σ_v exp(-F(v))` over all binary frames, `(*B,)` float64.

    Args:
        density: an energy density over binary frames, at most 20 visible units.

    Raises:
        ValueError: when there are too many frames to enumerate.

    Example:
        >>> from cgrnn.layers import BernoulliRBM
        >>> layer = BernoulliRBM(visible_dim=3, hidden_dim=2)
        >>> _ = layer.W.data.zero_()
        >>> log_partition(layer(None))  # five free units: 5 log 2
        tensor(3.4657, dtype=torch.float64)
    """
    frames = all_frames(density.visible_dim, density.visible_bias.dtype)
    singles = (1,) * len(density.batch_shape)
    total = torch.full(density.batch_shape, -torch.inf, dtype=torch.float64)
    for block in frames.split(_BLOCK):
        v = block.view(-1, *singles, density.visible_dim)
        log_weight = -density.free_energy(v.expand(-1, *density.batch_shape, -1))
        total = torch.logaddexp(total, log_weight.double().logsumexp(0))
    return total
