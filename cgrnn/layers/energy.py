"""The contract that every unnormalised frame density keeps.

An energy density is `p(v) = exp(-F(v)) / Z` over one frame `v`, known up to its partition function
`Z`. It is a plain object of natural parameters with a batch shape `(*B,)`: one density for each
frame of each sequence, all with the same couplings `W` and with biases of their own. Frames may
carry further leading (sample) dimensions `(*S, *B, V)`.

Samplers and estimators are written once against this contract and know nothing else of a density.

Annealing. `density.annealed(beta)` is the same density with `W` multiplied by `beta`; at
`beta = 0` the visible units are independent, so that it is sampled and normalised in closed form.
`project(v)` holds the products of the frame with the couplings *before* annealing: they are the
same at every `beta`, so that one product serves the weight of annealed importance sampling and the
move after it.

Classes with an attribute `compiled` of their own are known to the compiled kernel of
`samplers.fused`, which makes their chains on a CPU; all others are sampled by these methods.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from cgrnn.layers.temperature import Tempered

Latents = tuple[Tensor, ...]

_FACTORS = 100  # 2⁻¹⁰⁰ is still a normal float32


def bernoulli(probability: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw zeros and ones of the dtype and the shape of `probability`."""
    draw = torch.empty_like(probability, requires_grad=False).uniform_(generator=generator)
    return torch.lt(draw, probability.detach(), out=draw)


def softplus_sum(logits: Tensor) -> Tensor:
    """`Σ_i log(1 + exp(a_i))` over the last dimension.

    Where no gradient is wanted it is `Σ max(a_i, 0) - log Π σ(|a_i|)`: a logarithm for a hundred
    factors, none of them below a half, in place of two functions for each. Annealing spends most of
    its time here.
    """
    if torch.is_grad_enabled():
        return softplus(logits).sum(-1)
    total = logits.relu().sum(-1)
    for factors in torch.sigmoid(logits.abs()).split(_FACTORS, -1):
        total -= factors.prod(-1).log_()
    return total


