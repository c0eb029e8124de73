"""Random small energy densities for the tests, in float64."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch

from cgrnn.layers import BernoulliRBM, BinarySpikeSlabRBM, GaussianRBM, GaussianSpikeSlabRBM


class SpectralSpikeSlabRBM(GaussianSpikeSlabRBM):
    """The other construction of the continuous spike-and-slab RBM, with a class of its own."""

    def __init__(self, visible_dim: int, hidden_dim: int, context_dim: int = 0) -> None:
        super().__init__(visible_dim, hidden_dim, context_dim, construction="spectral")


BINARY = (BernoulliRBM, BinarySpikeSlabRBM)
CONTINUOUS = (GaussianRBM, GaussianSpikeSlabRBM, SpectralSpikeSlabRBM)
SPIKE_SLAB = (BinarySpikeSlabRBM, GaussianSpikeSlabRBM, SpectralSpikeSlabRBM)
GAUSSIAN_SPIKE_SLAB = (GaussianSpikeSlabRBM, SpectralSpikeSlabRBM)
LAYERS = BINARY + CONTINUOUS


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_layer(
    kind: type, visible: int, hidden: int, seed: int, scale: float = 1.0, context: int = 0
) -> Any:
    """A layer with weights and biases N(0, scale²), α and Λ log-normal, μ normal, Φ asymmetric."""
    random = generator(seed)
    layer = kind(visible, hidden, context).double()
    with torch.no_grad():
        for parameter in (layer.W, layer.visible_bias, layer.hidden_bias):
            parameter.normal_(std=scale, generator=random)
        if kind in SPIKE_SLAB:
            layer.mu.normal_(generator=random)
            layer.log_alpha.normal_(std=0.7, generator=random)
        if kind in CONTINUOUS:
            layer.log_precision.normal_(std=0.5, generator=random)
        if kind is GaussianSpikeSlabRBM:
            layer.raw_slack.normal_(-1.0, generator=random)
        for name, parameter in layer.named_parameters():
            if name.startswith("context_to"):
                parameter.normal_(std=scale, generator=random)
    return without_gradient(layer)


def random_density(kind: type, visible: int, hidden: int, seed: int, scale: float = 1.0) -> Any:
    return random_layer(kind, visible, hidden, seed, scale)(None)


def random_batch(
    kind: type, visible: int, hidden: int, seed: int, count: int, scale: float = 1.0
) -> Any:
    """So many densities that share couplings, with biases and precisions of their own."""
    density, random = random_density(kind, visible, hidden, seed, scale), generator(seed + 10_000)

    def varied(name: str) -> torch.Tensor:
        noise = torch.randn(
            count, getattr(density, name).shape[-1], generator=random, dtype=torch.float64
        )
        # Precisions only grow, as they do under a context: the spectral norm rests on it.
        return density.precision_diag + noise**2 if name == "precision_diag" else scale * noise

    return replace(density, **{name: varied(name) for name in density.contextual})


def random_frames(kind: type, count: int, visible: int, seed: int) -> torch.Tensor:
    """Frames of the kind's own sort, `(count, V)`: fair coins, or normal of deviation 1.5."""
    noise = torch.randn(count, visible, dtype=torch.float64, generator=generator(seed))
    return (noise > 0).double() if kind in BINARY else 1.5 * noise


def errors_off(draws: torch.Tensor, expected: Any) -> float:
    """How many standard errors the mean of `draws` is off, at the worst of its entries.

    Events so rare that the draws show no spread are allowed the error of a single draw.
    """
    error = draws.std(0) / math.sqrt(len(draws)) + 1.0 / len(draws)
    return float(((draws.mean(0) - torch.as_tensor(expected)).abs() / error).max())


def without_gradient(module: Any) -> Any:
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module
