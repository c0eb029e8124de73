"""Frame densities whose normalising constant is known."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from cgrnn.layers.energy import bernoulli
from cgrnn.layers.temperature import Tempered

MIN_DEVIATION = 1e-4
"""Least standard deviation of a Gaussian, in units of the frame.

Without one the likelihood has no maximum: a component that narrows on one frame, or a unit that is
constant in the data, earns any number of nats. This bounds it by 8.3 nats a unit, and is no coarser
than the steps of 16-bit audio scaled to unit deviation.
"""


def check_sizes(context_dim: int, **sizes: int) -> None:
    """Refuse a negative `context_dim` and any other size below one.

    Raises:
        ValueError: it names the parameter.
    """
    if context_dim < 0:
        raise ValueError(f"context_dim: expected at least 0, got {context_dim}")
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}: expected at least 1, got {size}")


def check_context(context: Tensor | None, context_dim: int) -> None:
    """Refuse a context that does not fit a layer's `context_dim`.

    Raises:
        ValueError: for a context where there should be none, for none where there should be one,
            and for one of another size.
    """
    if (context is None) != (context_dim == 0):
        raise ValueError(
            f"context: this layer has context_dim {context_dim}; "
            + ("call it with None" if context is not None else "give a context")
        )
    if context is not None and context.shape[-1:] != (context_dim,):
        raise ValueError(
            f"context: this layer has context_dim {context_dim}, "
            f"got a context of shape {tuple(context.shape)}"
        )


def context_weight(context_dim: int, size: int) -> nn.Linear | None:
    """The context's way to a parameter of `size` numbers; None where there is no context."""
    return nn.Linear(context_dim, size, bias=False) if context_dim else None


def shifted(bias: Tensor, weight: nn.Linear | None, context: Tensor | None) -> Tensor:
    """`bias + U u` for a context `u` `(*B, context_dim)`, `(*B, *bias.shape)`."""
    if weight is None or context is None:
        return bias
    return bias + weight(context).unflatten(-1, bias.shape)


def bounded_log_deviation(raw: Tensor) -> Tensor:
    """`log σ` with `σ = MIN_DEVIATION + exp(raw)`."""
    return torch.logaddexp(raw, raw.new_full((), math.log(MIN_DEVIATION)))


def gaussian_log_prob(v: Tensor, mean: Tensor, log_deviation: Tensor) -> Tensor:
    """`log N(v; mean, σ²)` in nats, elementwise."""
    standardised = (v - mean) * (-log_deviation).exp()
    return -0.5 * standardised.square() - log_deviation - 0.5 * math.log(2 * math.pi)


