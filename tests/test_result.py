"""How log-weights become an estimate, its error and its effective sample size."""

from __future__ import annotations

import math

import pytest
import torch
from densities import generator

from evaluation.result import LogPartition


def log_normal(count, batch, deviation, seed):
    """Log-weights whose exponentials have mean 1, `(count, batch)`."""
    noise = torch.randn(count, batch, dtype=torch.float64, generator=generator(seed))
    return deviation * noise - 0.5 * deviation**2


def test_one_group_has_the_mean_of_its_weights_the_error_of_the_mean_and_its_effective_number():
    log_weights = log_normal(30, 5, 1.0, 0)
    weights, estimate = log_weights.exp(), LogPartition.from_log_weights(log_weights)
    assert torch.allclose(estimate.log_z, weights.mean(0).log())
    relative = weights.std(0) / math.sqrt(30) / weights.mean(0)
    assert torch.allclose(estimate.stderr, relative)
    assert torch.allclose(estimate.ess, weights.sum(0) ** 2 / (weights**2).sum(0))
    assert torch.equal(estimate.log_weights, log_weights)


def test_groups_count_with_their_shares():
    groups, shares = [log_normal(40, 5, 0.5, 0), log_normal(20, 5, 0.9, 1)], [0.7, 0.3]
    estimate = LogPartition.from_groups(groups, shares)
    means = torch.stack([group.exp().mean(0) for group in groups])
    share = torch.tensor(shares, dtype=torch.float64)[:, None] * means
    share, z = share / share.sum(0), share.sum(0)
    assert torch.allclose(estimate.log_z, z.log())
    alone = [LogPartition.from_log_weights(group) for group in groups]
    errors = torch.stack([part.stderr for part in alone])
    assert torch.allclose(estimate.stderr, (share * errors).norm(dim=0))
    ess = torch.stack([part.ess for part in alone])
    assert torch.allclose(estimate.ess, 1 / (share**2 / ess).sum(0))
    assert torch.equal(estimate.log_weights, torch.cat(groups))


def test_equal_weights_in_groups_are_as_many_as_they_are():
    groups = [log_normal(30, 1, 0.0, 0), log_normal(10, 1, 0.0, 0)]
    estimate = LogPartition.from_groups(groups, [0.75, 0.25])
    assert float(estimate.ess) == pytest.approx(40.0)
    assert float(estimate.log_z) == pytest.approx(0.0, abs=1e-6)
    assert float(estimate.stderr) == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize("counts", [(100, 100), (60, 20), (50, 1)])
def test_the_standard_error_is_the_spread_of_repetitions(counts):
    groups = [log_normal(counts[0], 4000, 0.4, 0), log_normal(counts[1], 4000, 0.8, 1)]
    estimate = LogPartition.from_groups(groups, [0.8, 0.2])
    spread = float(estimate.log_z.std())
    assert float(estimate.stderr.square().mean().sqrt()) == pytest.approx(spread, rel=0.08)
    assert float(estimate.log_z.exp().mean()) == pytest.approx(1.0, abs=6 * spread / 4000**0.5)
    covered = ((estimate.log_z / estimate.stderr).abs() < 1.96).double().mean()
    assert 0.92 < float(covered) < 0.97


def test_a_group_that_missed_a_mode_is_left_out_where_it_missed_it():
    first, second = log_normal(50, 3, 0.5, 0), log_normal(50, 3, 0.5, 1)
    second[:, 1] -= 30.0  # the second path misses what the first finds, for one density of three
    first[:, 2] -= 30.0
    estimate = LogPartition.from_groups([first, second], [0.9, 0.1])
    together = LogPartition.from_groups([first[:, :1], second[:, :1]], [0.9, 0.1])
    alone = [LogPartition.from_log_weights(x) for x in (first[:, 1:2], second[:, 2:])]
    for name in ("log_z", "stderr", "ess"):
        expected = torch.cat([getattr(part, name) for part in (together, *alone)])
        assert torch.allclose(getattr(estimate, name), expected)


def test_groups_that_agree_are_both_kept():
    """Leaving out by chance would bias the estimate upwards; it must be rare."""
    groups = [log_normal(50, 4000, 0.5, 0), log_normal(50, 4000, 0.5, 1)]
    estimate = LogPartition.from_groups(groups, [0.5, 0.5])
    plain = torch.cat(groups).logsumexp(0) - math.log(100)
    assert float(((estimate.log_z - plain).abs() > 1e-9).double().mean()) < 0.005


@pytest.mark.parametrize("count", [1, 2, 3, 5, 10, 50])
@pytest.mark.parametrize("deviation", [0.1, 1.0, 2.0])
def test_the_estimate_is_low_on_average_however_few_the_weights(count, deviation):
    """As the mean of a logarithm is, in spite of the groups that are left out."""
    groups = [log_normal(count, 20_000, deviation, seed) for seed in (1, 2)]
    log_z = LogPartition.from_groups(groups, [0.5, 0.5]).log_z
    assert float(log_z.mean()) < 3 * float(log_z.std()) / math.sqrt(20_000)


def test_one_weight_tells_no_error():
    estimate = LogPartition.from_log_weights(torch.zeros(1, 2))
    assert torch.equal(estimate.log_z, torch.zeros(2))
    assert not estimate.stderr.isfinite().any()


def test_weights_of_any_size_are_combined():
    groups = [log_normal(20, 4, 1.0, 0), log_normal(20, 4, 1.0, 1)]
    near = LogPartition.from_groups(groups, [0.5, 0.5])
    for offset in (-1e5, 1e5):
        far = LogPartition.from_groups([group + offset for group in groups], [0.5, 0.5])
        assert torch.allclose(far.log_z - offset, near.log_z, atol=1e-9)
        assert torch.allclose(far.stderr, near.stderr) and torch.allclose(far.ess, near.ess)


@pytest.mark.parametrize("count", [10, 20, 100, 1000])
def test_an_estimate_carried_by_one_weight_has_collapsed_and_one_by_all_has_not(count):
    log_weights = torch.zeros(count, 2)
    log_weights[0, 0] = 50.0
    assert LogPartition.from_log_weights(log_weights).collapsed.tolist() == [True, False]


def test_the_kind_is_passed_on():
    assert LogPartition.from_log_weights(torch.zeros(3)).kind == "estimate"
    assert LogPartition.from_log_weights(torch.zeros(3), "lower bound").kind == "lower bound"
    groups = [torch.zeros(3), torch.zeros(2)]
    assert LogPartition.from_groups(groups, [0.5, 0.5], "exact").kind == "exact"
