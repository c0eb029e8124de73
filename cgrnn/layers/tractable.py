"""Frame densities whose normalising constant is known."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from cgrnn.layers.energy import bernoulli


class IndependentBernoulliDensity:
    """Units independent given the context: `log p(v) = Σ_j v_j log σ(l_j) + (1-v_j) log σ(-l_j)`.

    Args:
        logits: l, `(*B, V)`.
    """

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    @property
    def batch_shape(self) -> torch.Size:
        return self.logits.shape[:-1]

    @property
    def mean(self) -> Tensor:
        """`E[v]`, `(*B, V)`."""
        return torch.sigmoid(self.logits)

    def log_prob(self, v: Tensor) -> Tensor:
        """Exact log-probability in nats of frames `(*S, *B, V)`, `(*S, *B)`."""
        logits = self.logits.expand_as(v)
        return -binary_cross_entropy_with_logits(logits, v, reduction="none").sum(-1)

    def sample(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        """Draw frames, `(*shape, *B, V)`."""
        return bernoulli(self.mean.expand(*shape, *self.mean.shape), generator)


class IndependentBernoulli(nn.Module):
    """Head of the plain RNN: independent Bernoulli units, their logits affine in the context.

    Example:
        >>> density = IndependentBernoulli(visible_dim=3, context_dim=2)(torch.zeros(5, 2))
        >>> density.log_prob(torch.ones(5, 3))[0]  # three fair coins
        tensor(-2.0794, grad_fn=<SelectBackward0>)
    """

    def __init__(self, visible_dim: int, context_dim: int = 0) -> None:
        super().__init__()
        self.visible_dim, self.context_dim = visible_dim, context_dim
        self.visible_bias = nn.Parameter(torch.zeros(visible_dim))
        if context_dim:
            self.context_to_visible = nn.Linear(context_dim, visible_dim, bias=False)

    def forward(self, context: Tensor | None = None) -> IndependentBernoulliDensity:
        if context is None:
            return IndependentBernoulliDensity(self.visible_bias)
        return IndependentBernoulliDensity(self.visible_bias + self.context_to_visible(context))
