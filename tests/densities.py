"""Random small energy densities for the tests, in float64."""

from __future__ import annotations

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
LAYERS = BINARY + CONTINUOUS


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_layer(kind: type, visible: int, hidden: int, seed: int, scale: float = 1.0) -> Any:
    """A layer with weights and biases N(0, scale²), α and Λ log-normal, μ normal, Φ asymmetric."""
    random = generator(seed)
    layer = kind(visible, hidden).double()
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
    return without_gradient(layer)


def random_density(kind: type, visible: int, hidden: int, seed: int, scale: float = 1.0) -> Any:
    return random_layer(kind, visible, hidden, seed, scale)(None)


def without_gradient(module: Any) -> Any:
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module