def gaussian(
    mean: Tensor, log_deviation: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Draw from `N(mean, σ²)`, elementwise."""
    noise = torch.empty_like(mean).normal_(generator=generator)
    return mean + log_deviation.exp() * noise


def categorical(logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw indices with probability `softmax(logits)`, `(*B, K)` to `(*B,)`.

    The largest of the logits, each with Gumbel noise of its own, is such a draw.
    """
    exponential = torch.empty_like(logits).exponential_(generator=generator)
    return (logits - exponential.log()).argmax(-1)


class TractableDensity(Tempered):
    """Normalised density over a frame of `V` units: a plain object with a batch shape `(*B,)`.

    Frames may carry further leading (sample) dimensions, `(*S, *B, V)`. A density whose mean has a
    closed form gives it as `mean`, `(*B, V)`.
    """

    @property
    @abstractmethod
    def batch_shape(self) -> torch.Size:
        """`(*B,)`."""

    @property
    @abstractmethod
    def visible_dim(self) -> int:
        """V."""

    @abstractmethod
    def log_prob(self, v: Tensor) -> Tensor:
        """Exact log-probability (or density) in nats of frames `(*S, *B, V)`, `(*S, *B)`."""

    @abstractmethod
    def sample(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        """Draw frames, `(*shape, *B, V)`; no gradient passes through a draw."""

    def _check_frames(self, v: Tensor) -> None:
        """Refuse frames that would only fit by broadcasting."""
        expected = (*self.batch_shape, self.visible_dim)
        if v.shape[-len(expected) :] != expected:
            sizes = "".join(f", {size}" for size in expected)
            raise ValueError(f"v: expected frames of shape (*S{sizes}), got {tuple(v.shape)}")


@dataclass(frozen=True, eq=False)
class IndependentBernoulliDensity(TractableDensity):
    """Units independent given the context: `log p(v) = Σ_j v_j log σ(l_j) + (1-v_j) log σ(-l_j)`.

    Args:
        logits: l, `(*B, V)`.
    """

    logits: Tensor

    @property
    def batch_shape(self) -> torch.Size:
        return self.logits.shape[:-1]

    @property
    def visible_dim(self) -> int:
        return self.logits.shape[-1]

    @property
    def mean(self) -> Tensor:
        """`E[v]`, `(*B, V)`."""
        return torch.sigmoid(self.logits)

    def log_prob(self, v: Tensor) -> Tensor:
        self._check_frames(v)
        logits = self.logits.expand_as(v)
        return -binary_cross_entropy_with_logits(logits, v, reduction="none").sum(-1)

    @torch.no_grad()
    def sample(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        return bernoulli(self.mean.expand(*shape, *self.mean.shape), generator)

    def _at_temperature(self, temperature: float) -> Any:
        """`p(v)^(1/T) / Z_T`: the logits over T."""
        return replace(self, logits=self.logits / temperature)


class IndependentBernoulli(nn.Module):
    """Head of the plain RNN: independent Bernoulli units, their logits affine in the context.

    Args:
        visible_dim: V, units of a frame.
        context_dim: size of the context, 0 for an unconditional density.

    Example:
        >>> density = IndependentBernoulli(visible_dim=3, context_dim=2)(torch.zeros(5, 2))
        >>> density.log_prob(torch.ones(5, 3))[0]  # three fair coins
        tensor(-2.0794, grad_fn=<SelectBackward0>)
    """

    def __init__(self, visible_dim: int, context_dim: int = 0) -> None:
        super().__init__()
        check_sizes(context_dim, visible_dim=visible_dim)
        self.visible_dim, self.context_dim = visible_dim, context_dim
        self.visible_bias = nn.Parameter(torch.zeros(visible_dim))
        self.context_to_visible = context_weight(context_dim, visible_dim)

    def forward(self, context: Tensor | None = None) -> IndependentBernoulliDensity:
        """The density under a context `(*B, context_dim)`, None when `context_dim` is 0."""
        check_context(context, self.context_dim)
        return IndependentBernoulliDensity(
            shifted(self.visible_bias, self.context_to_visible, context)
        )


@dataclass(frozen=True, eq=False)
class IndependentGaussianDensity(TractableDensity):
    """Gaussian units independent given the context: `log p(v) = Σ_j log N(v_j; m_j, σ_j²)`.

    Args:
        mean: m, which is `E[v]`, `(*B, V)`.
        log_deviation: log σ, `(*B, V)`.
    """

    mean: Tensor
    log_deviation: Tensor

    @property
    def batch_shape(self) -> torch.Size:
        return self.mean.shape[:-1]

    @property
    def visible_dim(self) -> int:
        return self.mean.shape[-1]

    def log_prob(self, v: Tensor) -> Tensor:
        self._check_frames(v)
        return gaussian_log_prob(v, self.mean, self.log_deviation).sum(-1)

    @torch.no_grad()
    def sample(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        return gaussian(self.mean.expand(*shape, *self.mean.shape), self.log_deviation, generator)

    def _at_temperature(self, temperature: float) -> Any:
        """`p(v)^(1/T) / Z_T`: variances times T."""
        return replace(self, log_deviation=self.log_deviation + 0.5 * math.log(temperature))


class IndependentGaussian(nn.Module):
    """Independent Gaussian units, their means and log deviations affine in the context.

    `m = m_0 + U u` and `σ = MIN_DEVIATION + exp(r_0 + U' u)`: positive for any parameters.

    Args:
        visible_dim: V, units of a frame.
        context_dim: size of the context, 0 for an unconditional density.

    Example:
        >>> density = IndependentGaussian(visible_dim=3, context_dim=2)(torch.zeros(5, 2))
        >>> density.log_prob(torch.zeros(5, 3))[0]  # at the mean of three standard Gaussians
        tensor(-2.7571, grad_fn=<SelectBackward0>)
    """

    def __init__(self, visible_dim: int, context_dim: int = 0) -> None:
        super().__init__()
        check_sizes(context_dim, visible_dim=visible_dim)
        self.visible_dim, self.context_dim = visible_dim, context_dim
        self.mean = nn.Parameter(torch.zeros(visible_dim))
        self.raw_deviation = nn.Parameter(torch.zeros(visible_dim))
        self.context_to_mean = context_weight(context_dim, visible_dim)
        self.context_to_deviation = context_weight(context_dim, visible_dim)

    def forward(self, context: Tensor | None = None) -> IndependentGaussianDensity:
        """The density under a context `(*B, context_dim)`, None when `context_dim` is 0."""
        check_context(context, self.context_dim)
        return IndependentGaussianDensity(
            shifted(self.mean, self.context_to_mean, context),
            bounded_log_deviation(shifted(self.raw_deviation, self.context_to_deviation, context)),
        )


@dataclass(frozen=True, eq=False)
class GaussianMixtureDensity(TractableDensity):
    """Mixture of diagonal Gaussians over the whole frame.

    Formula: `log p(v) = log Σ_k softmax(a)_k Π_j N(v_j; m_kj, σ_kj²)`.

    Args:
        logits: a, `(*B, K)`.
        means: m, `(*B, K, V)`.
        log_deviations: log σ, `(*B, K, V)`.
    """

    logits: Tensor
    means: Tensor
    log_deviations: Tensor

    @property
    def batch_shape(self) -> torch.Size:
        return self.logits.shape[:-1]

    @property
    def visible_dim(self) -> int:
        return self.means.shape[-1]

    @property
    def mean(self) -> Tensor:
        """`E[v] = Σ_k softmax(a)_k m_k`, `(*B, V)`."""
        return (self.logits.softmax(-1).unsqueeze(-1) * self.means).sum(-2)

    def log_prob(self, v: Tensor) -> Tensor:
        self._check_frames(v)
        units = gaussian_log_prob(v.unsqueeze(-2), self.means, self.log_deviations)
        return (self.logits.log_softmax(-1) + units.sum(-1)).logsumexp(-1)

    @torch.no_grad()
    def sample(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        component = categorical(self.logits.expand(*shape, *self.logits.shape), generator)
        index = component[..., None, None].expand(*component.shape, 1, self.visible_dim)
        of_all = (*shape, *self.means.shape)
        mean, deviation = (
            field.expand(of_all).gather(-2, index).squeeze(-2)
            for field in (self.means, self.log_deviations)
        )
        return gaussian(mean, deviation, generator)

    def _at_temperature(self, temperature: float) -> Any:
        """Log-weights over T and variances times T; not `p(v)^(1/T) / Z_T`, which is no mixture."""
        return replace(
            self,
            logits=self.logits / temperature,
            log_deviations=self.log_deviations + 0.5 * math.log(temperature),
        )


class GaussianMixture(nn.Module):
    """Mixture of diagonal Gaussians whose weights, means and log deviations follow the context.

    All three are affine in the context as in `IndependentGaussian`, the weights as logits. Units
    of a frame depend on each other through the component alone. The means start at random, about
    one apart whatever the size of the frame: equal components would stay equal in training.

    Source: Bishop, "Mixture Density Networks", 1994. Departures: a component has a deviation for
    every unit, not one for all; deviations have a floor, `MIN_DEVIATION`.

    Args:
        visible_dim: V, units of a frame.
        components: K, Gaussians in the mixture.
        context_dim: size of the context, 0 for an unconditional density.

    Example:
        >>> layer = GaussianMixture(visible_dim=3, components=4, context_dim=2)
        >>> density = layer(torch.zeros(5, 7, 2))
        >>> density.batch_shape, density.log_prob(torch.zeros(6, 5, 7, 3)).shape
        (torch.Size([5, 7]), torch.Size([6, 5, 7]))
        >>> density.sample((6,)).shape
        torch.Size([6, 5, 7, 3])
    """

    def __init__(self, visible_dim: int, components: int, context_dim: int = 0) -> None:
        super().__init__()
        check_sizes(context_dim, visible_dim=visible_dim, components=components)
        self.visible_dim, self.components = visible_dim, components
        self.context_dim = context_dim
        self.logits = nn.Parameter(torch.zeros(components))
        self.means = nn.Parameter(torch.randn(components, visible_dim) / math.sqrt(visible_dim))
        self.raw_deviations = nn.Parameter(torch.zeros(components, visible_dim))
        self.context_to_logits = context_weight(context_dim, components)
        self.context_to_means = context_weight(context_dim, components * visible_dim)
        self.context_to_deviations = context_weight(context_dim, components * visible_dim)

    def forward(self, context: Tensor | None = None) -> GaussianMixtureDensity:
        """The density under a context `(*B, context_dim)`, None when `context_dim` is 0."""
        check_context(context, self.context_dim)
        return GaussianMixtureDensity(
            shifted(self.logits, self.context_to_logits, context),
            shifted(self.means, self.context_to_means, context),
            bounded_log_deviation(
                shifted(self.raw_deviations, self.context_to_deviations, context)
            ),
        )
