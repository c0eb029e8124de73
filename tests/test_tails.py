"""The tail of weights against laws of known shape."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from densities import generator
from scipy import stats

from evaluation.result import LogPartition
from evaluation.tails import tail_index


def pareto(shape, count, batch, seed):
    """Log-weights whose weights follow a generalised Pareto law of that shape."""
    draws = stats.genpareto.rvs(
        shape, size=(count, batch), random_state=np.random.default_rng(seed)
    )
    return torch.from_numpy(draws).log()


@pytest.mark.parametrize("shape", [0.1, 0.5, 0.9, 1.5])
def test_the_shape_of_a_pareto_law_is_found(shape):
    found = tail_index(pareto(shape, 40_000, 20, 0))
    # 600 largest weights: the error of a shape k is (1 + k)/√600, and the prior's pull (½ - k)/61.
    error = (1 + shape) / math.sqrt(600 * 20)
    assert abs(float(found.mean()) - shape - (0.5 - shape) / 61) < 5 * error


def test_it_agrees_with_another_fit_of_the_same_excesses():
    log_weights = pareto(0.7, 10_000, 1, 3)
    weights = log_weights[:, 0].exp().sort().values
    shape, _, _ = stats.genpareto.fit((weights[-300:] - weights[-301]).numpy(), floc=0)
    assert float(tail_index(log_weights)) == pytest.approx(shape, abs=0.05)


def test_scale_and_order_do_not_matter():
    log_weights = pareto(0.8, 500, 3, 1)
    found = tail_index(log_weights)
    assert torch.allclose(tail_index(log_weights + 700), found)
    assert torch.allclose(tail_index(log_weights.flip(0)), found)


def test_weights_without_a_tail_have_none():
    assert torch.equal(tail_index(torch.zeros(100, 2)), torch.zeros(2))
    assert torch.equal(tail_index(torch.randn(30, 2, generator=generator(0))), torch.zeros(2))
    uniform = torch.rand(5000, 4, generator=generator(0), dtype=torch.float64).log()
    assert (tail_index(uniform) < 0.1).all()


def test_weights_whose_mean_says_nothing_are_flagged_and_others_are_not():
    """Chains of annealing have log-normal weights: a deviation of a half is sound."""
    heavy = LogPartition.from_log_weights(pareto(2.0, 1000, 200, 0))
    assert heavy.collapsed.double().mean() > 0.95
    noise = torch.randn(100, 4000, generator=generator(1), dtype=torch.float64)
    sound = LogPartition.from_log_weights(0.5 * noise)
    assert sound.collapsed.double().mean() < 0.002
