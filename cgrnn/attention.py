"""Causal attention over a window of recent states, for all frames of a batch at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention


class WindowAttention(nn.Module):
    """Every state with what it finds among itself and the `window - 1` states before it.

    Formula, for states `u_n` of R numbers and `n - W < m ≤ n`:
        `w_nm = softmax_m( (A u_n)ᵀ u_m / √R + b_{n-m} )`
        `ũ_n = u_n + O Σ_m w_nm u_m`

    `b`, one number for each lag, tells a state's age, which its product with the query does not.
    The frames are taken in blocks of W that see two windows: time and memory are linear in their
    number, `O(N W)` a sequence for the weights.

    Source: Luong, Pham & Manning, "Effective Approaches to Attention-based Neural Machine
    Translation", 2015, their "general" product, within a window as Vinyals et al., "Grammar as a
    Foreign Language", 2015, attend to earlier outputs. Departures: the product is scaled (Vaswani
    et al., 2017), lags have a bias, and what is found is added to the state.

    Args:
        dim: R, size of a state.
        window: W, states that one state sees, itself included; at least 2.

    Example:
        >>> attention = WindowAttention(dim=4, window=3)
        >>> attention(torch.ones(2, 7, 4)).shape
        torch.Size([2, 7, 4])
    """

    def __init__(self, dim: int, window: int) -> None:
        super().__init__()
        if window < 2:
            raise ValueError(f"window: expected at least 2, got {window}")
        self.window = window
        self.query = nn.Linear(dim, dim, bias=False)
        self.lag_bias = nn.Parameter(torch.zeros(window))
        self.output = nn.Linear(dim, dim, bias=False)

    def forward(self, states: Tensor, before: Tensor | None = None) -> Tensor:
        """`ũ` of some states in order.

        Args:
            states: `(batch, frames, R)`.
            before: those before the first of them, `(batch, at most window - 1, R)`; None at the
                start of a sequence.
        """
        if before is None:
            before = states[:, :0]
        frames, known = states.shape[1], before.shape[1]
        size = min(frames, self.window)  # of a block of queries
        blocks = math.ceil(frames / size)
        missing, excess = self.window - 1 - known, blocks * size - frames
        queries = pad(self.query(states), (0, 0, 0, excess)).unflatten(1, (blocks, size))
        keys = pad(torch.cat([before, states], 1), (0, 0, missing, excess))
        keys = keys.unfold(1, size + self.window - 1, size).transpose(-1, -2)
        # A block takes the place of a head.
        found = scaled_dot_product_attention(queries, keys, keys, self._bias(blocks, size, missing))
        return states + self.output(found.flatten(1, 2)[:, :frames])

    def _bias(self, blocks: int, size: int, missing: int) -> Tensor:
        """The bias of each lag, -inf outside the window, `(blocks, size, size + window - 1)`."""
        device = self.lag_bias.device
        query = torch.arange(size, device=device)[:, None] + self.window - 1
        key = torch.arange(size + self.window - 1, device=device)
        lag = query - key
        there = key + size * torch.arange(blocks, device=device)[:, None, None] >= missing
        seen = (lag >= 0) & (lag < self.window) & there
        bias = self.lag_bias[lag.clamp(0, self.window - 1)]
        return torch.where(seen, bias, -math.inf)
