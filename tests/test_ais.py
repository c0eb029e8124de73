"""Annealed importance sampling against enumeration, at many levels and at few, up and down."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from densities import (
    GAUSSIAN_SPIKE_SLAB,
    LAYERS,
    SpectralSpikeSlabRBM,
    errors_off,
    generator,
    random_batch,
    random_density,
    random_layer,
)

from cgrnn.layers import BernoulliRBM, BinarySpikeSlabRBMDensity
from evaluation import ais, cells, exact
from evaluation.result import LogPartition
from samplers import fused

SCHEDULES = ("adaptive", "linear", "sigmoid")


@cache
def accuracy(kind):
    """Errors and standard errors of 60 densities of weights N(0, 1), by 200 chains × 1000."""
    errors, stderrs = [], []
    for seed in range(10):
        density = random_batch(kind, 5, 4, seed, count=6)
        estimate = ais.log_partition(density, chains=200, levels=1000, generator=generator(seed))
        errors.append(estimate.log_z - exact.log_partition(density))
        stderrs.append(estimate.stderr)
    return torch.cat(errors), torch.cat(stderrs)


@pytest.mark.parametrize("kind", LAYERS)
def test_the_mean_error_over_sixty_densities_is_below_a_hundredth(kind):
    errors, stderrs = accuracy(kind)
    assert errors.mean().abs() < 0.01
    assert stderrs.median() < 0.03


def test_intervals_of_95_percent_cover_the_exact_value_in_90_percent():
    covered = [(errors / stderrs).abs() < 1.96 for errors, stderrs in map(accuracy, LAYERS)]
    assert torch.cat(covered).double().mean() >= 0.9


def gentle_batch(kind, seed, count=4):
    """Densities near enough to their base for the weights of few levels to have a variance.

    Where spikes widen the density, a base that is too narrow gives weights without one.
    """
    density = random_batch(kind, 6, 4, seed, count, scale=0.5)
    return density.annealed(0.5) if kind is SpectralSpikeSlabRBM else density


def bias_in_errors(log_weights, log_z):
    """Of the mean of `w / Z` from one: small for a right estimator at any levels."""
    ratio = (log_weights - log_z).exp()
    return (ratio.mean(0) - 1) / (ratio.std(0) / math.sqrt(len(ratio)))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("levels", [1, 2, 5])
@pytest.mark.parametrize("kind", LAYERS)
def test_weights_of_either_path_are_unbiased_at_few_levels(kind, levels, schedule):
    density = gentle_batch(kind, levels)
    truth = exact.log_partition(density)
    how = {"schedule": schedule, "collapsed": False, "generator": generator(levels)}
    log_weights = ais.log_partition(density, 40_000, levels, **how).log_weights
    for path in log_weights.split(20_000):
        assert bias_in_errors(path, truth).abs().max() < 5


@pytest.mark.parametrize("levels", [2, 5])
@pytest.mark.parametrize("kind", GAUSSIAN_SPIKE_SLAB)
def test_weights_of_collapsed_sweeps_are_unbiased_at_few_levels(kind, levels):
    density = gentle_batch(kind, levels)
    truth = exact.log_partition(density)
    estimate = ais.log_partition(density, 10_000, levels, generator(0), collapsed=True)
    for path in estimate.log_weights.split(5_000):
        assert bias_in_errors(path, truth).abs().max() < 5


@pytest.mark.parametrize("levels", [1, 2, 5])
@pytest.mark.parametrize(
    ("kind", "collapsed"),
    [(kind, False) for kind in LAYERS] + [(kind, True) for kind in GAUSSIAN_SPIKE_SLAB],
)
def test_reverse_weights_from_exact_draws_are_unbiased_for_the_inverse(kind, levels, collapsed):
    density = gentle_batch(kind, levels).annealed(0.5)
    truth = exact.log_partition(density)
    draws = exact.sample(density, 5_000 if collapsed else 20_000, generator(0))
    how = {"schedule": "linear", "collapsed": collapsed, "generator": generator(1)}
    estimate = ais.reverse_log_partition(density, draws, levels, **how)
    assert estimate.kind == "upper bound"
    for path in (-estimate.log_weights).split(len(draws) // 2):
        assert bias_in_errors(path, -truth).abs().max() < 5


def plainly(density, path, chains, levels, seed, swapped=False):
    """Annealing once more as the formula reads; `swapped` moves before it weights."""
    at, random = getattr(density, path), generator(seed)
    v = at(0.0).sample_base((chains,), random)
    log_weights = at(0.0).base_log_partition().expand(chains, -1).clone()
    for level in range(1, levels + 1):
        before, after = at((level - 1) / levels), at(level / levels)
        if swapped:
            v = after.gibbs_step(v, random)
        log_weights += before.free_energy(v) - after.free_energy(v)
        if not swapped:
            v = after.gibbs_step(v, random)
    return log_weights


@pytest.mark.parametrize("path", ["annealed", "tempered"])
@pytest.mark.parametrize("kind", LAYERS)
def test_moving_before_weighting_is_caught(kind, path):
    density = gentle_batch(kind, 1)
    truth = exact.log_partition(density)
    assert bias_in_errors(plainly(density, path, 50_000, 3, 0), truth).abs().max() < 5
    swapped = plainly(density, path, 50_000, 3, 0, swapped=True)
    assert bias_in_errors(swapped, truth).min() > 12


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kind", LAYERS)
def test_either_path_by_any_schedule_is_right_within_its_error(kind, schedule):
    density = random_batch(kind, 6, 4, 2, count=8, scale=0.7)
    truth = exact.log_partition(density)
    estimate = ais.log_partition(density, 400, 200, generator(3), schedule)
    for path in estimate.log_weights.split(200):
        alone = LogPartition.from_log_weights(path)
        assert ((alone.log_z - truth).abs() < 5 * alone.stderr).all()
    assert ((estimate.log_z - truth).abs() < 5 * estimate.stderr).all()


@pytest.mark.parametrize("kind", GAUSSIAN_SPIKE_SLAB)
def test_collapsed_sweeps_are_right_and_spread_no_more_than_plain_ones(kind):
    density = random_batch(kind, 6, 4, 2, count=8)
    truth, spread = exact.log_partition(density), {}
    for collapsed in (False, True):
        estimate = ais.log_partition(density, 200, 200, generator(1), collapsed=collapsed)
        assert ((estimate.log_z - truth).abs() < 5 * estimate.stderr).all()
        spread[collapsed] = estimate.log_weights.std(0).mean()
    assert spread[True] < 1.1 * spread[False]


def test_collapsed_sweeps_are_the_default_where_the_factor_costs_little():
    density = random_batch(SpectralSpikeSlabRBM, 6, 4, 0, count=1)
    log_z = {
        collapsed: ais.log_partition(density, 10, 10, generator(0), "linear", collapsed).log_z
        for collapsed in (None, False, True)
    }
    assert torch.equal(log_z[None], log_z[True]) and not torch.equal(log_z[None], log_z[False])


@pytest.mark.parametrize("path", [0, 1])
@pytest.mark.parametrize("kind", LAYERS)
def test_independent_units_are_exact_with_one_level(kind, path):
    density = random_density(kind, 8, 5, 0)
    density = density.tempered(0.0) if path else density.annealed(0.0)
    truth = exact.log_partition(density)
    up = ais.log_partition(density, chains=7, levels=1, generator=generator(0))
    draws = exact.sample(density, 7, generator(1))
    down = ais.reverse_log_partition(density, draws, levels=1, generator=generator(0))
    for estimate in (up, down):
        assert torch.allclose(estimate.log_weights[:4], truth)  # the path that keeps the biases
        if path:  # the other goes to no biases, where this density is already
            assert torch.allclose(estimate.log_weights, truth)
            assert float(estimate.stderr) == pytest.approx(0.0, abs=1e-7)
            assert float(estimate.ess) == pytest.approx(7.0)


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
    assert abs(estimate.log_z - truth) < 6 * estimate.stderr
    assert estimate.stderr < 0.1
    one_path = LogPartition.from_log_weights(estimate.log_weights[:50])
    assert one_path.log_z < truth - 20  # the chains agree with each other, and are wrong
    assert one_path.ess > 40


@pytest.mark.parametrize("chains", [2, 3, 4, 8])
@pytest.mark.parametrize("kind", LAYERS)
def test_forward_and_reverse_bracket_the_truth_on_average(kind, chains):
    """Five levels over a thousand densities: the bias of a few chains shows, and its side."""
    below, above = [], []
    for seed in range(20):
        density = random_batch(kind, 6, 4, seed, count=50, scale=2.0)
        truth = exact.log_partition(density)
        draws = exact.sample(density, chains, generator(seed))
        lower, upper = ais.bracket(density, draws, chains, 5, generator(seed), "linear")
        assert (lower.kind, upper.kind) == ("estimate", "upper bound")
        below.append(lower.log_z - truth)
        above.append(upper.log_z - truth)
    for side, gap in ((-1, torch.cat(below)), (1, torch.cat(above))):
        assert side * gap.mean() > 3 * gap.std() / math.sqrt(len(gap))


@pytest.mark.parametrize("kind", LAYERS)
def test_more_chains_and_levels_close_the_bracket(kind):
    density = random_batch(kind, 5, 4, 1, count=5, scale=0.7)
    gaps = []
    for chains, levels in ((10, 5), (400, 200)):
        draws = exact.sample(density, chains, generator(0))
        lower, upper = ais.bracket(density, draws, chains, levels, generator(1))
        gaps.append((upper.log_z - lower.log_z).abs())
    assert (gaps[1] < 5 * torch.hypot(lower.stderr, upper.stderr)).all()
    assert gaps[1].mean() < gaps[0].mean()


def test_reverse_annealing_from_draws_of_another_density_gives_way_to_what_is_proven():
    """Draws without the mode leave the weights too low; the mode is found, and proves it."""
    density = hidden_mode()
    silence = torch.zeros(100, 16, dtype=torch.float64)
    upper = ais.reverse_log_partition(density, silence, 100, generator(0), "linear")
    truth = exact.log_partition(density)
    assert upper.log_weights.max() < truth - 20
    assert upper.collapsed and not upper.stderr.isfinite()
    assert truth - 5 < upper.log_z <= truth
    assert upper.log_z == upper.bound


def test_a_batch_has_the_estimates_of_its_members():
    layer = random_layer(LAYERS[1], 6, 4, 1, scale=0.7, context=3)
    density = layer(torch.randn(3, 5, 3, dtype=torch.float64, generator=generator(0)))
    estimate = ais.log_partition(density, chains=500, levels=200, generator=generator(2))
    assert estimate.log_weights.shape == (500, 3, 5)
    assert estimate.log_z.shape == estimate.ess.shape == estimate.stderr.shape == (3, 5)
    error = (estimate.log_z - exact.log_partition(density)) / estimate.stderr
    assert error.abs().max() < 5
    draws = exact.sample(density, 500, generator(3))
    reverse = ais.reverse_log_partition(density, draws, 200, generator(4))
    assert reverse.log_weights.shape == (500, 3, 5)
    error = (reverse.log_z - exact.log_partition(density)) / reverse.stderr
    assert error.abs().max() < 5


@pytest.fixture
def threads():
    """Set the number of threads; it is put back afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def tensors():
    """Without the compiled kernel: cells are of what torch does."""
    with fused.disabled():
        yield


