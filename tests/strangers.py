"""Densities as one who reads the contract alone would write them, outside the package."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from densities import generator
from torch.nn.functional import one_hot, softplus

from cgrnn.layers.energy import BinaryEnergyDensity, EnergyDensity, bernoulli

STATES = 3  # of a Potts unit


@dataclass(frozen=True, eq=False)
class IsingAsInherited(BinaryEnergyDensity):
    """Binary frames and hidden units in {-1, +1}. Free energy and base are those of {0, 1}."""

    def energy(self, v, *latents):
        (h,) = latents
        coupling = ((v @ self.W) * h).sum(-1)
        return self._visible_energy(v) - coupling - (h * self.hidden_bias).sum(-1)

    def field(self, v, projected):
        return self.hidden_bias + self.beta * (self.project(v) if projected is None else projected)

    def hidden_logits(self, v, projected=None):
        return 2 * self.field(v, projected)

    def sample_latents(self, v, generator=None, projected=None):
        return (2 * bernoulli(torch.sigmoid(self.hidden_logits(v, projected)), generator) - 1,)

    def activation(self, v, projected=None):
        return torch.tanh(self.field(v, projected))

    def _latent_input(self, latents):
        return latents[0]


def log_cosh(x):
    """`log(e^x + e^-x)`."""
    return x.abs() + softplus(-2 * x.abs())


@dataclass(frozen=True, eq=False)
class IsingRightBase(IsingAsInherited):
    """Its base is right, and its free energy is not."""

    def base_log_partition(self):
        return softplus(self.visible_bias).sum(-1) + log_cosh(self.hidden_bias).sum(-1)


@dataclass(frozen=True, eq=False)
class Ising(IsingRightBase):
    """All is right."""

    def free_energy(self, v, projected=None):
        return self._visible_energy(v) - log_cosh(self.field(v, projected)).sum(-1)


@dataclass(frozen=True, eq=False)
class Potts(EnergyDensity):
    """Frames of units with three states each, one-hot; hidden units in {0, 1}. It declares no
    frames."""

    def energy(self, v, *latents):
        (h,) = latents
        coupling = ((v @ self.W) * h).sum(-1)
        return self._visible_energy(v) - coupling - (h * self.hidden_bias).sum(-1)

    def hidden_logits(self, v, projected=None):
        return self.hidden_bias + self.beta * (self.project(v) if projected is None else projected)

    def sample_latents(self, v, generator=None, projected=None):
        return (bernoulli(torch.sigmoid(self.hidden_logits(v, projected)), generator),)

    def mean_visible(self, latents):
        return shares(self._from_latents(latents))

    def sample_visible(self, latents, generator=None):
        return one_hot_draws(self.mean_visible(latents), generator)

    def activation(self, v, projected=None):
        return torch.sigmoid(self.hidden_logits(v, projected))

    def base_log_partition(self):
        visible = self.visible_bias.unflatten(-1, (-1, STATES)).logsumexp(-1).sum(-1)
        return visible + softplus(self.hidden_bias).sum(-1)

    def sample_base(self, shape, generator=None):
        probability = shares(self.visible_bias)
        return one_hot_draws(probability.expand(*shape, *probability.shape), generator)

    def sample_noise(self, generator=None):
        return one_hot_draws(torch.full_like(self.visible_bias, 1 / STATES), generator)

    def _visible_energy(self, v):
        return -(v * self.visible_bias).sum(-1)

    def _latent_input(self, latents):
        return latents[0]


def shares(logits):
    return logits.unflatten(-1, (-1, STATES)).softmax(-1).flatten(-2)


def one_hot_draws(probability, generator):
    chosen = probability.reshape(-1, STATES).multinomial(1, generator=generator)
    return one_hot(chosen[:, 0], STATES).to(probability).view(probability.shape)


def random_of(kind, visible, hidden, seed, batch=(), scale=1.0):
    """A density of a class of this file, with parameters N(0, scale²)."""
    random = generator(seed)
    shapes = (visible, hidden), (*batch, visible), (*batch, hidden)
    fields = (scale * torch.randn(shape, generator=random, dtype=torch.float64) for shape in shapes)
    return kind(*fields, 1.0)


def every_frame(kind, visible):
    """`(n, V)`."""
    if issubclass(kind, Potts):
        units = itertools.product(torch.eye(STATES, dtype=torch.float64), repeat=visible // STATES)
        return torch.stack([torch.cat(unit) for unit in units])
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=visible)), dtype=torch.float64)


def log_partition(density, states):
    """`log Σ_v Σ_h exp(-E(v, h))` over all frames and hidden units in these two states."""
    v = every_frame(type(density), density.visible_dim)
    h = torch.tensor(list(itertools.product(states, repeat=density.hidden_dim)), dtype=v.dtype)
    energies = [density.energy(v, each.expand(len(v), -1)) for each in h]
    return float(torch.stack(energies).neg().flatten().logsumexp(0))
