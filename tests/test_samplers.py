"""Chains and contrastive divergence against enumeration and quadrature."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reference
import torch
from densities import (
    BINARY,
    LAYERS,
    errors_off,
    generator,
    random_batch,
    random_density,
    random_frames,
    random_layer,
)

from cgrnn.layers import BernoulliRBMDensity
from evaluation import exact
from samplers import chain, contrastive_loss, draw


def moments_off(density, v):
    """How many standard errors `v` and `v vᵀ` are off, at the worst."""
    mean, second = reference.moments(density)
    return max(errors_off(v, mean), errors_off(v[:, :, None] * v[:, None, :], second))


@pytest.mark.parametrize("kind", LAYERS)
def test_draws_follow_the_density(kind):
    density = random_batch(kind, 5, 4, 3, count=2, scale=0.4)
    drawn = draw(density, (20_000,), 100, generator(0))
    assert drawn.shape == (20_000, 2, 5)
    for member in range(2):
        assert moments_off(density[member], drawn[:, member]) < 5


@pytest.mark.parametrize("kind", LAYERS)
def test_no_sweeps_leave_the_frames(kind):
    v = random_frames(kind, 4, 4, 0)
    assert torch.equal(chain(random_density(kind, 4, 3, 0), v, 0), v)


def layer_in_context(kind, visible, hidden, seed):
    """A layer all of whose parameters want a gradient, and two contexts."""
    layer = random_layer(kind, visible, hidden, seed, scale=0.6, context=2)
    context = torch.randn(2, 2, dtype=torch.float64, generator=generator(seed))
    return layer.requires_grad_(True), context


def exact_log_partition(density):
    """Differentiable, by enumeration of frames or spikes."""
    return exact.log_masses(density)[1].logsumexp(0)


def gradients(layer, loss):
    return dict(
        zip(
            [name for name, _ in layer.named_parameters()],
            torch.autograd.grad(loss, list(layer.parameters())),
            strict=True,
        )
    )


@pytest.mark.parametrize("kind", LAYERS)
def test_exact_log_partition_has_the_gradient_of_differences(kind):
    """Along a random direction of all parameters, against an enumeration that shares nothing."""
    for seed in range(5):
        layer, context = layer_in_context(kind, 3, 2, seed)
        gradient = gradients(layer, exact_log_partition(layer(context)).sum())
        random, step = generator(seed), 1e-5
        direction = {
            name: torch.randn(g.shape, generator=random, dtype=g.dtype)
            for name, g in gradient.items()
        }

        def shifted(amount, layer=layer, context=context, direction=direction):
            with torch.no_grad():
                for name, parameter in layer.named_parameters():
                    parameter += amount * direction[name]
            density = layer(context)
            return sum(reference.log_partition(density[member]) for member in range(2))

        difference = (shifted(step) - shifted(-2 * step)) / (2 * step)
        expected = sum(float((gradient[name] * direction[name]).sum()) for name in gradient)
        assert difference == pytest.approx(expected, rel=1e-6, abs=1e-6)


def all_states(kind):
    """Every frame of two units: the corners, or points of a plane for the trapezoid rule."""
    if kind in BINARY:
        return exact.all_frames(2)
    line = torch.arange(-40.0, 40.0, 0.16, dtype=torch.float64)
    return torch.cartesian_prod(line, line)


@pytest.mark.parametrize("kind", LAYERS)
def test_contrastive_gradient_with_the_exact_negative_phase_is_that_of_the_likelihood(kind):
    """CD-∞: `F(v) - E_p[F(ṽ)]` with p held fixed, for every parameter."""
    layer, context = layer_in_context(kind, 2, 3, 1)
    v, states = random_frames(kind, 2, 2, 0), all_states(kind)[:, None]
    density = layer(context)
    wanted = gradients(layer, (density.free_energy(v) + exact_log_partition(density)).sum())
    density = layer(context)
    energies = density.free_energy(states.expand(-1, 2, -1))
    p = torch.softmax(-energies, 0).detach()
    found = gradients(layer, (density.free_energy(v) - (p * energies).sum(0)).sum())
    for name, gradient in wanted.items():
        assert gradient.abs().max() > 1e-3, name
        assert torch.allclose(found[name], gradient, rtol=0, atol=1e-6), name


@pytest.mark.parametrize("kind", LAYERS)
def test_long_contrastive_gradient_is_that_of_the_exact_likelihood(kind):
    """CD-50 over many copies of two frames, by every parameter."""
    layer, context = layer_in_context(kind, 3, 2, 4)
    v = random_frames(kind, 2, 3, 2)
    density = layer(context)
    wanted = gradients(layer, (density.free_energy(v) + exact_log_partition(density)).mean())
    # Batches of copies give gradients whose spread is the Monte-Carlo error of their mean.
    groups = []
    for seed in range(20):
        density = layer(context.repeat(1000, 1))
        loss = contrastive_loss(density, v.repeat(1000, 1), 50, generator(seed))
        groups.append(gradients(layer, loss.mean()))
    for name, gradient in wanted.items():
        found = torch.stack([group[name] for group in groups])
        error = found.std(0) / math.sqrt(len(found))
        assert ((found.mean(0) - gradient).abs() < 8 * error + 1e-9).all(), name


def test_one_step_from_the_data_is_biased_where_the_long_chain_is_not():
    """The tests above must be able to fail: CD-1 stays in the data's mode, one of two alike."""
    one = torch.ones(6, dtype=torch.float64)
    density = BernoulliRBMDensity(2 * one[:, None], -one, -one[:1] * 6, 1.0)
    assert np.allclose(reference.moments(density)[0], 0.5)
    after = chain(density, one.expand(20_000, 6), 1, generator(0))
    assert moments_off(density, after) > 50


@pytest.mark.parametrize("kind", LAYERS)
def test_persistent_chains_go_on_where_they_stood(kind):
    density = random_density(kind, 5, 3, 2, scale=0.4)
    v = torch.zeros(4000, 5, dtype=torch.float64)
    chains, random = v.clone(), generator(0)
    contrastive_loss(density, v, 1, random, chains)
    once = chains.clone()
    assert not torch.equal(once, v)
    loss = contrastive_loss(density, v, 0, random, chains)
    assert torch.equal(chains, once)
    assert torch.allclose(loss, density.free_energy(v) - density.free_energy(once))
    for _ in range(60):
        contrastive_loss(density, v, 1, random, chains)
    assert moments_off(density, chains) < 5