@pytest.mark.usefixtures("tensors")
@pytest.mark.parametrize("chains", [1, 7, 50])
@pytest.mark.parametrize("rows", [1, 3, 16, 1000])
def test_threads_do_not_change_the_numbers_whatever_the_cells(rows, chains, threads, monkeypatch):
    monkeypatch.setitem(cells._BYTES, "cpu", rows * 6 * 8)
    density = random_batch(BernoulliRBM, 6, 4, 0, count=5)
    draws = exact.sample(density, chains, generator(0))
    ups, downs = [], []
    for count in (1, 2):
        threads(count)
        ups.append(ais.log_partition(density, chains, 4, generator(3)))
        downs.append(ais.reverse_log_partition(density, draws, 4, generator(3)))
        assert torch.get_num_threads() == count
    for one, two in (ups, downs):
        assert one.log_weights.shape == (chains, 5)
        assert torch.equal(one.log_weights, two.log_weights)
        assert torch.equal(one.log_z, two.log_z)


@pytest.mark.usefixtures("tensors")
@pytest.mark.parametrize("rows", [1, 7, 64, 100_000])
def test_cells_of_any_size_leave_the_weights_right(rows, monkeypatch):
    """More chains than a cell has rows, odd numbers of them, and all in one cell."""
    monkeypatch.setitem(cells._BYTES, "cpu", rows * 6 * 8)
    density = gentle_batch(BernoulliRBM, 0, count=3)
    truth = exact.log_partition(density)
    estimate = ais.log_partition(density, 301, 2, generator(0), "linear")
    assert bias_in_errors(estimate.log_weights, truth).abs().max() < 5
    assert len(estimate.log_weights.unique(dim=0)) > 250  # no chain is another's copy
    draws = exact.sample(density, 301, generator(1))
    reverse = ais.reverse_log_partition(density, draws, 2, generator(0), "linear")
    assert bias_in_errors(-reverse.log_weights, -truth).abs().max() < 5