@dataclass(frozen=True, eq=False)
class EnergyDensity(Tempered):
    """Unnormalised density over a frame of `V` units with `H` hidden units.

    Args:
        weight: couplings before annealing, `(V, H)`.
        visible_bias: b̃_v, `(*B, V)`.
        hidden_bias: b̃_h, `(*B, H)`.
        beta: inverse temperature of the annealing path, 1 for the density itself.
    """

    weight: Tensor
    visible_bias: Tensor
    hidden_bias: Tensor
    beta: float

    # What a frame is: "binary", every state of {0, 1}^V, or "continuous", R^V; given the latents,
    # and at beta = 0, units are independent, and Gaussian if continuous. None says nothing: such a
    # density is estimated by annealing alone, which asks nowhere over what to sum.
    frames: ClassVar[str | None] = None
    # The fields that the context moves, which have the batch shape.
    contextual: ClassVar[tuple[str, ...]] = ("visible_bias", "hidden_bias")
    # The fields that all frames share and that the energy is linear in.
    shared: ClassVar[tuple[str, ...]] = ("weight",)

    @property
    def W(self) -> Tensor:
        """Couplings in force, `beta` times the weight, `(V, H)`."""
        return self.weight * self.beta

    @property
    def batch_shape(self) -> torch.Size:
        return self.visible_bias.shape[:-1]

    @property
    def visible_dim(self) -> int:
        return self.weight.shape[0]

    @property
    def hidden_dim(self) -> int:
        return self.weight.shape[1]

    def project(self, v: Tensor) -> Any:
        """Products of the frame with the couplings before annealing: `v W`, `(*S, *B, H)`."""
        return v @ self.weight

    def annealed(self, beta: float) -> Any:
        """The density with `W` times `beta`, of the same class; the biases stay as they are."""
        return self._scaled(*self.path_factors("annealed", beta))

    def tempered(self, beta: float) -> Any:
        """The density with `W` and b̃_v, all that tells frames apart, `beta` times as large.

        At `beta = 0` the frame's units are fair coins, or centred on 0. A path along it meets every
        mode in the order of its mass, where one along `annealed` follows the biases.
        """
        return self._scaled(*self.path_factors("tempered", beta))

    @staticmethod
    def path_factors(path: str, beta: float) -> tuple[float, float, float]:
        """By how much `W`, the mean of the slabs (if any) and b̃_v are multiplied at `beta` of a
        path, "annealed" or "tempered"."""
        return (beta, 1.0, 1.0) if path == "annealed" else (beta, 1.0, beta)

    def _scaled(self, couplings: float, slabs: float, biases: float) -> Any:
        return replace(self, beta=self.beta * couplings, visible_bias=self.visible_bias * biases)

    def _at_temperature(self, temperature: float) -> Any:
        """`exp(-E(v, latents)/T) / Z_T`: the parameters that the energy is linear in, over T."""
        fields = (*self.contextual, *self.shared)
        return replace(self, **{name: getattr(self, name) / temperature for name in fields})

    def flatten(self) -> Any:
        """The same densities with one batch dimension, `B = (batch_shape.numel(),)`."""
        return self._map(lambda field: field.reshape(-1, field.shape[-1]))

    def __getitem__(self, index: Any) -> Any:
        """Select densities of the batch, as a tensor of the batch shape would be indexed."""
        return self._map(lambda field: field[index])

    def _map(self, function: Any) -> Any:
        fields = {name: getattr(self, name) for name in self.contextual}
        for name, field in fields.items():
            if field.shape[:-1] != self.batch_shape or not field.dim():
                raise ValueError(
                    f"{type(self).__name__}.{name}: a field that the context moves is a vector, of "
                    f"shape (*B, n) with B = {tuple(self.batch_shape)}, got {tuple(field.shape)}; "
                    "leave it out of `contextual`, or flatten it to a vector"
                )
        return replace(self, **{name: function(field) for name, field in fields.items()})

    def free_energy(self, v: Tensor, projected: Any = None) -> Tensor:
        """`F(v) = -log Σ_latents exp(-E(v, latents))`, `(*S, *B)`."""
        hidden = softplus_sum(self.hidden_logits(v, projected))
        return self._visible_energy(v) - hidden - self._log_slab_volume()

    def gibbs_step(
        self, v: Tensor, generator: torch.Generator | None = None, projected: Any = None
    ) -> Tensor:
        """One sweep of block Gibbs sampling: latents given `v`, then a frame given the latents."""
        latents = self.sample_latents(v, generator, projected)
        return self.sample_visible(latents, generator)

    @abstractmethod
    def energy(self, v: Tensor, *latents: Tensor) -> Tensor:
        """`E(v, latents)`, `(*S, *B)`."""

    @abstractmethod
    def hidden_logits(self, v: Tensor, projected: Any = None) -> Tensor:
        """Logit of `p(h_i = 1 | v)`, `(*S, *B, H)`."""

    @abstractmethod
    def sample_latents(
        self, v: Tensor, generator: torch.Generator | None = None, projected: Any = None
    ) -> Latents:
        """Draw the latents from their exact conditional given `v`."""

    @abstractmethod
    def mean_visible(self, latents: Latents) -> Tensor:
        """`E[v | latents]`, `(*S, *B, V)`."""

    @abstractmethod
    def sample_visible(self, latents: Latents, generator: torch.Generator | None = None) -> Tensor:
        """Draw a frame from its exact conditional given the latents."""

    @abstractmethod
    def activation(self, v: Tensor, projected: Any = None) -> Tensor:
        """Expected feature given the frame, `E[h|v]` or `E[h⊙s|v]`, `(*S, *B, H)`."""

    @abstractmethod
    def base_log_partition(self) -> Tensor:
        """`log Z` at `beta = 0`, in closed form, `(*B,)`."""

    @abstractmethod
    def sample_base(
        self, shape: tuple[int, ...], generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw frames at `beta = 0`, `(*shape, *B, V)`."""

    @abstractmethod
    def sample_noise(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw frames that owe nothing to the data nor to the couplings, `(*B, V)`."""

    @abstractmethod
    def _visible_energy(self, v: Tensor) -> Tensor:
        """What of `F` does not pass through the hidden units, `(*S, *B)`."""

    @abstractmethod
    def _latent_input(self, latents: Latents) -> Tensor:
        """What the latents send through `W` to the frame, `h` or `h⊙s`, `(*S, *B, H)`."""

    def _log_slab_volume(self) -> Tensor | float:
        """`½ Σ log(2π/α)` where there are slabs; none in general."""
        return 0.0

    def _from_latents(self, latents: Latents) -> Tensor:
        """What the frame receives, `W` times the latents' input plus b̃_v, `(*S, *B, V)`."""
        latent_input = self._latent_input(latents)
        scaled = latent_input if self.beta == 1.0 else latent_input * self.beta
        return scaled @ self.weight.T + self.visible_bias


class BinaryEnergyDensity(EnergyDensity):
    """What the densities over binary frames share: `v_j` given the latents is Bernoulli."""

    frames: ClassVar[str | None] = "binary"

    def mean_visible(self, latents: Latents) -> Tensor:
        return torch.sigmoid(self._from_latents(latents))

    def sample_visible(self, latents: Latents, generator: torch.Generator | None = None) -> Tensor:
        return bernoulli(self.mean_visible(latents), generator)

    def base_log_partition(self) -> Tensor:
        independent = softplus(self.visible_bias).sum(-1) + softplus(self.hidden_bias).sum(-1)
        return independent + self._log_slab_volume()

    def sample_base(
        self, shape: tuple[int, ...], generator: torch.Generator | None = None
    ) -> Tensor:
        probability = torch.sigmoid(self.visible_bias)
        return bernoulli(probability.expand(*shape, *probability.shape), generator)

    def sample_noise(self, generator: torch.Generator | None = None) -> Tensor:
        """Frames of any fullness: each with a share of units on that is drawn uniformly."""
        batch, visible = self.visible_bias.shape[:-1], self.visible_bias.shape[-1]
        draws = self.visible_bias.new_empty(*batch, 1 + visible).uniform_(generator=generator)
        return (draws[..., 1:] < draws[..., :1]).to(draws.dtype)

    def _visible_energy(self, v: Tensor) -> Tensor:
        return -(v * self.visible_bias).sum(-1)
