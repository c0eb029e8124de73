"""The LSTM-NADE with attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cgrnn.attention import WindowAttention
from cgrnn.layers import NADE, RNADE
from cgrnn.layers.conditional import LatentDrive
from cgrnn.models.rnn import RNN
from cgrnn.transition import State, Transition


class AttendedTransition(nn.Module):
    """A transition whose contexts attend to those before them, with the interface of `Transition`.

    The state is the transition's own and, as its last part, the last contexts, `(at most window,
    batch, R)`; the newest of them is the one that the frame to come is given.

    Args:
        transition: the recurrence.
        window: W, contexts that one context sees, itself included.
    """

    def __init__(self, transition: Transition, window: int) -> None:
        super().__init__()
        self.transition, self.window = transition, window
        self.attention = WindowAttention(transition.recurrent_dim, window)

    def initial_state(self, batch: int) -> State:
        """State before the first frame."""
        state = self.transition.initial_state(batch)
        return (*state, self.transition.context(state).unsqueeze(0))

    def context(self, state: State) -> Tensor:
        """What the frame after a state is given, `(batch, R)`."""
        contexts = state[-1].transpose(0, 1)
        attended: Tensor = self.attention(contexts[:, -1:], contexts[:, :-1])
        return attended.squeeze(1)

    def forward(
        self, v: Tensor, drive: LatentDrive | None = None, state: State | None = None
    ) -> tuple[Tensor, State]:
        """Every context, `(batch, frames, R)`, and the last state, as `Transition.forward`."""
        *own, last = self.initial_state(len(v)) if state is None else state
        contexts, after = self.transition(v, drive, tuple(own))
        before = last[:-1].transpose(0, 1)
        newest = self.transition.context(after).unsqueeze(1)
        last = torch.cat([before, contexts, newest], 1)[:, -self.window :]
        return self.attention(contexts, before), (*after, last.transpose(0, 1))


class LSTMNADE(RNN):
    """LSTM-NADE: layers of LSTM that attend to their recent past, and over the frame a NADE.

    `p(v_n | v_<n)` is a NADE, or an RNADE over a continuous frame, given `ũ_{n-1}`: the last
    layer's `u_{n-1}` with what it finds in `u_{n-W} … u_{n-1}` (`cgrnn.attention`). The likelihood
    is exact.

    Source: "Estimating High-Dimensional Temporal Distributions: Application to Music & Language
    Generation" (anonymous, under review), four layers of LSTM with attention and dropout;
    continuous frames are its word vectors. Departures: the paper prints no formula of its
    attention, ours is that of `WindowAttention`; two layers by default, since four take far more
    steps to learn; transition and first state as in `Transition`.

    Args: those of `RNN`, and
        hidden_dim: H, hidden units of the NADE or RNADE.
        components: Gaussians for each unit of a continuous frame.
        window: W, contexts that the attention sees.

    Example:
        >>> model = LSTMNADE(visible_dim=6, recurrent_dim=5, hidden_dim=4, window=3)
        >>> likelihood = model.log_likelihood(torch.zeros(1, 4, 6), torch.tensor([4]))
        >>> likelihood.kind, likelihood.log_prob.shape
        ('exact', torch.Size([4]))
    """

    name = "lstm-nade"

    def __init__(
        self,
        visible_dim: int = 88,
        recurrent_dim: int = 200,
        hidden_dim: int = 200,
        components: int = 5,
        window: int = 32,
        visible: str = "binary",
        cell: str = "lstm",
        layers: int = 2,
        **options: Any,
    ) -> None:
        super().__init__(
            visible_dim,
            recurrent_dim,
            visible=visible,
            cell=cell,
            layers=layers,
            hidden_dim=hidden_dim,
            components=components,
            **options,
        )
        attended: Any = AttendedTransition(self.transition, window)
        self.transition = attended

    @staticmethod
    def _layer(visible: str, visible_dim: int, context_dim: int, **density: int) -> Any:
        if visible == "binary":
            return NADE(visible_dim, density["hidden_dim"], context_dim)
        return RNADE(visible_dim, density["hidden_dim"], density["components"], context_dim)
