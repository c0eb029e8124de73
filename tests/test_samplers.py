"""Chains and contrastive divergence against enumeration."""

from __future__ import annotations

import math

import pytest
import torch
from densities import LAYERS, generator, random_density, random_layer

from cgrnn.layers import BinarySpikeSlabRBMDensity
from evaluation import exact
from samplers import chain, contrastive_loss, draw


def probabilities(density):
    return torch.softmax(-density.free_energy(exact.all_frames(density.visible_dim)), 0)


def moments(density):
    """`E[v]` and its probabilities, by enumeration."""
    states, p = exact.all_frames(density.visible_dim), probabilities(density)
    return (p[:, None] * states).sum(0)


@pytest.mark.parametrize("kind", LAYERS)
def test_draws_follow_the_density(kind):
    density = random_density(kind, 6, 4, 3, scale=0.7)
    drawn = draw(density, (40_000,), 60, generator(0))
    mean = moments(density)
    assert ((drawn.mean(0) - mean).abs() < 5 * (mean * (1 - mean) / len(drawn)).sqrt()).all()


def test_no_sweeps_leave_the_frames():
    density = random_density(LAYERS[0], 4, 3, 0)
    v = torch.eye(4, dtype=torch.float64)
    assert torch.equal(chain(density, v, 0), v)


@pytest.mark.parametrize("kind", LAYERS)
def test_long_contrastive_gradient_is_that_of_the_exact_likelihood(kind):
    """CD-50 over many copies of a frame, by every parameter, against autograd of exact log Z."""
    layer = random_layer(kind, 3, 2, 4, scale=0.7)
    for parameter in layer.parameters():
        parameter.requires_grad_(True)
    frame = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    density = layer(None)
    log_z = (-density.free_energy(exact.all_frames(3))).logsumexp(0)
    (density.free_energy(frame) + log_z).backward()
    wanted = [parameter.grad.clone() for parameter in layer.parameters()]
    # Batches of copies give gradients whose spread is the Monte-Carlo error of their mean.
    groups = []
    for seed in range(20):
        layer.zero_grad()
        contrastive_loss(layer(None), frame.expand(2000, 3), 50, generator(seed)).mean().backward()
        groups.append([parameter.grad.clone() for parameter in layer.parameters()])
    for place, gradient in enumerate(wanted):
        found = torch.stack([group[place] for group in groups])
        error = found.std(0) / math.sqrt(len(found))
        assert ((found.mean(0) - gradient).abs() < 6 * error + 1e-9).all()


@pytest.mark.parametrize("kind", LAYERS)
def test_exact_negative_phase_has_the_exact_gradient(kind):
    """`E_p[F(ṽ)]` with p held fixed has the gradient of `-log Z`, to rounding."""
    layer = random_layer(kind, 4, 3, 6)
    for parameter in layer.parameters():
        parameter.requires_grad_(True)
    free_energy = layer(None).free_energy(exact.all_frames(4))
    parameters = list(layer.parameters())
    exactly = torch.autograd.grad((-free_energy).logsumexp(0), parameters, retain_graph=True)
    p = torch.softmax(-free_energy, 0).detach()
    phase = torch.autograd.grad(-(p * free_energy).sum(), parameters)
    for mine, theirs in zip(phase, exactly, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-10)


def test_one_step_from_the_data_is_biased_where_the_long_chain_is_not():
    """The two tests above must be able to fail: CD-1's gradient is not the likelihood's."""
    density = random_density(LAYERS[0], 6, 4, 1, scale=1.5)
    frame = torch.ones(6, dtype=torch.float64)
    after = chain(density, frame.expand(20_000, 6), 1, generator(0))
    mean = moments(density)
    error = (mean * (1 - mean) / len(after)).sqrt()
    assert ((after.mean(0) - mean).abs() > 10 * error).any()


def test_persistent_chains_go_on_where_they_stood():
    density = random_density(LAYERS[1], 5, 3, 2, scale=0.6)
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
    mean = moments(density)
    assert ((chains.mean(0) - mean).abs() < 5 * (mean * (1 - mean) / 4000).sqrt()).all()


def test_restarts_from_noise_find_the_mode_that_chains_from_data_miss():
    one = torch.ones(1, dtype=torch.float64)
    weight, bias = torch.ones(16, 1, dtype=torch.float64), torch.full((16,), -12.0).double()
    density = BinarySpikeSlabRBMDensity(
        weight, bias.expand(2000, 16), (0 * one).expand(2000, 1), 1.0, 0.5 * one, one
    )
    silence = torch.zeros(2000, 16, dtype=torch.float64)
    without = contrastive_loss(density, silence, 5, generator(0))
    assert without.abs().max() < 30
    found = contrastive_loss(density, silence, 5, generator(0), restarts=0.3) > 50
    assert 0.05 < found.double().mean() < 0.3
