"""The restricted Boltzmann machine over binary frames."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cgrnn.layers.conditional import ConditionalRBM, LatentDrive
from cgrnn.layers.energy import BinaryEnergyDensity, Latents, bernoulli


@dataclass(frozen=True, eq=False)
class BernoulliRBMDensity(BinaryEnergyDensity):
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

    def hidden_logits(self, v: Tensor, projected: Tensor | None = None) -> Tensor:
        projected = self.project(v) if projected is None else projected
        return torch.add(self.hidden_bias, projected, alpha=self.beta)

    def energy(self, v: Tensor, *latents: Tensor) -> Tensor:
        (h,) = latents
        coupling = ((v @ self.W) * h).sum(-1)
        return -coupling - (v * self.visible_bias).sum(-1) - (h * self.hidden_bias).sum(-1)

    def sample_latents(
        self, v: Tensor, generator: torch.Generator | None = None, projected: Tensor | None = None
    ) -> Latents:
        return (bernoulli(torch.sigmoid(self.hidden_logits(v, projected)), generator),)

    def activation(self, v: Tensor, projected: Tensor | None = None) -> Tensor:
        return torch.sigmoid(self.hidden_logits(v, projected))

    def _drive(self, latents: Latents) -> Tensor:
        return latents[0]


class BernoulliRBM(ConditionalRBM):
    """RBM over a binary frame whose biases follow a context: the density of the RNN-RBM.

    Formula, shapes and source: `BernoulliRBMDensity`, `ConditionalRBM`.

    Example:
        >>> layer = BernoulliRBM(visible_dim=4, hidden_dim=3, context_dim=2)
        >>> density = layer(torch.zeros(5, 7, 2))
        >>> density.batch_shape, density.free_energy(torch.zeros(5, 7, 4)).shape
        (torch.Size([5, 7]), torch.Size([5, 7]))
    """

    def forward(self, context: Tensor | None = None) -> BernoulliRBMDensity:
        return BernoulliRBMDensity(self.W, *self.biases(context), 1.0)

    def drive(
        self, v: Tensor, sample: bool, generator: torch.Generator | None = None
    ) -> LatentDrive:
        logits = v @ self.W + self.hidden_bias
        uniforms = torch.empty_like(logits).uniform_(generator=generator) if sample else None
        ones = logits.new_ones(()).expand_as(logits)
        return LatentDrive(logits, ones, self.context_to_hidden.weight, uniforms)
