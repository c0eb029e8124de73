"""What cheap chains find of a density, and what it proves."""

from __future__ import annotations

import math

import pytest
import torch
from densities import BINARY, CONTINUOUS, LAYERS, generator, random_batch, random_density

from cgrnn.layers import BernoulliRBMDensity, BinarySpikeSlabRBMDensity
from cgrnn.layers.energy import EnergyDensity
from evaluation import exact, modes

ROUNDING = 1e-9


def hidden_mode(units=16, level=-12.0):
    """Sparse frames, and one full mode that holds nearly all the mass."""
    one = torch.ones(1, dtype=torch.float64)
    bias = torch.full((1, units), level, dtype=torch.float64)
    return BinarySpikeSlabRBMDensity(
        torch.ones(units, 1, dtype=torch.float64), bias, 0 * one[None], 1.0, 0.5 * one, one
    )


def test_states_count_once():
    states = torch.randint(0, 2, (200, 7, 4), generator=generator(0)).double()
    found = modes.distinct(states)
    for column in range(7):
        seen = set()
        for row in range(200):
            state = tuple(states[row, column].tolist())
            assert bool(found[row, column]) == (state not in seen)
            seen.add(state)


@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("kind", LAYERS)
def test_what_is_found_is_never_above_the_truth_and_all_of_it_where_states_are_few(kind, scale):
    for seed in range(12):
        density = random_batch(kind, 6, 5, seed, 5, scale)
        truth = exact.log_partition(density)
        found = modes.search(density, 3000, generator(seed))
        assert (found.bound <= truth + ROUNDING).all()
        assert (found.bound > truth - 0.2).all()
        rough = modes.search(density, 60, generator(seed))
        assert (rough.bound <= truth + ROUNDING).all()


def test_counting_states_twice_would_prove_what_is_wrong():
    """The test above must be able to fail: chains come back to the same frames."""
    density = random_batch(BINARY[0], 6, 5, 0, 5)
    truth = exact.log_partition(density)
    frames = density.sample_base((4000,), generator(0))
    assert ((-density.free_energy(frames)).logsumexp(0) > truth + 1).all()
    once = modes.log_sum_of_distinct(-density.free_energy(frames), frames)
    assert (once <= truth + ROUNDING).all()


@pytest.mark.parametrize("kind", LAYERS)
def test_states_are_those_of_their_mass(kind):
    density = random_batch(kind, 6, 5, 3, 4, 2.0)
    found = modes.search(density, 2000, generator(1))
    assert not (found.log_mass.diff(dim=0) > 0).any()  # the best first
    if kind in BINARY:
        kept = found.log_mass.isfinite()
        assert torch.allclose(found.log_mass[kept], -density.free_energy(found.states)[kept])
        assert found.exactly
    else:
        assert (found.log_mass.logsumexp(0) <= found.bound + ROUNDING).all()
        assert not found.exactly


def test_means_of_hidden_states_are_those_of_their_draws():
    for kind in CONTINUOUS:
        density = random_density(kind, 4, 3, 1)
        h = torch.tensor([1.0, 0.0, 1.0]).double()
        draws = density.sample_collapsed(h.expand(40_000, 3), generator(0))
        error = draws.std(0) / 200
        assert ((draws.mean(0) - density.mean_collapsed(h)).abs() < 5 * error).all()


def test_a_mode_of_full_frames_is_found_by_a_handful_of_sweeps():
    density = hidden_mode()
    truth = exact.log_partition(density)
    assert (modes.search(density, 60, generator(0)).bound > truth - 1).all()


def test_a_needle_is_found_where_it_is_pointed_at():
    """Sixty units of one pattern: no chain meets it, but a frame given to begin at does."""
    needle = (torch.arange(60) % 3 == 0).double()
    one = torch.ones(1, 1, dtype=torch.float64)
    weight = (80.0 * (2 * needle - 1))[:, None]
    density = BernoulliRBMDensity(weight, -20 - 20 * needle[None], -30 * one, 1.0)
    alone = modes.search(density, 200, generator(0))
    told = modes.search(density, 200, generator(0), needle[None])
    assert told.bound > alone.bound + 100
    assert torch.equal(told.states[0, 0], needle)


def test_frames_that_other_chains_come_to_count_too():
    density = random_batch(BINARY[1], 6, 5, 0, 3)
    truth = exact.log_partition(density)
    found = modes.search(density, 60, generator(0))
    more = found.with_frames(density, exact.all_frames(6)[:, None].expand(-1, 3, -1))
    assert torch.allclose(more.bound, truth)
    assert (more.bound >= found.bound - ROUNDING).all()


def test_a_density_of_other_frames_is_not_searched():
    class Other(BernoulliRBMDensity):
        frames = None

    density = Other(torch.ones(2, 1), torch.zeros(1, 2), torch.zeros(1, 1), 1.0)
    assert EnergyDensity.frames is None
    assert modes.search(density, 100, generator(0)) is None


def test_each_mode_gets_a_base_of_its_own():
    density = hidden_mode(16, -16.9)
    found = modes.search(density, 2000, generator(0))
    biases = modes.bases(density, found, generator(1))
    assert biases.shape == (modes.MODES, 1, 16)
    on = torch.sigmoid(biases).mean(-1)[:, 0].sort().values
    assert on[0] < 0.1 and on[-1] > 0.9  # one around silence, one around the full frame
    assert ((torch.sigmoid(biases) > 0.04) & (torch.sigmoid(biases) < 0.96)).all()


def test_states_that_are_passed_on_lie_apart():
    density = random_batch(BINARY[0], 12, 6, 0, 9, 3.0)
    found = modes.search(density, 2000, generator(0))
    states = modes.spread(found, 5)
    assert 1 < len(states) <= 5
    distance = torch.cdist(states, states) + 100 * torch.eye(len(states)).double()
    assert distance.min() > 1


def test_the_generator_decides_all():
    density = random_batch(LAYERS[0], 10, 5, 0, 3)
    first, again, other = (modes.search(density, 300, generator(s)).states for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert math.isfinite(float(first.sum()))
