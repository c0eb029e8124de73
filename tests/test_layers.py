"""Every density against quadrature and enumeration of its own joint energy."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from densities import LAYERS, generator, random_density, random_layer, without_gradient

from cgrnn.layers import BernoulliRBM, BinarySpikeSlabRBM, IndependentBernoulli
from evaluation import exact

SEEDS = range(5)


def spikes(hidden: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=hidden)), dtype=torch.float64)


def slab_grid(step: float = 0.1, half_width: float = 30.0) -> torch.Tensor:
    """Points of the trapezoid rule over both slabs, `(points, 2)`; exact for Gaussians."""
    line = torch.arange(-half_width, half_width, step, dtype=torch.float64)
    return torch.cartesian_prod(line, line)


def joint_weights(density, v):
    """`∫ exp(-E(v, h, s)) ds` for every h of two units, by quadrature of the joint energy."""
    grid = slab_grid()
    cell = float(grid[1, 1] - grid[0, 1]) ** 2
    result = []
    for h in spikes(2):
        energy = density.energy(v.expand(len(grid), -1), h.expand(len(grid), -1), grid)
        result.append((-energy).exp().sum() * cell)
    return torch.stack(result)


@pytest.mark.parametrize("seed", SEEDS)
def test_free_energy_is_the_marginal_of_the_joint_energy_with_slabs(seed):
    density = random_density(BinarySpikeSlabRBM, 3, 2, seed)
    for v in exact.all_frames(3):
        expected = -joint_weights(density, v).sum().log()
        assert density.free_energy(v) == pytest.approx(float(expected), abs=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_free_energy_is_the_marginal_of_the_joint_energy_without_slabs(seed):
    density = random_density(BernoulliRBM, 4, 3, seed)
    for v in exact.all_frames(4):
        energies = torch.stack([density.energy(v, h) for h in spikes(3)])
        assert torch.allclose(density.free_energy(v), -(-energies).logsumexp(0))


@pytest.mark.parametrize("seed", SEEDS)
def test_spikes_given_the_frame_follow_the_joint_energy(seed):
    density = random_density(BinarySpikeSlabRBM, 3, 2, seed)
    v = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    weights = joint_weights(density, v)
    expected = (weights[:, None] * spikes(2)).sum(0) / weights.sum()
    assert torch.allclose(torch.sigmoid(density.hidden_logits(v)), expected)


def test_slabs_given_frame_and_spikes_have_the_joint_energys_mean_and_variance():
    density = random_density(BinarySpikeSlabRBM, 3, 2, 1)
    v = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    count = 200_000
    h, s = density.sample_latents(v.expand(count, -1), generator(2))
    grid = slab_grid()
    for spike in spikes(2):
        energy = density.energy(v.expand(len(grid), -1), spike.expand(len(grid), -1), grid)
        weight = torch.softmax(-energy, 0)[:, None]
        mean = (weight * grid).sum(0)
        variance = (weight * (grid - mean) ** 2).sum(0)
        drawn = s[(h == spike).all(-1)]
        assert len(drawn) > 500
        error = (variance / len(drawn)).sqrt()
        assert ((drawn.mean(0) - mean).abs() < 5 * error).all()
        assert ((drawn.var(0) / variance - 1).abs() < 5 * math.sqrt(2 / len(drawn))).all()


@pytest.mark.parametrize("kind", LAYERS)
def test_frame_given_the_latents_follows_the_joint_energy(kind):
    density = random_density(kind, 4, 3, 3)
    latents = density.sample_latents(torch.zeros(4, dtype=torch.float64), generator(0))
    energies = torch.stack([density.energy(v, *latents) for v in exact.all_frames(4)])
    expected = (torch.softmax(-energies, 0)[:, None] * exact.all_frames(4)).sum(0)
    assert torch.allclose(density.mean_visible(latents), expected)


@pytest.mark.parametrize("kind", LAYERS)
def test_activation_is_the_mean_of_the_feature_that_is_fed_back(kind):
    density = random_density(kind, 4, 3, 5)
    v = torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    latents = density.sample_latents(v.expand(100_000, -1), generator(1))
    feature = latents[0] if kind is BernoulliRBM else latents[0] * latents[1]
    error = feature.std(0) / math.sqrt(len(feature))
    assert ((feature.mean(0) - density.activation(v)).abs() < 5 * error).all()


@pytest.mark.parametrize("kind", LAYERS)
def test_base_of_the_annealing_path_is_normalised_and_sampled_in_closed_form(kind):
    density = random_density(kind, 5, 4, 7)
    base = density.annealed(0.0)
    assert torch.allclose(density.base_log_partition(), exact.log_partition(base))
    drawn = density.sample_base((100_000,), generator(0))
    p = torch.sigmoid(density.visible_bias)
    assert ((drawn.mean(0) - p).abs() < 5 * (p * (1 - p) / len(drawn)).sqrt()).all()


@pytest.mark.parametrize("kind", LAYERS)
def test_annealed_density_is_the_density_of_scaled_couplings(kind):
    layer = random_layer(kind, 5, 4, 8)
    layer.W.mul_(0.3)
    annealed = random_density(kind, 5, 4, 8).annealed(0.3)
    scaled, v = layer(None), exact.all_frames(5)
    assert torch.allclose(annealed.free_energy(v), scaled.free_energy(v))
    assert torch.allclose(annealed.free_energy(v, annealed.project(v)), scaled.free_energy(v))
    latents = scaled.sample_latents(v, generator(0))
    for mine, theirs in zip(annealed.sample_latents(v, generator(0)), latents, strict=True):
        assert torch.allclose(mine, theirs)
    assert torch.allclose(annealed.mean_visible(latents), scaled.mean_visible(latents))
    assert torch.allclose(annealed.W, scaled.W)


@pytest.mark.parametrize("kind", LAYERS)
def test_tempered_density_goes_from_fair_coins_to_the_density_in_proportion(kind):
    density, v = random_density(kind, 5, 4, 8), exact.all_frames(5)
    assert torch.allclose(density.tempered(1.0).free_energy(v), density.free_energy(v))
    coins = density.tempered(0.0)
    assert torch.allclose(coins.free_energy(v), coins.free_energy(v)[0])
    assert torch.allclose(coins.base_log_partition(), exact.log_partition(coins))
    part = density.hidden_logits(v) - density.hidden_bias
    assert torch.allclose(density.tempered(0.3).hidden_logits(v) - density.hidden_bias, 0.3 * part)
    assert torch.allclose(density.tempered(0.3).visible_bias, 0.3 * density.visible_bias)


def chi_square(density, frames, classes):
    """Pearson's statistic of frames against the enumerated density, and its mean and deviation."""
    states = exact.all_frames(density.visible_dim)
    p = torch.softmax(-density.free_energy(states), 0)
    index = (frames @ (2.0 ** torch.arange(density.visible_dim)).double()).long()
    seen = torch.bincount(index, minlength=classes).double()
    statistic = ((seen - len(frames) * p) ** 2 / (len(frames) * p)).sum()
    return float(statistic), classes - 1, math.sqrt(2 * (classes - 1))


