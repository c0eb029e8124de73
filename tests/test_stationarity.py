"""Sweeps that start from exact draws must leave them exact; sweeps that are wrong must not.

The draws and what they are held against come from `reference`, which shares nothing with the
densities under test: the states of the spikes by Pearson's statistic, `v` and `v vᵀ` by their
means. Each distance is the `-log10` of its probability under independent exact draws.
"""

from __future__ import annotations

import math

import pytest
import reference
import torch
from densities import (
    GAUSSIAN_SPIKE_SLAB,
    LAYERS,
    SPIKE_SLAB,
    errors_off,
    generator,
    random_layer,
)
from scipy.stats import norm

CHAINS = 20_000
FLOOR = 8.0


def gibbs_sweep(density, v, random):
    return density.gibbs_step(v, random)


def collapsed_sweep(density, v, random):
    return density.collapsed_step(v, random)


def slab_variance_alpha(density, v, random):
    """The published code's sweep: deviation √α where 1/√α is due."""
    h, s = density.sample_latents(v, random)
    mean = h * density.slab_mean(v)
    return density.sample_visible((h, mean + (s - mean) * density.alpha), random)


def slabs_forgotten(density, v, random):
    """Slabs held at their mean in place of integrated out: `C` where `C_h` is due."""
    h = density.sample_spikes(v, random)
    return density.sample_visible((h, density.mu.expand_as(h)), random)


def distance(density, v, random):
    """From the exact density, the worst of the three."""
    spikes = density.sample_latents(v, random)[0]
    mean, second = reference.moments(density)
    off = max(errors_off(v, mean), errors_off(v[:, :, None] * v[:, None, :], second))
    surprise_of_moments = -(math.log(2) + norm.logsf(off)) / math.log(10)
    return max(reference.surprise_of_spikes(density, spikes), surprise_of_moments)


def distances(density, sweep, lengths, chains=CHAINS):
    """After each of so many sweeps of chains that start from exact draws."""
    v, random, found = reference.sample(density, chains, 0), generator(1), []
    for number in range(max(lengths) + 1):
        if number in lengths:
            found.append(distance(density, v, random))
        v = sweep(density, v, random)
    return torch.tensor(found)


def spread_density(kind, alpha=1.0, scale=0.8):
    """The first density whose spikes take all their states, for the statistic to see them.

    Slabs have a precision of about `alpha`.
    """
    for seed in range(1000):
        layer = random_layer(kind, 4, 3, seed, scale)
        if kind in SPIKE_SLAB:
            layer.log_alpha.add_(math.log(alpha))
        if reference.spike_probabilities(layer(None)).min() > 0.01:
            return layer(None)
    raise AssertionError(f"no {kind.__name__} whose spikes are spread")


@pytest.mark.parametrize("kind", LAYERS)
def test_gibbs_sweeps_from_exact_draws_do_not_drift(kind):
    assert distances(spread_density(kind), gibbs_sweep, (0, 1, 10, 100)).max() < FLOOR


@pytest.mark.parametrize("kind", GAUSSIAN_SPIKE_SLAB)
def test_collapsed_sweeps_from_exact_draws_do_not_drift(kind):
    found = distances(spread_density(kind), collapsed_sweep, (1, 10, 100), chains=5_000)
    assert found.max() < FLOOR


@pytest.mark.parametrize("path", ["annealed", "tempered"])
@pytest.mark.parametrize("kind", LAYERS)
def test_sweeps_halfway_along_either_path_do_not_drift(kind, path):
    density = getattr(spread_density(kind), path)(0.5)
    assert distances(density, gibbs_sweep, (1, 10)).max() < FLOOR
    if kind in GAUSSIAN_SPIKE_SLAB:
        assert distances(density, collapsed_sweep, (1, 10)).max() < FLOOR


def assert_caught(density, wrong, right):
    """The wrong sweep drifts far from where the right one stays."""
    assert distances(density, right, (10,)).max() < FLOOR
    assert distances(density, wrong, (10,)).min() > 2 * FLOOR


@pytest.mark.parametrize("kind", SPIKE_SLAB)
def test_slabs_of_variance_alpha_are_caught_by_the_drift(kind):
    assert_caught(spread_density(kind, alpha=8.0), slab_variance_alpha, gibbs_sweep)


@pytest.mark.parametrize("kind", GAUSSIAN_SPIKE_SLAB)
def test_slabs_that_are_not_integrated_out_are_caught_by_the_drift(kind):
    assert_caught(spread_density(kind, alpha=0.2, scale=1.2), slabs_forgotten, collapsed_sweep)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_sweep_under_couplings_twice_too_large_is_caught_by_the_drift(kind):
    def wrong(density, v, random):
        return density.annealed(2.0).gibbs_step(v, random)

    assert_caught(spread_density(kind), wrong, gibbs_sweep)
