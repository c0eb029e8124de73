"""The recurrent transition that carries the past of a sequence to its next frame."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from cgrnn.arithmetic import rounded_layers
from cgrnn.layers.conditional import LatentDrive
from cgrnn.scan import GRU, LSTM, Tanh, scan

State = tuple[Tensor, ...]
"""State of the recurrence: `(u,)`, and for an LSTM `(u, c)`, each `(layers, batch, R)`."""

CELLS: dict[str, tuple[Any, Any]] = {
    "gru": (nn.GRU, GRU),
    "lstm": (nn.LSTM, LSTM),
    "tanh": (nn.RNN, Tanh),
}


class Transition(nn.Module):
    """`u_n = RNN(relu MLP(v_n), h_n⊙s_n, u_{n-1})`, for all frames of a batch.

    The products with what is known beforehand, of every frame with the MLP and with the input half
    of the cell, are made for all frames at once. The scan over time does only what depends on `u`:
    the draw or the expectation of the spikes, and the recurrent half. Without latents fed back it
    is torch's own recurrent kernel.

    Source: Liu, Xie & Wang, §3. `u_0` is learned, where the paper's code starts from zeros.

    Args:
        visible_dim: V, units of a frame.
        latent_dim: H, latents fed back; 0 where none are.
        recurrent_dim: R, size of `u`.
        mlp_dims: sizes of the ReLU layers that `v` passes; empty: `v` itself is the input.
        cell: "gru", "lstm" or "tanh".
        feeds_visible: whether `v_n` drives `u_n`; without it only the latents do.
        layers: recurrent layers, one upon the other; one where latents are fed back.
        dropout: probability with which the features of `v`, and what passes from one layer to the
            next, are dropped in training.
    """

    def __init__(
        self,
        visible_dim: int,
        latent_dim: int,
        recurrent_dim: int,
        mlp_dims: tuple[int, ...] = (),
        cell: str = "gru",
        feeds_visible: bool = True,
        layers: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if cell not in CELLS:
            raise ValueError(f"cell: expected one of {', '.join(CELLS)}, got {cell!r}")
        kind, self.cell = CELLS[cell]
        self.feeds_visible, self.recurrent_dim = feeds_visible, recurrent_dim
        sizes = (visible_dim, *mlp_dims) if feeds_visible else (0,)
        mlp: list[nn.Module] = []
        for before, after in pairwise(sizes):
            mlp += [nn.Linear(before, after), nn.ReLU()]
        self.features = nn.Sequential(*mlp, nn.Dropout(dropout))
        between = dropout if layers > 1 else 0.0
        self.rnn = kind(sizes[-1] + latent_dim, recurrent_dim, layers, dropout=between)
        states = 2 if cell == "lstm" else 1
        self.initial = nn.Parameter(torch.zeros(states, layers, recurrent_dim))

    def initial_state(self, batch: int) -> State:
        """State before the first frame."""
        return tuple(state.unsqueeze(1).expand(-1, batch, -1) for state in self.initial)

    @staticmethod
    def context(state: State) -> Tensor:
        """What the frame after a state is given, `(batch, R)`: the last layer's `u`."""
        return state[0][-1]

    def forward(
        self, v: Tensor, drive: LatentDrive | None = None, state: State | None = None
    ) -> tuple[Tensor, State]:
        """Run over frames and return every context and the last state.

        Args:
            v: frames, `(batch, frames, V)`.
            drive: what the latents need (`ConditionalRBM.drive`), time first, `(frames, batch, H)`;
                None without latents fed back.
            state: state to start from; None for the start of a sequence.

        Returns:
            Contexts `u_0 … u_{N-1}`, `(batch, frames, R)`: the one at frame `n` saw the frames
            before it alone. And the state after the last frame.
        """
        state = self.initial_state(v.shape[0]) if state is None else state
        if drive is None:
            return self._kernel(self.features(v.transpose(0, 1)), state)
        features = None
        if self.feeds_visible:
            with rounded_layers(v.device):
                features = self.features(v.transpose(0, 1))
        contexts, after = scan(self.cell, self.rnn, features, drive, tuple(x[0] for x in state))
        return contexts.transpose(0, 1), tuple(part.unsqueeze(0) for part in after)

    def _kernel(self, features: Tensor, state: State) -> tuple[Tensor, State]:
        state = tuple(part.contiguous() for part in state)
        later, after = self.rnn(features, state if len(state) == 2 else state[0])
        contexts = torch.cat([self.context(state).unsqueeze(0), later[:-1]])
        return contexts.transpose(0, 1), after if len(state) == 2 else (after,)
