"""Annealed importance sampling against enumeration, at many levels and at few."""

from __future__ import annotations

import math

import pytest
import torch
from densities import LAYERS, generator, random_density, without_gradient

from cgrnn.layers import BinarySpikeSlabRBM, BinarySpikeSlabRBMDensity
from evaluation import ais, exact


@pytest.mark.parametrize("kind", LAYERS)
def test_a_hundred_random_densities(kind):
    errors, scores = [], []
    for seed in range(100):
        density = random_density(kind, 10, 6, seed)
        estimate = ais.log_partition(density, chains=200, levels=1000, generator=generator(seed))
        errors.append(float(estimate.log_z - exact.log_partition(density)))
        scores.append(errors[-1] / float(estimate.stderr))
    assert abs(sum(errors) / len(errors)) < 0.01
    assert sum(abs(score) < 4 for score in scores) >= 97


def few_levels(density, chains, levels, seed, swapped=False):
    """Annealing written once more, plainly; `swapped` moves before it weights, the common bug."""
    random = generator(seed)
    v = density.sample_base((chains,), random)
    log_weight = torch.zeros(chains, dtype=torch.float64)
    for level in range(1, levels + 1):
        before, after = density.annealed((level - 1) / levels), density.annealed(level / levels)
        if swapped:
            v = after.gibbs_step(v, random)
        log_weight += before.free_energy(v) - after.free_energy(v)
        if not swapped:
            v = after.gibbs_step(v, random)
    return log_weight + density.base_log_partition()


def bias_in_errors(log_weights, exact_log_z):
    """Mean of `w / Z` minus one, in standard errors: zero for a right estimator at any levels."""
    ratio = (log_weights - exact_log_z).exp()
    return float((ratio.mean() - 1) / (ratio.std() / math.sqrt(len(ratio))))


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("levels", [1, 2, 5])
def test_weights_are_unbiased_at_few_levels(kind, levels):
    for seed in range(5):
        density = random_density(kind, 6, 4, seed, scale=0.5)
        estimate = ais.log_partition(density, 100_000, levels, generator(seed))
        assert abs(bias_in_errors(estimate.log_weights, exact.log_partition(density))) < 5


@pytest.mark.parametrize("kind", LAYERS)
def test_moving_before_weighting_is_caught(kind):
    density = random_density(kind, 6, 4, 1, scale=0.5)
    truth = exact.log_partition(density)
    assert abs(bias_in_errors(few_levels(density, 100_000, 3, 0), truth)) < 5
    assert bias_in_errors(few_levels(density, 100_000, 3, 0, swapped=True), truth) > 20


@pytest.mark.parametrize("kind", LAYERS)
def test_independent_units_are_exact_with_one_level(kind):
    density = random_density(kind, 8, 5, 0).annealed(0.0)
    estimate = ais.log_partition(density, chains=7, levels=1, generator=generator(0))
    truth = exact.log_partition(density)
    assert torch.allclose(estimate.log_weights[:4], truth)  # the path that keeps the biases
    coins = ais.log_partition(density.tempered(0.0), chains=7, levels=1, generator=generator(0))
    assert float(coins.stderr) == pytest.approx(0.0, abs=1e-7)
    assert float(coins.ess) == pytest.approx(7.0)


def hidden_mode():
    """Like what plain CD ends at: sparse frames, and one full mode that holds all the mass."""
    one = torch.ones(1, dtype=torch.float64)
    return BinarySpikeSlabRBMDensity(
        torch.ones(16, 1, dtype=torch.float64),
        torch.full((16,), -12.0).double(),
        0 * one,
        1.0,
        0.5 * one,
        one,
    )


def test_a_mode_that_the_biases_hide_is_found():
    density = hidden_mode()
    truth = exact.log_partition(density)
    estimate = ais.log_partition(density, chains=100, levels=500, generator=generator(0))
    # Half of the chains miss it, so that the mean of the weights is half of Z.
    assert abs(estimate.log_z + math.log(2) - truth) < 6 * estimate.stderr
    one_path = ais.LogPartition.from_log_weights(estimate.log_weights[:50])
    assert one_path.log_z < truth - 20  # the chains agree with each other, and are wrong
    assert one_path.ess > 40


def test_the_estimate_is_low_on_average_and_says_so_with_few_chains():
    """log mean exp is concave: its mean over repetitions lies below the truth."""
    density = random_density(BinarySpikeSlabRBM, 8, 5, 2)
    truth = exact.log_partition(density)
    single = ais.log_partition(density, 20_000, 5, generator(0)).log_weights
    assert single.mean() + 5 * single.std() / math.sqrt(len(single)) < truth


def test_a_batch_has_the_estimates_of_its_members():
    layer = without_gradient(BinarySpikeSlabRBM(6, 4, context_dim=3).double())
    context = torch.randn(3, 5, 3, dtype=torch.float64, generator=generator(0))
    torch.nn.init.normal_(layer.W, generator=generator(1))
    density = layer(context)
    estimate = ais.log_partition(density, chains=500, levels=200, generator=generator(2))
    assert estimate.log_weights.shape == (500, 3, 5)
    error = (estimate.log_z - exact.log_partition(density)) / estimate.stderr
    assert error.abs().max() < 5


def test_threads_do_not_change_the_numbers():
    layer = without_gradient(BinarySpikeSlabRBM(6, 4, context_dim=3))
    density = layer(torch.randn(64, 3, generator=generator(0)))
    threads = torch.get_num_threads()
    results = []
    for count in (1, 2):
        torch.set_num_threads(count)
        results.append(ais.log_partition(density, 50, 20, generator(3)).log_z)
        assert torch.get_num_threads() == count
    torch.set_num_threads(threads)
    assert torch.equal(*results)


def test_nonsense_is_refused():
    density = random_density(BinarySpikeSlabRBM, 3, 2, 0)
    with pytest.raises(ValueError, match="at least 1"):
        ais.log_partition(density, chains=0)
