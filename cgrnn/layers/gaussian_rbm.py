"""Continuous frames with independent Gaussian units given the latents, and their RBM."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from cgrnn.layers.bernoulli_rbm import HiddenBernoulli
from cgrnn.layers.conditional import INITIAL_WEIGHT, ConditionalRBM
from cgrnn.layers.energy import EnergyDensity, Latents

LOG_2_PI = math.log(2 * math.pi)


@dataclass(frozen=True, eq=False)
class GaussianEnergyDensity(EnergyDensity):
    """What the densities over continuous frames share: `v_j` given the latents is Gaussian.

    Args:
        precision_diag: Λ̃, precision of the units before the hidden ones act, `(*B, V)`.
    """

    precision_diag: Tensor

    frames: ClassVar[str | None] = "continuous"
    contextual: ClassVar[tuple[str, ...]] = (*EnergyDensity.contextual, "precision_diag")

    def visible_precision(self, latents: Latents) -> Tensor:
        """Precision of every unit given the latents, `(*S, *B, V)`."""
        return self.precision_diag

    def mean_visible(self, latents: Latents) -> Tensor:
        return self._from_latents(latents) / self.visible_precision(latents)

    def sample_visible(self, latents: Latents, generator: torch.Generator | None = None) -> Tensor:
        precision = self.visible_precision(latents)
        mean = self._from_latents(latents) / precision
        noise = torch.empty_like(mean).normal_(generator=generator)
        return torch.addcmul(mean, noise, precision.rsqrt())

    def base_log_partition(self) -> Tensor:
        gaussian = self.visible_bias**2 / self.precision_diag + LOG_2_PI - self.precision_diag.log()
        hidden = softplus(self.hidden_bias).sum(-1)
        return 0.5 * gaussian.sum(-1) + hidden + self._log_slab_volume()

    def sample_base(
        self, shape: tuple[int, ...], generator: torch.Generator | None = None
    ) -> Tensor:
        mean = self.visible_bias / self.precision_diag
        noise = mean.new_empty((*shape, *mean.shape)).normal_(generator=generator)
        return torch.addcmul(mean, noise, self.precision_diag.rsqrt())

    def sample_noise(self, generator: torch.Generator | None = None) -> Tensor:
        return self.sample_base((), generator)

    def _visible_energy(self, v: Tensor) -> Tensor:
        return (v * (0.5 * v * self.precision_diag - self.visible_bias)).sum(-1)


@dataclass(frozen=True, eq=False)
class GaussianRBMDensity(HiddenBernoulli, GaussianEnergyDensity):
    """RBM with Gaussian visible and binary hidden units; latents are `(h,)`.

    Formula:
        `E(v, h) = ½ vᵀdiag(Λ̃)v - vᵀW h - b̃_hᵀh - b̃_vᵀv`
        `F(v)    = ½ vᵀdiag(Λ̃)v - b̃_vᵀv - Σ_i softplus(w_iᵀv + b̃_hi)`
        `v | h ~ N(diag(Λ̃)⁻¹ (W h + b̃_v), diag(Λ̃)⁻¹)`: a mixture of `2^H` Gaussians.

    Source: Welling, Rosen-Zvi & Hinton, NIPS 2004, with precisions in place of unit variances.

    Example:
        >>> one = torch.ones(1)
        >>> density = GaussianRBMDensity(one[:, None], 0 * one, 0 * one, 1.0, one)
        >>> density.free_energy(2 * one)  # 2²/2 - softplus(2)
        tensor(-0.1269)
    """

    compiled: ClassVar[bool] = True

    def hidden_log_mass(self, h: Tensor) -> Tensor:
        """`log ∫ exp(-E(v, h)) dv`, `(*S, *B)`."""
        squares = self._from_latents((h,)) ** 2 / self.precision_diag
        gaussian = 0.5 * (squares + LOG_2_PI - self.precision_diag.log()).sum(-1)
        return (h * self.hidden_bias).sum(-1) + gaussian


class GaussianLayer(ConditionalRBM):
    """What the layers over continuous frames share: unit precisions that the context raises.

    `Λ̃ = Λ + softplus(U₁ u)` with `Λ = exp(log_precision)`: positive whatever the parameters. It
    begins at 1, for frames standardised to unit variance.
    """

    def __init__(self, visible_dim: int, hidden_dim: int, context_dim: int = 0) -> None:
        super().__init__(visible_dim, hidden_dim, context_dim)
        start = 1.0 - math.log(2.0) if context_dim else 1.0
        self.log_precision = nn.Parameter(torch.full((visible_dim,), math.log(start)))
        if context_dim:
            self.context_to_precision = nn.Linear(context_dim, visible_dim, bias=False)
            nn.init.uniform_(self.context_to_precision.weight, -INITIAL_WEIGHT, INITIAL_WEIGHT)

    def _contextual(self, context: Tensor | None) -> dict[str, Tensor]:
        precision = self.log_precision.exp()
        if context is not None:
            precision = precision + softplus(self.context_to_precision(context))
        return {**super()._contextual(context), "precision_diag": precision}


class GaussianRBM(GaussianLayer):
    """RBM over a continuous frame whose biases and precisions follow a context.

    Formula, shapes and source: `GaussianRBMDensity`, `GaussianLayer`, `ConditionalRBM`.

    Example:
        >>> layer = GaussianRBM(visible_dim=4, hidden_dim=3, context_dim=2)
        >>> density = layer(torch.zeros(5, 7, 2))
        >>> density.batch_shape, density.free_energy(torch.zeros(5, 7, 4)).shape
        (torch.Size([5, 7]), torch.Size([5, 7]))
    """

    def _density(self, **contextual: Tensor) -> Any:
        return GaussianRBMDensity(self.W, beta=1.0, **contextual)
