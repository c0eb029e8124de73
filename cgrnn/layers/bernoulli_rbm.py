"""The restricted Boltzmann machine over binary frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from cgrnn.layers.conditional import ConditionalRBM
from cgrnn.layers.energy import BinaryEnergyDensity, EnergyDensity, Latents, bernoulli


class HiddenBernoulli(EnergyDensity):
    """What the RBMs without slabs share: binary hidden units, latents `(h,)`."""

    def hidden_logits(self, v: Tensor, projected: Any = None) -> Tensor:
        projected = self.project(v) if projected is None else projected
        return torch.add(self.hidden_bias, projected, alpha=self.beta)

    def energy(self, v: Tensor, *latents: Tensor) -> Tensor:
        (h,) = latents
        coupling = ((v @ self.W) * h).sum(-1)
        return self._visible_energy(v) - coupling - (h * self.hidden_bias).sum(-1)

    def sample_latents(
        self, v: Tensor, generator: torch.Generator | None = None, projected: Any = None
    ) -> Latents:
        return (bernoulli(torch.sigmoid(self.hidden_logits(v, projected)), generator),)

    def sample_collapsed(self, h: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw a frame given the hidden units: there are no slabs to integrate out."""
        return self.sample_visible((h,), generator)

    def mean_collapsed(self, h: Tensor) -> Tensor:
        """`E[v | h]`, `(*S, *B, V)`."""
        return self.mean_visible((h,))

    def activation(self, v: Tensor, projected: Any = None) -> Tensor:
        return torch.sigmoid(self.hidden_logits(v, projected))

    def _latent_input(self, latents: Latents) -> Tensor:
        return latents[0]


@dataclass(frozen=True, eq=False)
class BernoulliRBMDensity(HiddenBernoulli, BinaryEnergyDensity):
    """RBM with binary visible and hidden units; latents are `(h,)`.

    Formula:
        `E(v, h) = -vᵀW h - b̃_hᵀh - b̃_vᵀv`
        `F(v)    = -b̃_vᵀv - Σ_i softplus(w_iᵀv + b̃_hi)`

    Source: Smolensky 1986; Hinton, "A Practical Guide to Training RBMs", 2012.

    Example:
        >>> import torch
        >>> density = BernoulliRBMDensity(torch.ones(2, 1), torch.zeros(2), torch.zeros(1), 1.0)
        >>> density.free_energy(torch.tensor([1.0, 1.0]))  # -softplus(2)
        tensor(-2.1269)
    """

    compiled: ClassVar[bool] = True

    def hidden_log_mass(self, h: Tensor) -> Tensor:
        """`log Σ_v exp(-E(v, h)) = b̃_hᵀh + Σ_j softplus((W h)_j + b̃_vj)`, `(*S, *B)`."""
        return (h * self.hidden_bias).sum(-1) + softplus(self._from_latents((h,))).sum(-1)


class BernoulliRBM(ConditionalRBM):
    """RBM over a binary frame whose biases follow a context: the density of the RNN-RBM.

    Formula, shapes and source: `BernoulliRBMDensity`, `ConditionalRBM`.

    Example:
        >>> layer = BernoulliRBM(visible_dim=4, hidden_dim=3, context_dim=2)
        >>> density = layer(torch.zeros(5, 7, 2))
        >>> density.batch_shape, density.free_energy(torch.zeros(5, 7, 4)).shape
        (torch.Size([5, 7]), torch.Size([5, 7]))
    """

    def _density(self, **contextual: Tensor) -> BernoulliRBMDensity:
        return BernoulliRBMDensity(self.W, beta=1.0, **contextual)
