"""Restarts at noise: exact where the chains are, and of use where they find another mode."""

from __future__ import annotations

import pytest
import torch
from densities import BINARY, LAYERS, generator, random_frames, random_layer

from cgrnn.layers import BernoulliRBMDensity, BinarySpikeSlabRBMDensity
from evaluation import exact
from samplers import chain, contrastive_loss

GROUPS = 40
STEPS = 20  # enough for exact draws of the small densities below


def asymmetric(kind, seed=0):
    """A layer whose frames differ much in energy, with every parameter to be trained."""
    layer = random_layer(kind, 3, 2, seed, scale=0.6, context=1)
    layer.visible_bias.copy_(torch.tensor([2.0, -2.0, 1.5]))
    return layer.requires_grad_(True)


def gradient(layer, loss):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(layer.parameters()))])


def errors_off(rule, layer, v, copies):
    """How many standard errors the mean gradient of a rule is off the exact one, at the worst."""
    context = torch.ones(len(v), 1, dtype=torch.float64)
    density = layer(context)
    log_z = exact.log_masses(density)[1].logsumexp(0)
    wanted = gradient(layer, (density.free_energy(v) + log_z).mean())
    # Groups of copies give gradients whose spread is the error of their mean.
    found = torch.stack(
        [
            gradient(
                layer,
                rule(layer(context.repeat(copies, 1)), v.repeat(copies, 1), generator(seed)).mean(),
            )
            for seed in range(GROUPS)
        ]
    )
    error = found.std(0) / GROUPS**0.5 + 1e-9
    return float(((found.mean(0) - wanted).abs() / error).max())


def exchanged(share):
    return lambda density, v, random: contrastive_loss(density, v, STEPS, random, restarts=share)


def weighed(share):
    """Wrong: the two ends, draws of one density, weighed by that density once more."""

    def rule(density, v, random):
        near = density.free_energy(chain(density, v, STEPS, random))
        few = density[: round(share * len(v))]
        found = few.free_energy(chain(few, few.sample_noise(random), 5 * STEPS, random))
        kept, offered = near[len(found) :], near[: len(found)]
        weight = torch.sigmoid(offered - found).detach()
        return density.free_energy(v) - torch.cat([torch.lerp(offered, found, weight), kept])

    return rule


@pytest.mark.parametrize("kind", LAYERS)
def test_restarts_of_exact_chains_leave_the_gradient_exact(kind):
    layer, v = asymmetric(kind), random_frames(kind, 2, 3, 2)
    assert errors_off(exchanged(1.0), layer, v, copies=300) < 7
    assert errors_off(weighed(1.0), layer, v, copies=300) > 14


@pytest.mark.parametrize("kind", BINARY)
def test_a_tenth_of_restarts_leaves_the_gradient_exact(kind):
    layer, v = asymmetric(kind), random_frames(kind, 2, 3, 2)
    assert errors_off(exchanged(0.1), layer, v, copies=6000) < 7
    assert errors_off(weighed(0.1), layer, v, copies=6000) > 14


def deep_mode(count):
    """Silence is a mode; nearly full frames are another, deeper by 80 nats."""
    one = torch.ones(1, dtype=torch.float64)
    weight, bias = torch.ones(16, 1, dtype=torch.float64), torch.full((16,), -12.0).double()
    return BinarySpikeSlabRBMDensity(
        weight, bias.expand(count, 16), (0 * one).expand(count, 1), 1.0, 0.5 * one, one
    )


def test_restarts_from_noise_find_the_mode_that_chains_from_data_miss():
    density, silence = deep_mode(2000), torch.zeros(2000, 16, dtype=torch.float64)
    without = contrastive_loss(density, silence, 5, generator(0))
    assert without.abs().max() < 30
    found = contrastive_loss(density, silence, 5, generator(0), restarts=0.3)
    assert 0.05 < (found > 50).double().mean() < 0.3


def test_what_is_found_in_a_deeper_mode_counts_alone():
    density, silence = deep_mode(2000), torch.zeros(2000, 16, dtype=torch.float64)
    found = contrastive_loss(density, silence, 5, generator(0), restarts=1.0)
    depth = density.free_energy(silence) - density.free_energy(silence + 1)
    assert depth.min() > 79
    arrived = chain(density, density.sample_noise(generator(1)), 25, generator(1)).mean(-1) > 0.5
    shares = (found > 5).double().mean(), arrived.double().mean()
    assert abs(shares[0] - shares[1]) < 0.08  # five standard errors
    assert torch.allclose(found[found > 5], depth[found > 5])


def test_what_is_still_noise_counts_for_next_to_nothing():
    zero = torch.zeros(16, 1, dtype=torch.float64)
    density = BernoulliRBMDensity(
        zero, zero[:, 0].expand(2000, 16) - 40, zero[0].expand(2000, 1), 1.0
    )
    silence = torch.zeros(2000, 16, dtype=torch.float64)
    gap = density.free_energy(density.sample_noise(generator(0))) - density.free_energy(silence)
    assert gap.mean() > 250
    # No sweeps: both chains stay where they began.
    loss = contrastive_loss(density, silence, 0, generator(0), restarts=1.0)
    assert loss.abs().mean() < 0.5
