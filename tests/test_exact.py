"""Enumeration against partition functions computed another way, and draws against moments."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import torch
from densities import (
    CONTINUOUS,
    GAUSSIAN_SPIKE_SLAB,
    LAYERS,
    errors_off,
    generator,
    random_batch,
    random_density,
    random_layer,
)

from cgrnn.layers import BernoulliRBM, BinarySpikeSlabRBM, GaussianSpikeSlabRBM
from evaluation import exact

SCALES = (0.2, 0.5, 1.0, 3.0)


@pytest.mark.parametrize("kind", LAYERS)
def test_two_hundred_random_densities_against_the_sum_over_joint_states(kind):
    """Binary: all frames times all spikes, slabs by completing the square. Continuous: for each
    state of the spikes frame and slabs are one Gaussian of dimension `V + H`."""
    for seed in range(200):
        density = random_density(kind, 1 + seed % 6, 1 + seed // 6 % 5, seed, SCALES[seed % 4])
        expected = reference.log_partition(density)
        assert float(exact.log_partition(density)) == pytest.approx(expected, rel=0, abs=1e-8)


@pytest.mark.parametrize("kind", CONTINUOUS)
def test_two_visible_units_against_quadrature_of_the_free_energy(kind):
    for seed in range(4):
        density = random_density(kind, 2, 3, seed, scale=0.5).annealed(0.7)  # the plane holds it
        line = torch.arange(-40.0, 40.0, 0.08, dtype=torch.float64)
        log_z = (-density.free_energy(torch.cartesian_prod(line, line))).logsumexp(0)
        expected = float(log_z) + 2 * np.log(0.08)
        assert float(exact.log_partition(density)) == pytest.approx(expected, rel=0, abs=1e-8)


def test_spike_slab_against_the_closed_form_of_one_visible_unit():
    for seed in range(20):
        density = random_density(BinarySpikeSlabRBM, 1, 2, seed)
        w, alpha, mu = density.W[0], density.alpha, density.mu
        volume = (2 * torch.pi / alpha).sqrt().prod()
        off = (1 + density.hidden_bias.exp()).prod()
        on = (1 + (mu * w + w**2 / (2 * alpha) + density.hidden_bias).exp()).prod()
        z = volume * (off + on * density.visible_bias.exp()[0])
        assert exact.log_partition(density) == pytest.approx(float(z.log()), abs=1e-8)


@pytest.mark.parametrize("kind", LAYERS)
def test_the_mass_of_every_state_is_that_of_the_joint_energy(kind):
    density = random_density(kind, 4, 3, 2)
    states, masses = exact.log_masses(density)
    if kind in CONTINUOUS:
        expected = reference.spike_log_masses(density)
    else:
        expected = np.logaddexp.reduce(reference.joint_log_masses(density), axis=1)
    assert np.allclose(masses.numpy(), expected[reference.number(states)], rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", [kind for kind in LAYERS if kind is not BinarySpikeSlabRBM])
def test_the_mass_of_every_state_of_the_hidden_units_is_that_of_the_joint_energy(kind):
    density = random_density(kind, 4, 3, 2)
    found = density.hidden_log_mass(torch.tensor(reference.states(3)))
    assert np.allclose(found.numpy(), reference.spike_log_masses(density), rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", LAYERS)
def test_blocks_and_batches_do_not_matter(kind, monkeypatch):
    layer = random_layer(kind, 7, 6, 0, context=2)
    context = torch.randn(2, 3, 2, dtype=torch.float64, generator=generator(0))
    together = exact.log_partition(layer(context))
    assert together.shape == (2, 3) and together.dtype == torch.float64
    assert together[1, 2] == pytest.approx(float(exact.log_partition(layer(context[1, 2]))))
    for numbers in (1, 7 * 6 * 6 * 5, 7 * 7 * 6 * 50):  # one state to a block, and a few
        monkeypatch.setattr(exact, "_BLOCK", numbers)
        assert torch.allclose(exact.log_partition(layer(context)), together)


@pytest.mark.parametrize("kind", LAYERS)
def test_float32_agrees_with_float64(kind):
    layer = random_layer(kind, 8, 5, 3)
    expected = exact.log_partition(layer(None))
    found = exact.log_partition(layer.float()(None))
    assert found.dtype == torch.float64
    assert float(found) == pytest.approx(float(expected), abs=1e-3)


@pytest.mark.parametrize("kind", LAYERS)
def test_exact_draws_have_the_moments_of_the_density(kind):
    density = random_batch(kind, 4, 3, 1, count=3, scale=0.8)
    drawn = exact.sample(density, 40_000, generator(0))
    assert drawn.shape == (40_000, 3, 4) and drawn.dtype == torch.float64
    for member in range(3):
        mean, second = reference.moments(density[member])
        v = drawn[:, member]
        assert errors_off(v, mean) < 5
        assert errors_off(v[:, :, None] * v[:, None, :], second) < 5


@pytest.mark.parametrize("kind", LAYERS)
def test_spikes_given_exact_draws_have_the_frequencies_of_the_density(kind):
    density = random_batch(kind, 4, 3, 2, count=1, scale=0.8)
    drawn = exact.sample(density, 40_000, generator(0))
    spikes = density.sample_latents(drawn, generator(1))[0][:, 0]
    assert reference.surprise_of_spikes(density[0], spikes) < 6


@pytest.mark.parametrize("kind", LAYERS)
def test_draws_follow_the_generator_alone_whatever_the_batch_shape(kind):
    layer = random_layer(kind, 4, 3, 0, context=2)
    context = torch.randn(2, 3, 2, dtype=torch.float64, generator=generator(0))
    drawn = exact.sample(layer(context), 7, generator(1))
    assert drawn.shape == (7, 2, 3, 4)
    flat = exact.sample(layer(context).flatten(), 7, generator(1))
    assert torch.equal(flat.view_as(drawn), drawn)
    assert exact.sample(layer(context[0, 0]), 7, generator(1)).shape == (7, 4)


@pytest.mark.parametrize("kind", GAUSSIAN_SPIKE_SLAB)
def test_any_number_of_visible_units_is_exact_over_continuous_frames(kind):
    density = random_density(kind, 60, 4, 1, scale=0.3)
    expected = reference.log_partition(density)
    assert float(exact.log_partition(density)) == pytest.approx(expected, abs=1e-8)


def test_too_many_units_are_refused_with_the_limit():
    for compute in (exact.log_partition, lambda density: exact.sample(density, 1)):
        with pytest.raises(ValueError, match="limited to 20 visible units, got 21"):
            compute(random_density(BernoulliRBM, 21, 2, 0))
        with pytest.raises(ValueError, match="limited to 15 hidden units, got 16"):
            compute(random_density(GaussianSpikeSlabRBM, 2, 16, 0))
