"""Random small energy densities for the tests, in float64."""

from __future__ import annotations

from typing import Any

import torch

from cgrnn.layers import BernoulliRBM, BinarySpikeSlabRBM

LAYERS = (BernoulliRBM, BinarySpikeSlabRBM)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_layer(kind: type, visible: int, hidden: int, seed: int, scale: float = 1.0) -> Any:
    """A layer with weights and biases N(0, scale²), α log-normal and μ normal."""
    random = generator(seed)
    layer = kind(visible, hidden).double()
    with torch.no_grad():
        for parameter in (layer.W, layer.visible_bias, layer.hidden_bias):
            parameter.normal_(std=scale, generator=random)
        if kind is BinarySpikeSlabRBM:
            layer.mu.normal_(generator=random)
            layer.log_alpha.normal_(std=0.7, generator=random)
    return without_gradient(layer)


def random_density(kind: type, visible: int, hidden: int, seed: int, scale: float = 1.0) -> Any:
    return random_layer(kind, visible, hidden, seed, scale)(None)


def without_gradient(module: Any) -> Any:
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module
