"""What the layers share: couplings, biases and the way the context moves the biases."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cgrnn import draws
from cgrnn.arithmetic import rounded_layers
from cgrnn.layers import feedback
from cgrnn.layers.energy import EnergyDensity
from cgrnn.layers.tractable import check_context

INITIAL_WEIGHT = 0.01


class LatentDrive(NamedTuple):
    """All that a scan over time must know of the latents, computed for every frame at once.

    The spike of hidden unit `i` at frame `n` is on with probability
    `σ(logits_ni + (weight u_{n-1})_i)`; it then feeds back `slabs_ni`.

    Attributes:
        logits: spike logits without the context's share, `(*B, H)`.
        slabs: what an active spike feeds back, `(*B, H)`.
        weight: U₂, the context's way to the hidden biases, `(H, R)`.
        uniforms: for sampled spikes one uniform number each, `(*B, H)`; None for expected ones.
    """

    logits: Tensor
    slabs: Tensor
    weight: Tensor
    uniforms: Tensor | None


class ConditionalRBM(nn.Module, ABC):
    """Couplings `W`, biases `b_v`, `b_h`, and the context's shifts of both biases.

    `b̃_v = b_v + U₃ u` and `b̃_h = b_h + U₂ u` for a context `u` of `context_dim` numbers. Calling
    the layer with a context `(*B, context_dim)` (or None when `context_dim` is 0) gives a density
    with batch shape `(*B,)`.

    Args:
        visible_dim: V, units of a frame.
        hidden_dim: H, hidden units.
        context_dim: size of the context, 0 for an unconditional density.
    """

    def __init__(self, visible_dim: int, hidden_dim: int, context_dim: int = 0) -> None:
        super().__init__()
        self.visible_dim, self.hidden_dim, self.context_dim = visible_dim, hidden_dim, context_dim
        self.W = nn.Parameter(torch.empty(visible_dim, hidden_dim))
        self.visible_bias = nn.Parameter(torch.zeros(visible_dim))
        self.hidden_bias = nn.Parameter(torch.zeros(hidden_dim))
        nn.init.uniform_(self.W, -INITIAL_WEIGHT, INITIAL_WEIGHT)
        if context_dim:
            self.context_to_visible = nn.Linear(context_dim, visible_dim, bias=False)
            self.context_to_hidden = nn.Linear(context_dim, hidden_dim, bias=False)
            for linear in (self.context_to_visible, self.context_to_hidden):
                nn.init.uniform_(linear.weight, -INITIAL_WEIGHT, INITIAL_WEIGHT)

    def forward(self, context: Tensor | None = None) -> EnergyDensity:
        """The density under a context `(*B, context_dim)`, None when `context_dim` is 0."""
        check_context(context, self.context_dim)
        return self._density(**self._contextual(context))

    def drive(
        self, v: Tensor, sample: bool, generator: torch.Generator | None = None
    ) -> LatentDrive:
        """What frames `v` `(*B, V)` give a scan over time to feed the latents back.

        Args:
            v: frames.
            sample: feed back draws of the latents instead of their expectation.
            generator: source of the draws.

        Raises:
            ValueError: it is not what the density expects of the latents (`layers.feedback`).
        """
        feedback.check(self)
        density = self._density(**self._contextual(None))
        projected = density.project(v)
        logits = density.hidden_logits(v, projected)
        uniforms = draws.uniform(logits.detach(), generator) if sample else None
        slabs = self._slabs(density, v, projected, sample, generator)
        return LatentDrive(logits, slabs, self.context_to_hidden.weight, uniforms)

    def _contextual(self, context: Tensor | None) -> dict[str, Tensor]:
        """The fields of the density that the context moves; None leaves its share out."""
        if context is None:
            return {"visible_bias": self.visible_bias, "hidden_bias": self.hidden_bias}
        with rounded_layers(context.device):
            to_visible = self.context_to_visible(context)
            to_hidden = self.context_to_hidden(context)
        return {
            "visible_bias": self.visible_bias + to_visible,
            "hidden_bias": self.hidden_bias + to_hidden,
        }

    @abstractmethod
    def _density(self, **contextual: Tensor) -> Any:
        """The density with these fields."""

    def _slabs(
        self,
        density: Any,
        v: Tensor,
        projected: Any,
        sample: bool,
        generator: torch.Generator | None,
    ) -> Tensor:
        """What an active spike feeds back, `(*B, H)`: one where there are no slabs."""
        return v.new_ones(()).expand(*v.shape[:-1], self.hidden_dim)
