"""Where the levels lie, against the schedules' formulas and on densities."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from densities import LAYERS, generator, random_density

from evaluation import schedules


def linear_or_sigmoid(levels):
    return {"linear": schedules.linear(levels), "sigmoid": schedules.sigmoid(levels)}


@pytest.mark.parametrize("levels", [1, 2, 7, 1000])
@pytest.mark.parametrize("name", ["linear", "sigmoid"])
def test_levels_rise_from_nought_to_one_and_are_symmetric(name, levels):
    betas = np.array(linear_or_sigmoid(levels)[name])
    assert len(betas) == levels + 1
    assert (betas[0], betas[-1]) == (0.0, 1.0)
    assert (np.diff(betas) > 0).all()
    assert np.allclose(betas + betas[::-1], 1.0)


def test_a_sigmoid_is_dense_at_both_ends():
    steps = np.diff(schedules.sigmoid(100))
    assert steps[0] < 0.25 * steps[50] and steps[-1] < 0.25 * steps[50]


def rises_of_deviation(deviation, chains=400):
    """Rises of even steps whose deviation over the chains is as given, `(steps, chains)`."""
    noise = torch.randn(len(deviation), chains, dtype=torch.float64, generator=generator(0))
    noise = (noise - noise.mean(1, keepdim=True)) / noise.std(1, keepdim=True)
    return noise * torch.as_tensor(deviation)[:, None]


def test_levels_are_as_dense_as_the_deviation_of_the_rises_but_for_the_share_spread_evenly():
    """Deviation `1 + 9β`: the length to β is `(β + 4.5 β²)/5.5`, of which a tenth is even."""
    middles = (np.arange(1000) + 0.5) / 1000
    betas = np.array(schedules.constant_divergence(rises_of_deviation(1 + 9 * middles), 50))
    length = 0.9 * (betas + 4.5 * betas**2) / 5.5 + 0.1 * betas
    assert np.allclose(length, np.linspace(0, 1, 51), atol=1e-5)


@pytest.mark.parametrize("levels", [1, 3, 500])
def test_adapted_levels_rise_from_nought_to_one(levels):
    betas = schedules.constant_divergence(rises_of_deviation(np.geomspace(1e-6, 1e6, 40)), levels)
    assert len(betas) == levels + 1
    assert betas[0] == 0.0 and betas[-1] == pytest.approx(1.0)
    assert (np.diff(betas) > 0).all()


def test_no_variance_gives_even_levels():
    betas = schedules.constant_divergence(torch.ones(20, 5), 10)
    assert np.allclose(betas, schedules.linear(10))


def test_the_unit_of_the_rises_does_not_matter():
    rises = rises_of_deviation(np.linspace(0.1, 2.0, 30))
    betas = schedules.constant_divergence(rises, 17)
    assert np.allclose(betas, schedules.constant_divergence(1e6 * rises, 17))


def test_a_batch_has_the_levels_of_its_mean_variance():
    one, other = np.linspace(0.1, 2.0, 30), np.linspace(3.0, 0.2, 30)
    both = torch.stack([rises_of_deviation(one), rises_of_deviation(other)], -1)
    pooled = rises_of_deviation(np.sqrt(0.5 * (one**2 + other**2)))
    found = schedules.constant_divergence(both, 9)
    assert np.allclose(found, schedules.constant_divergence(pooled, 9))


def step_deviations(density, path, betas, chains, random):
    """Rises of chains that anneal along a path, `(levels, chains)`."""
    at = getattr(density, path)
    v, rises = at(0.0).sample_base((chains,), random), []
    for low, high in pairwise(betas):
        rises.append(at(low).free_energy(v) - at(high).free_energy(v))
        v = at(high).gibbs_step(v, random)
    return torch.stack(rises)


@pytest.mark.parametrize("path", ["annealed", "tempered"])
@pytest.mark.parametrize("kind", LAYERS)
def test_steps_differ_by_nearly_the_same_divergence_on_a_density(kind, path):
    """The variance of a step's rise is twice the divergence between its two densities."""
    density, random = random_density(kind, 8, 6, 1), generator(0)
    even = step_deviations(density, path, schedules.linear(200), 1000, random)
    betas = schedules.constant_divergence(even, 200)
    adapted = step_deviations(density, path, betas, 1000, random)
    deviations = adapted.std(1)
    assert deviations.max() < 2 * deviations.mean()
    assert adapted.sum(0).std() < 1.2 * even.sum(0).std()
