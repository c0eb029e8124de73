"""Regions of a density: their masses against enumeration, and what they find missing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from densities import BINARY, LAYERS, generator, random_batch, random_density

from cgrnn.layers import BernoulliRBM, BinarySpikeSlabRBM
from evaluation import ais, exact, modes
from evaluation.regions import Regions, _unless_by_chance, judge, masses
from evaluation.result import LogPartition
from evaluation.walks import Walk

BETAS = [0.0, 0.3, 0.6, 1.0]


def walks(chains):
    return [Walk(path, BETAS, False, chains, 0.5) for path in ("annealed", "tempered")]


def prepared(kind, seed, count=4, scale=0.6, chains=20_000):
    """Densities, their regions, and chains of few levels from each base."""
    density, random = random_batch(kind, 6, 4, seed, count, scale), generator(seed)
    found = modes.search(density, 500, random)
    biases = modes.bases(density, found, random)
    paths = walks(chains)
    around = Regions.around(density, paths, biases)
    weighed = [walk.up(density, chains, random) for walk in paths]
    of_modes = [paths[1].up(density, chains, random, bias) for bias in biases]
    return density, around, paths, weighed, of_modes


@pytest.mark.parametrize("kind", LAYERS)
def test_shares_of_all_regions_sum_to_one(kind):
    _, around, _, weighed, _ = prepared(kind, 0, chains=50)
    total = around.log_shares(weighed[0].frames).logsumexp(0)
    assert torch.allclose(total, torch.zeros_like(total), atol=1e-9)


@pytest.mark.parametrize("kind", LAYERS)
def test_bases_are_normalised(kind):
    _, around, *_ = prepared(kind, 1, chains=10)
    for base in around.bases:
        assert torch.allclose(exact.log_partition(base), base.base_log_partition().double())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", BINARY)
def test_every_base_estimates_every_region_without_bias(kind, seed):
    """Each `w r_m` against `Σ_v exp(-F(v)) r_m(v)`, whichever base the chains come from."""
    density, around, _, weighed, of_modes = prepared(kind, seed)
    frames = exact.all_frames(6)[:, None].expand(-1, 4, -1)
    true = (-density.free_energy(frames) + around.log_shares(frames)).logsumexp(1)
    for one in (*weighed, *of_modes):
        parts = (one.log_weights + around.log_shares(one.frames) - true[:, None]).exp()
        error = parts.std(1) / math.sqrt(parts.shape[1])
        trusted = parts.mean(1) ** 2 / (parts**2).mean(1) > 0.01  # enough chains come there
        off = ((parts.mean(1) - 1) / error)[trusted]
        assert trusted.double().mean() > 0.3
        assert off.abs().max() < 5


@pytest.mark.parametrize("kind", LAYERS)
def test_regions_add_up_to_the_whole(kind):
    density, around, paths, weighed, of_modes = prepared(kind, 5, chains=4000)
    truth = exact.log_partition(density)
    total = masses(around, paths, weighed, of_modes).total(weighed[0].log_weights)
    assert ((total.log_z - truth).abs() < 5 * total.stderr + 0.02).all()


def test_a_region_counted_twice_is_caught():
    """Without the shares each mode counts all of `Z`, and the sum is far off."""
    density, _, _, _, of_modes = prepared(BernoulliRBM, 5, chains=4000)
    truth = exact.log_partition(density)
    whole = torch.stack([one.log_weights for one in of_modes]).logsumexp((0, 1)) - math.log(4000)
    assert (whole > truth + 1).all()


def frustrated(kind, seed):
    """Couplings ±(2 to 4) with biases that balance them: several modes far apart."""
    density, random = random_density(kind, 14, 6, seed), np.random.default_rng(seed)
    W = random.choice([-1, 1], (14, 6)) * random.uniform(2, 4, (14, 6))
    fields = {
        "weight": W,
        "visible_bias": -W.sum(1) / 2 + random.normal(0, 0.3, 14),
        "hidden_bias": -W.sum(0) / 2 + random.normal(0, 0.3, 6),
    }
    tensors = {name: torch.from_numpy(value) for name, value in fields.items()}
    return type(density)(**{**vars(density), **tensors})


@pytest.mark.parametrize("kind", [BernoulliRBM, BinarySpikeSlabRBM])
def test_modes_far_apart_are_all_counted_or_said_to_be_missed(kind):
    missed = []
    for seed in range(10):
        density = frustrated(kind, seed)
        truth = exact.log_partition(density)
        found = ais.log_partition(density, 100, 500, generator(seed))
        assert found.bound <= truth + 1e-9
        off = (found.log_z - truth).abs()
        missed.append(bool(found.collapsed))
        assert missed[-1] or off < 5 * found.stderr + 0.01
    assert sum(missed) <= 2


def test_what_is_found_beyond_an_estimate_is_a_reason_and_a_miss():
    density = random_batch(BernoulliRBM, 6, 4, 0, 1)
    truth = exact.log_partition(density)
    found = modes.search(density, 20, generator(0)).with_frames(
        density, exact.all_frames(6)[:, None]
    )

    def verdict(off, chains=100, stderr=0.01):
        error = torch.full_like(truth, stderr)
        estimate = LogPartition(truth + off, error, error + chains, "estimate", truth[None])
        return judge(found, estimate, chains)

    assert verdict(-1.0).missed and verdict(-1.0).reason
    assert verdict(-0.05).reason and not verdict(-0.05).missed  # by chance so few leave that out
    assert verdict(-0.05).stderr > 0.02
    assert not verdict(0.0).reason and not verdict(0.5).reason
    assert not verdict(-0.3, chains=2).missed


def test_few_chains_from_elsewhere_do_not_outvote_a_modes_own():
    """One weight of a hundred that is nine times too high is chance; all of them are not."""
    own, luck = torch.zeros(50, 1).double(), torch.full((50, 1), -20.0).double()
    luck[0] = math.log(50) + 2.2
    assert (_unless_by_chance(luck, own) < -1000).all()
    sure = torch.full((50, 1), 2.2).double()
    assert torch.equal(_unless_by_chance(sure, own), sure)
    luck[0] = math.log(50) + 6.0
    assert torch.equal(_unless_by_chance(luck, own), luck)


def test_draws_are_spread_over_modes_as_the_mass_is():
    """Two modes without a way between them, of known masses."""
    W = torch.tensor([[8.0], [8.0], [8.0], [8.0], [8.0], [8.0]]).double()
    one = torch.ones(1, dtype=torch.float64)
    density = BernoulliRBM(6, 1)(None)
    density = type(density)(W, -4.0 * one.expand(6) - 0.08, 0 * one - 24.0 + 0.2, 1.0)
    share = float((exact.log_masses(density)[1][exact.all_frames(6).sum(1) > 3]).logsumexp(0).exp())
    share /= float(exact.log_partition(density).exp())
    assert 0.1 < share < 0.9
    drawn = ais.draw(density, 4000, 100, generator(0))
    found = float((drawn.sum(-1) > 3).double().mean())
    assert abs(found - share) < 5 * math.sqrt(share * (1 - share) / 1000)
