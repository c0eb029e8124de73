"""The spike-and-slab restricted Boltzmann machine over continuous frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from cgrnn.layers.energy import Latents
from cgrnn.layers.gaussian_rbm import LOG_2_PI, GaussianEnergyDensity, GaussianLayer
from cgrnn.layers.spike_slab import SpikeSlabDensity, SpikeSlabLayer

CONSTRUCTIONS = ("by spike", "spectral")
SPECTRAL_NORM = 0.95


@dataclass(frozen=True, eq=False)
class GaussianSpikeSlabRBMDensity(SpikeSlabDensity, GaussianEnergyDensity):
    """Spike-and-slab RBM over a continuous frame; latents are `(h, s)`, spikes and slabs.

    Formula:
        `E(v, h, s) = ½ sᵀdiag(α)s - vᵀW(s⊙h) + ½ vᵀdiag(Λ̃ + Φᵀh)v - b̃_hᵀh - b̃_vᵀv
                      + ½ (α⊙μ²)ᵀh - sᵀ(α⊙μ⊙h)`
        `F(v) = ½ vᵀdiag(Λ̃)v - b̃_vᵀv - ½ Σ log(2π/α_i)
                - Σ softplus((w_iᵀv)²/(2α_i) + μ_i w_iᵀv - ½ vᵀdiag(Φ_i)v + b̃_hi)`
        `v | s, h ~ N(C (W(s⊙h) + b̃_v), C)`,  `C = diag(Λ̃ + Φᵀh)⁻¹`
        `v | h    ~ N(C_h (W(μ⊙h) + b̃_v), C_h)`,  `C_h⁻¹ = precision(h)`

    The density exists when `precision(h)` is positive definite for every `h`. This class does not
    check it: `GaussianSpikeSlabRBM` makes only such parameters.

    Symbols of the paper: `W` couplings, `alpha` α slab precision, `mu` μ slab mean, `phi` Φ,
    `precision_diag` Λ̃, `visible_bias` b̃_v, `hidden_bias` b̃_h.

    Source: Courville, Bergstra & Bengio 2011 (μ-ssRBM); Liu, Xie & Wang, "Energy-Based Recurrent
    Model for Stochastic Modeling of Music". Departures: those of `BinarySpikeSlabRBMDensity`; and
    the paper fixes `Φ = 0` with free couplings, for which `Z` is infinite in general.

    Args:
        damping: Φ before annealing, `(H, V)`.
    """

    compiled: ClassVar[bool] = True

    damping: Tensor

    shared: ClassVar[tuple[str, ...]] = (*SpikeSlabDensity.shared, "damping")

    @property
    def phi(self) -> Tensor:
        """Φ in force, `beta²` times the damping, `(H, V)`: what annealing leaves positive."""
        return self.damping * self.beta**2

    def project(self, v: Tensor) -> tuple[Tensor, Tensor]:
        linear, quadratic = super().project(v)
        return linear, quadratic - 0.5 * (v**2 @ self.damping.T)

    def energy(self, v: Tensor, *latents: Tensor) -> Tensor:
        damped = 0.5 * ((v**2 @ self.phi.T) * latents[0]).sum(-1)
        return super().energy(v, *latents) + damped

    def visible_precision(self, latents: Latents) -> Tensor:
        return self.precision_diag + latents[0] @ self.phi

    def precision(self, h: Tensor) -> Tensor:
        """`C_h⁻¹ = diag(Λ̃ + Φᵀh) - W diag(h/α) Wᵀ`, `(*S, *B, V, V)` float64.

        It is in double precision because the two terms nearly cancel where couplings are large.
        """
        h, W = h.double(), self.W.double()
        diagonal = self.precision_diag.double() + h @ self.phi.double()
        return torch.diag_embed(diagonal) - (W * (h / self.alpha)[..., None, :]) @ W.T

    def hidden_log_mass(self, h: Tensor) -> Tensor:
        """`log ∫∫ exp(-E(v, h, s)) ds dv`, `(*S, *B)` float64."""
        factor, half = self._factor(h)
        gaussian = 0.5 * (half**2 + LOG_2_PI).sum(-1)
        log_determinant = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        biases = (h * self.hidden_bias).sum(-1) + self._log_slab_volume()
        return biases + gaussian - log_determinant

    def mean_collapsed(self, h: Tensor) -> Tensor:
        """`E[v | h]`, the slabs integrated out, `(*S, *B, V)`."""
        factor, half = self._factor(h)
        mean = torch.linalg.solve_triangular(factor.mT, half[..., None], upper=True)
        return mean[..., 0].to(self.weight.dtype)

    def sample_collapsed(self, h: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw a frame given the spikes alone, the slabs integrated out, `(*S, *B, V)`."""
        factor, half = self._factor(h)
        noise = torch.empty_like(half).normal_(generator=generator)
        v = torch.linalg.solve_triangular(factor.mT, (half + noise)[..., None], upper=True)
        return v[..., 0].to(self.weight.dtype)

    def collapsed_step(
        self, v: Tensor, generator: torch.Generator | None = None, projected: Any = None
    ) -> Tensor:
        """One sweep `h | v`, `v | h` with the slabs integrated out: it mixes faster than
        `gibbs_step` and costs a Cholesky factor of `V³/3` for every frame."""
        return self.sample_collapsed(self.sample_spikes(v, generator, projected), generator)

    def _factor(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """`L` with `L Lᵀ = precision(h)`, and `L⁻¹ (W(μ⊙h) + b̃_v)`."""
        factor = torch.linalg.cholesky(self.precision(h))
        mean = self._from_latents((h, self.mu)).double()
        half = torch.linalg.solve_triangular(factor, mean[..., None], upper=False)
        return factor, half[..., 0]


class GaussianSpikeSlabRBM(GaussianLayer, SpikeSlabLayer):
    """Spike-and-slab RBM over a continuous frame whose biases and precisions follow a context.

    It exists for any value of its parameters, in either of two ways:

    * "by spike": `Φ_ij = |w_ji| ‖w_i‖₁/α_i + softplus(ρ_ij)`. `diag(Φ_i)` then exceeds
      `w_i w_iᵀ/α_i`, every spike narrows the density, and `precision(h) ⪰ diag(Λ̃)`.
    * "spectral": `Φ = 0`, `W = Λ^½ Ŵ α^½` with `‖Ŵ‖₂ ≤ ρ = 0.95`. Active spikes widen the density
      along `w_i`, and `precision(h) ⪰ (1-ρ²) diag(Λ)`. `layer.W` then holds Ŵ before it is
      scaled to that norm.

    Formula, symbol map and source: `GaussianSpikeSlabRBMDensity`, `GaussianLayer`.

    Args:
        visible_dim: V, units of a frame.
        hidden_dim: H, spike-and-slab units.
        context_dim: size of the context, 0 for an unconditional density.
        construction: "by spike" or "spectral".

    Example:
        >>> layer = GaussianSpikeSlabRBM(visible_dim=4, hidden_dim=3, construction="spectral")
        >>> torch.linalg.eigvalsh(layer(None).precision(torch.ones(3))).min() > 0
        tensor(True)
    """

    def __init__(
        self,
        visible_dim: int,
        hidden_dim: int,
        context_dim: int = 0,
        construction: str = "by spike",
    ) -> None:
        if construction not in CONSTRUCTIONS:
            raise ValueError(
                f"construction: expected one of {', '.join(CONSTRUCTIONS)}, got {construction!r}"
            )
        super().__init__(visible_dim, hidden_dim, context_dim)
        self.construction = construction
        if construction == "by spike":
            self.raw_slack = nn.Parameter(torch.full((hidden_dim, visible_dim), -5.0))

    def _density(self, **contextual: Tensor) -> Any:
        alpha = self.log_alpha.exp()
        couplings = self._by_spike if self.construction == "by spike" else self._spectral
        weight, damping = couplings(alpha)
        return GaussianSpikeSlabRBMDensity(
            weight, beta=1.0, alpha=alpha, mu=self.mu, damping=damping, **contextual
        )

    def _by_spike(self, alpha: Tensor) -> tuple[Tensor, Tensor]:
        size = self.W.abs()
        # Rounding must not tip the balance of the two terms. It is at most V units in the last
        # place for the sum and one for each of the other operations here and in annealing.
        rounding = (self.visible_dim + 8) * torch.finfo(size.dtype).eps
        dominance = (size * size.sum(0) / alpha).T * (1 + rounding)
        return self.W, dominance + softplus(self.raw_slack)

    def _spectral(self, alpha: Tensor) -> tuple[Tensor, Tensor]:
        norm = torch.linalg.matrix_norm(self.W, 2)
        scaled = self.W * (SPECTRAL_NORM / norm.clamp(min=SPECTRAL_NORM))
        weight = (0.5 * self.log_precision).exp()[:, None] * scaled * alpha.sqrt()
        return weight, weight.new_zeros(self.hidden_dim, self.visible_dim)
