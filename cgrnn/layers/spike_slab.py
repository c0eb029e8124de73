"""Spikes and slabs, and the spike-and-slab restricted Boltzmann machine over binary frames."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cgrnn import draws
from cgrnn.layers import softplus
from cgrnn.layers.conditional import ConditionalRBM
from cgrnn.layers.energy import BinaryEnergyDensity, EnergyDensity, Latents, bernoulli


@dataclass(frozen=True, eq=False)
class SpikeSlabDensity(EnergyDensity):
    """What the spike-and-slab RBMs share: latents `(h, s)`, spikes and slabs.

    Formula:
        `h_i | v ~ Bernoulli σ(hidden_logits_i)`
        `s_i | v, h ~ N(h_i (w_iᵀv/α_i + μ_i), 1/α_i)`
        `E[h⊙s | v] = σ(hidden_logits) ⊙ (Wᵀv/α + μ)`
    """

    alpha: Tensor
    mu: Tensor

    shared: ClassVar[tuple[str, ...]] = (*EnergyDensity.shared, "alpha")

    @staticmethod
    def path_factors(path: str, beta: float) -> tuple[float, float, float]:
        if path == "annealed":
            return EnergyDensity.path_factors(path, beta)
        # The energy holds W twice once the slabs are summed out, so that its root is what scales.
        root = math.sqrt(beta)
        return root, root, beta

    def _scaled(self, couplings: float, slabs: float, biases: float) -> Any:
        scaled = super()._scaled(couplings, slabs, biases)
        return replace(scaled, mu=self.mu * slabs)

    def project(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """`w_iᵀv` and `(w_iᵀv)²/(2α_i)` before annealing: the logits are affine in the two."""
        linear = v @ self.weight
        return linear, linear * linear * (0.5 / self.alpha)

    def hidden_logits(self, v: Tensor, projected: Any = None) -> Tensor:
        linear, quadratic = self.project(v) if projected is None else projected
        constant = torch.add(self.hidden_bias, quadratic, alpha=self.beta**2)
        return torch.addcmul(constant, linear, self.mu * self.beta)

    def slab_mean(self, v: Tensor, projected: Any = None) -> Tensor:
        """`E[s_i | v, h_i = 1] = w_iᵀv/α_i + μ_i`, `(*S, *B, H)`."""
        linear, _ = self.project(v) if projected is None else projected
        return torch.addcmul(self.mu, linear, self.beta / self.alpha)

    def energy(self, v: Tensor, *latents: Tensor) -> Tensor:
        h, s = latents
        slab = 0.5 * self.alpha * (s**2 + self.mu**2 * h) - self.alpha * self.mu * h * s
        coupling = (v @ self.W) * s * h
        hidden = (slab - coupling).sum(-1) - (h * self.hidden_bias).sum(-1)
        return self._visible_energy(v) + hidden

    def sample_latents(
        self, v: Tensor, generator: torch.Generator | None = None, projected: Any = None
    ) -> Latents:
        projected = self.project(v) if projected is None else projected
        h = self.sample_spikes(v, generator, projected)
        noise = torch.empty_like(h).normal_(generator=generator)
        return h, torch.addcmul(h * self.slab_mean(v, projected), noise, self.alpha.rsqrt())

    def sample_spikes(
        self, v: Tensor, generator: torch.Generator | None = None, projected: Any = None
    ) -> Tensor:
        """Draw `h` given `v`, the slabs integrated out."""
        return bernoulli(torch.sigmoid(self.hidden_logits(v, projected)), generator)

    def activation(self, v: Tensor, projected: Any = None) -> Tensor:
        """`E[h⊙s | v]`, the sparse feature that is fed back and plotted, `(*S, *B, H)`."""
        projected = self.project(v) if projected is None else projected
        return torch.sigmoid(self.hidden_logits(v, projected)) * self.slab_mean(v, projected)

    def _latent_input(self, latents: Latents) -> Tensor:
        h, s = latents
        return h * s

    def _log_slab_volume(self) -> Tensor:
        return 0.5 * (math.log(2 * math.pi) - self.alpha.log()).sum(-1)


class SpikeSlabLayer(ConditionalRBM):
    """What the layers of spike-and-slab RBMs share: slab precision and mean.

    `α = exp(log_alpha)` keeps the slab precision positive whatever the parameters.
    """

    def __init__(self, visible_dim: int, hidden_dim: int, context_dim: int = 0) -> None:
        super().__init__(visible_dim, hidden_dim, context_dim)
        self.log_alpha = nn.Parameter(torch.zeros(hidden_dim))
        self.mu = nn.Parameter(torch.ones(hidden_dim))

    def _slabs(
        self,
        density: Any,
        v: Tensor,
        projected: Any,
        sample: bool,
        generator: torch.Generator | None,
    ) -> Tensor:
        mean: Tensor = density.slab_mean(v, projected)
        if not sample:
            return mean
        return torch.addcmul(mean, draws.normal(mean.detach(), generator), density.alpha.rsqrt())


@dataclass(frozen=True, eq=False)
class BinarySpikeSlabRBMDensity(SpikeSlabDensity, BinaryEnergyDensity):
    """Spike-and-slab RBM over a binary frame; latents are `(h, s)`, spikes and slabs.

    Formula:
        `E(v, h, s) = ½ sᵀdiag(α)s - vᵀW(s⊙h) - b̃_hᵀh - b̃_vᵀv + ½ (α⊙μ²)ᵀh - sᵀ(α⊙μ⊙h)`
        `F(v) = -b̃_vᵀv - ½ Σ log(2π/α_i) - Σ softplus(μ_i w_iᵀv + (w_iᵀv)²/(2α_i) + b̃_hi)`
        `h_i | v ~ Bernoulli σ(the softplus' argument)`
        `s_i | v, h ~ N(h_i (w_iᵀv/α_i + μ_i), 1/α_i)`
        `v_j | s, h ~ Bernoulli σ((W(s⊙h))_j + b̃_vj)`

    Symbols of the paper: `W` couplings, `alpha` α slab precision, `mu` μ slab mean,
    `visible_bias` b̃_v, `hidden_bias` b̃_h.

    Source: Liu, Xie & Wang, "Energy-Based Recurrent Model for Stochastic Modeling of Music",
    §4.2. Departures: the paper's Eq. 3 prints `exp(E)` for `exp(-E)` and drops the ½ of the `αμ²`
    term, with which alone the printed free energy follows; the published code draws slabs with
    variance `α` where the conditional has `1/α`.
    """

    compiled: ClassVar[bool] = True

    def free_energy(self, v: Tensor, projected: Any = None) -> Tensor:
        if projected is None and torch.is_grad_enabled():
            linear = v @ self.weight
            if softplus.usable(linear, self.hidden_bias):
                slope, curvature = self.mu * self.beta, 0.5 * self.beta**2 / self.alpha
                hidden = softplus.quadratic_sum(linear, self.hidden_bias, slope, curvature)
                return self._visible_energy(v) - hidden - self._log_slab_volume()
        return super().free_energy(v, projected)


class BinarySpikeSlabRBM(SpikeSlabLayer):
    """Spike-and-slab RBM over a binary frame whose biases follow a context: CGRNN's C-ssRBM.

    Formula, symbol map and source: `BinarySpikeSlabRBMDensity`, `ConditionalRBM`.

    Example:
        >>> density = BinarySpikeSlabRBM(visible_dim=4, hidden_dim=3)(None)
        >>> density.activation(torch.ones(4)).shape, bool((density.alpha > 0).all())
        (torch.Size([3]), True)
    """

    def _density(self, **contextual: Tensor) -> BinarySpikeSlabRBMDensity:
        return BinarySpikeSlabRBMDensity(
            self.W, beta=1.0, alpha=self.log_alpha.exp(), mu=self.mu, **contextual
        )