@pytest.mark.parametrize("compiled", [True, False])
def test_each_reverse_chain_starts_at_its_own_draw(compiled, monkeypatch):
    """With one level a weight depends on the draw alone: cells must not mix them up."""
    monkeypatch.setitem(cells._BYTES, "cpu", 4 * 6 * 8)
    monkeypatch.setattr(fused, "_enabled", compiled)
    density = random_batch(BernoulliRBM, 6, 4, 0, count=3)
    draws = exact.sample(density, 21, generator(0))
    found = ais.reverse_log_partition(density, draws, 1, generator(1), "linear").log_weights
    paths = zip((density.annealed(0.0), density.tempered(0.0)), draws.split(11), strict=True)
    expected = torch.cat(
        [
            base.base_log_partition() + base.free_energy(v) - density.free_energy(v)
            for base, v in paths
        ]
    )
    assert torch.allclose(found, expected)


@pytest.mark.parametrize("chains", [1, 2, 3])
def test_the_fewest_chains_are_unbiased(chains):
    density = random_batch(BernoulliRBM, 6, 4, 0, count=1, scale=0.5)
    many = density[torch.zeros(3000, dtype=torch.long)]
    truth = exact.log_partition(density)
    estimate = ais.log_partition(many, chains, 5, generator(0))
    assert estimate.log_weights.shape == (chains, 3000)
    assert errors_off((estimate.log_weights - truth).exp().mean(0)[:, None], 1.0) < 5