def spread_density(kind):
    """A density over four units whose every state is common enough for the statistic to see."""
    density = random_density(kind, 4, 3, seed=1, scale=0.6)
    p = torch.softmax(-density.free_energy(exact.all_frames(4)), 0)
    assert p.min() > 0.005
    return density


def exact_draws(density, count, seed):
    states = exact.all_frames(density.visible_dim)
    p = torch.softmax(-density.free_energy(states), 0)
    return states[torch.multinomial(p, count, replacement=True, generator=generator(seed))]


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("sweeps", [1, 10, 100])
def test_gibbs_started_exact_does_not_drift(kind, sweeps):
    density = spread_density(kind)
    v = exact_draws(density, 20_000, 0)
    random = generator(1)
    for _ in range(sweeps):
        v = density.gibbs_step(v, random)
    statistic, mean, deviation = chi_square(density, v, 16)
    assert statistic < mean + 6 * deviation


def test_slabs_of_variance_alpha_are_caught_by_the_drift():
    density = spread_density(BinarySpikeSlabRBM)
    v, random = exact_draws(density, 20_000, 0), generator(1)
    for _ in range(10):
        h, s = density.sample_latents(v, random)
        mean = h * density.slab_mean(v)
        wrong = mean + (s - mean) * density.alpha  # deviation √α where 1/√α is due
        v = density.sample_visible((h, wrong), random)
    statistic, mean, deviation = chi_square(density, v, 16)
    assert statistic > mean + 6 * deviation


def test_context_moves_the_biases_and_nothing_else():
    layer = BinarySpikeSlabRBM(4, 3, context_dim=2).double()
    context = torch.randn(5, 7, 2, dtype=torch.float64, generator=generator(0))
    density = layer(context)
    assert density.batch_shape == (5, 7)
    one = layer(context[2, 3])
    v = torch.ones(4, dtype=torch.float64)
    assert torch.allclose(density.free_energy(v.expand(5, 7, 4))[2, 3], one.free_energy(v))
    assert torch.allclose(density[2, 3].free_energy(v), one.free_energy(v))
    flat = density.flatten()
    assert torch.allclose(flat[2 * 7 + 3].free_energy(v), one.free_energy(v))


def test_context_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="context_dim 0"):
        BernoulliRBM(4, 3)(torch.zeros(2))
    with pytest.raises(ValueError, match="context_dim 2"):
        BernoulliRBM(4, 3, context_dim=2)(None)


def test_independent_bernoulli_sums_to_one_and_samples_its_mean():
    layer = without_gradient(IndependentBernoulli(5, context_dim=2).double())
    density = layer(torch.tensor([0.3, -2.0], dtype=torch.float64))
    assert density.log_prob(exact.all_frames(5)).logsumexp(0) == pytest.approx(0.0, abs=1e-12)
    drawn, p = density.sample((50_000,), generator(0)), density.mean
    assert ((drawn.mean(0) - p).abs() < 5 * (p * (1 - p) / len(drawn)).sqrt()).all()


def test_densities_are_replaced_and_never_changed():
    density = random_density(BernoulliRBM, 3, 2, 0)
    density.annealed(0.5)
    assert density.beta == 1.0
    assert replace(density, beta=0.5).beta == 0.5