def test_progress_tells_every_chain_level_once():
    done = []
    density = random_batch(BernoulliRBM, 6, 4, 0, count=5)
    ais.log_partition(density, 7, 11, generator(0), progress=done.append)
    assert sum(done) == 7 * 11 * 5


def test_the_generator_decides_all():
    density = random_batch(BernoulliRBM, 6, 4, 0, count=5)
    first, again, other = (ais.log_partition(density, 8, 9, generator(s)).log_z for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_float32_densities_are_summed_in_double_precision():
    layer = random_layer(BernoulliRBM, 6, 4, 0, scale=0.7).float()
    estimate = ais.log_partition(layer(None), 200, 500, generator(0))
    assert estimate.log_weights.dtype == estimate.log_z.dtype == torch.float64
    error = estimate.log_z - exact.log_partition(layer(None))
    assert abs(error) < 5 * estimate.stderr + 1e-4


def test_nonsense_is_refused():
    density = random_density(BernoulliRBM, 3, 2, 0)
    draws = torch.zeros(4, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match="chains must be at least 1, got 0"):
        ais.log_partition(density, chains=0)
    with pytest.raises(ValueError, match="levels must be at least 1, got 0"):
        ais.log_partition(density, levels=0)
    with pytest.raises(ValueError, match="levels must be at least 1, got 0"):
        ais.reverse_log_partition(density, draws, levels=0)
    with pytest.raises(ValueError, match="adaptive, linear, sigmoid, got 'even'"):
        ais.log_partition(density, schedule="even")
    with pytest.raises(ValueError, match="BernoulliRBMDensity has no slabs to integrate out"):
        ais.log_partition(density, collapsed=True)
    for wrong in (draws[:0], draws[:, :2], draws[:, None]):
        with pytest.raises(ValueError, match=r"samples: expected draws of shape \(n, 3\)"):
            ais.reverse_log_partition(density, wrong)
