"""Parallel tempering against enumeration, and where plain Gibbs sampling stays stuck."""

from __future__ import annotations

import math

import pytest
import torch
from densities import BINARY, CONTINUOUS, LAYERS, generator, random_density, random_layer
from scipy.stats import chi2, ks_2samp

from cgrnn.layers import BernoulliRBMDensity, BinarySpikeSlabRBMDensity, GaussianRBMDensity
from evaluation import exact
from samplers import Replicas, chain, diagnose, parallel_tempering, tempering, watch

BETAS = (0.0, 0.3, 0.55, 0.8, 1.0)
# Seed and scale of densities that swap, and on which the wrong swap rules below show.
TELLING = dict(zip(LAYERS, ((0, 2.0), (5, 1.5), (3, 1.5), (6, 1.5), (1, 1.5)), strict=True))


def telling_density(kind):
    return random_density(kind, 6, 4, *TELLING[kind])


def exact_replicas(ladder, chains, random):
    """Replicas that start from exact draws of their own densities."""
    frames = torch.stack([exact.sample(density, chains, random) for density in ladder])
    return Replicas(BETAS, frames, torch.zeros(len(ladder), chains, dtype=torch.bool))


def surprise(kind, density, v):
    """`-log10` of the probability that exact draws lie as far from their density as `v` does.

    The distance is chi-square over all binary frames, Kolmogorov-Smirnov of the free energy for
    continuous ones.
    """
    if kind in CONTINUOUS:
        fresh = density.free_energy(exact.sample(density, len(v), generator(99)))
        return -math.log10(max(ks_2samp(density.free_energy(v), fresh).pvalue, 1e-300))
    places = (v * 2.0 ** torch.arange(v.shape[-1])).sum(-1).long()
    expected = exact.log_masses(density)[1].softmax(0) * len(v)
    counts = torch.bincount(places, minlength=len(expected)).double()
    common = expected >= 10  # the rare frames make one cell
    expected = torch.cat([expected[common], expected[~common].sum()[None]])
    counts = torch.cat([counts[common], counts[~common].sum()[None]])
    filled = expected > 0
    distance = ((counts - expected).square() / expected)[filled].sum()
    return -chi2.logsf(float(distance), int(filled.sum()) - 1) / math.log(10)


def surprises(kind, path, rounds):
    """Of every replica, started exactly, after each of some numbers of rounds."""
    ladder, random, found = [path(beta) for beta in BETAS], generator(0), []
    replicas = exact_replicas(ladder, 6_000, random)
    for number in range(1, max(rounds) + 1):
        replicas, _, _ = tempering.step(ladder, replicas, random)
        if number in rounds:
            pairs = zip(ladder, replicas.frames, strict=True)
            found += [surprise(kind, density, v) for density, v in pairs]
    return torch.tensor(found)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("path", ["annealed", "tempered"])
def test_exact_replicas_stay_exact(kind, path):
    density = telling_density(kind)
    assert surprises(kind, getattr(density, path), (1, 10, 100)).max() < 7


RIGHT = tempering.swap_log_ratio


def wrong_sign(densities, frames, projected):
    return -RIGHT(densities, frames, projected)


def always(densities, frames, projected):
    return RIGHT(densities, frames, projected).abs()


def of_the_colder_alone(densities, frames, projected):
    return densities[1].free_energy(frames[1], projected[1]) - densities[1].free_energy(
        frames[0], projected[0]
    )


@pytest.mark.parametrize("rule", [wrong_sign, always, of_the_colder_alone])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_wrong_swap_rule_is_caught(kind, rule, monkeypatch):
    monkeypatch.setattr(tempering, "swap_log_ratio", rule)
    density = telling_density(kind)
    assert surprises(kind, density.annealed, (1, 10)).max() > 15


@pytest.mark.parametrize("kind", BINARY)
def test_acceptance_is_that_of_the_enumerated_densities(kind):
    density = random_density(kind, 5, 3, 1, scale=1.5)
    ladder, random = [density.annealed(beta) for beta in BETAS], generator(0)
    replicas = exact_replicas(ladder, 20_000, random)
    energies = [density.free_energy(exact.all_frames(5)) for density in ladder]
    for pairs in ((0, 2), (1, 3)):
        replicas, offered, _ = tempering.step(ladder, replicas, random)
        for low, found in zip(pairs, offered, strict=True):
            p, q = (torch.softmax(-energy, 0) for energy in energies[low : low + 2])
            step = energies[low] - energies[low + 1]
            wanted = float(p @ (step[:, None] - step).exp().clamp(max=1) @ q)
            error = float(found.std()) / math.sqrt(len(found))
            assert abs(float(found.mean()) - wanted) < 5 * error


def binary_modes():
    """The first 8 units of 16 on, or the last 8: masses 0.2 and 0.8, and nothing between them."""
    couplings = torch.full((16, 2), -4.0).double()
    couplings[:8, 0] = couplings[8:, 1] = 4.0
    bias = torch.tensor([0.0, math.log(4.0)]).double()
    lesser = (torch.arange(16) < 8).double()
    return BernoulliRBMDensity(couplings, 0 * lesser, bias, 1.0), lesser


def continuous_modes():
    """Unit Gaussians at (-6, -6) and (6, 6), masses 0.2 and 0.8."""
    couplings = torch.tensor([[-6.0, 6.0], [-6.0, 6.0]]).double()
    bias = torch.tensor([0.0, math.log(4.0)]).double()
    zero, one = torch.zeros(2).double(), torch.ones(2).double()
    return GaussianRBMDensity(couplings, zero, bias, 1.0, one), -6 * one


@pytest.mark.parametrize("modes", [binary_modes, continuous_modes])
def test_modes_between_which_gibbs_is_stuck_get_their_masses(modes):
    density, lesser = modes()
    chains = 100

    def greater(v):
        return (density.hidden_logits(v).diff()[..., 0] > 0).double()

    many = exact.sample(density, 100_000, generator(0))
    assert float(greater(many).mean()) == pytest.approx(0.8, abs=0.01)
    starts = lesser.expand(chains, -1)
    assert float(greater(chain(density, starts, 300, generator(1))).max()) == 0.0  # none crosses
    stuck = watch(density, many[:20], 300, generator(2), statistics={"mode": greater})
    assert "20 of 20 chains never moved" in stuck.warning()

    everywhere = starts.expand(11, chains, -1)
    replicas = Replicas(tempering.EVEN, everywhere, torch.zeros(11, chains, dtype=torch.bool))
    run = parallel_tempering(density.annealed, replicas, 1200, generator(3), greater)
    error = math.sqrt(0.8 * 0.2 / chains)
    assert abs(float(greater(run.frames).mean()) - 0.8) < 5 * error
    traced = diagnose(run.trace[200:])
    assert traced.mixed and abs(float(traced.mean) - 0.8) < 5 * float(traced.stderr)
    assert run.round_trips.double().mean() > 30


def test_a_mode_that_the_biases_hide_needs_the_path_that_shrinks_them():
    """Nearly all of `Z` is one full frame, which `annealed` meets only at `beta` near 1."""
    one = torch.ones(1, dtype=torch.float64)
    weight, bias = torch.ones(16, 1, dtype=torch.float64), torch.full((16,), -12.0).double()
    density = BinarySpikeSlabRBMDensity(weight, bias, 0 * one, 1.0, 0.5 * one, one)
    assert float(exact.sample(density, 1000, generator(0)).mean()) > 0.99

    def active(path):
        replicas = tempering.start(path, (30,), generator=generator(1))
        return parallel_tempering(path, replicas, 300, generator(2), lambda v: v.mean(-1))

    missed, found = active(density.annealed), active(density.tempered)
    assert float(found.trace[-1].min()) > 0.8
    # What the docstring warns of: the other run looks perfect, and is all wrong.
    assert float(missed.trace.max()) < 0.5 and float(missed.acceptance.min()) > 0.99
    assert float(missed.round_trips.double().mean()) > 50


def literal_round_trips(count, rounds):
    """Walkers on a ladder where each swap is accepted, followed one by one."""
    walkers, risen, trips = list(range(count)), {0}, 0
    for number in range(rounds):
        for low in range(number % 2, count - 1, 2):
            walkers[low], walkers[low + 1] = walkers[low + 1], walkers[low]
        if walkers[-1] in risen:
            risen.remove(walkers[-1])
            trips += 1
        risen.add(walkers[0])
    return trips


@pytest.mark.parametrize("count", [2, 3, 6])
def test_round_trips_on_a_ladder_without_a_barrier(count):
    density = random_density(LAYERS[1], 4, 3, 0)
    betas = [k / (count - 1) for k in range(count)]
    replicas = tempering.start(lambda beta: density, (5,), betas, generator(0))
    run = parallel_tempering(lambda beta: density, replicas, 37, generator(1))
    assert run.acceptance.tolist() == [1.0] * (count - 1) and float(run.barrier) == 0.0
    assert run.round_trips.tolist() == [literal_round_trips(count, 37)] * 5


def test_refused_swaps_leave_every_replica_in_its_place(monkeypatch):
    monkeypatch.setattr(tempering, "swap_log_ratio", lambda *a: RIGHT(*a) - torch.inf)
    density = random_density(LAYERS[0], 4, 3, 0)
    replicas = tempering.start(density.annealed, (5,), BETAS, generator(0))
    run = parallel_tempering(density.annealed, replicas, 10, generator(1))
    assert float(run.acceptance.max()) == 0.0 and run.round_trips.sum() == 0
    random, frames = generator(1), replicas.frames
    for _ in range(10):
        for _ in range(2):  # the swaps' draws
            torch.empty(5, dtype=torch.float64).uniform_(generator=random)
        pairs = zip(BETAS, frames, strict=True)
        frames = torch.stack([density.annealed(b).gibbs_step(v, random) for b, v in pairs])
    assert torch.equal(run.replicas.frames, frames)


@pytest.mark.parametrize("kind", LAYERS)
def test_every_density_of_a_batch_is_sampled(kind):
    layer = random_layer(kind, 5, 3, 2, context=3)
    density = layer(torch.randn(2, 3, 3, dtype=torch.float64, generator=generator(0)))
    replicas = tempering.start(density.annealed, (500, 2), BETAS, generator(1))
    run = parallel_tempering(density.annealed, replicas, 60, generator(2), density.free_energy)
    assert run.frames.shape == (500, 2, 2, 3, 5)
    assert run.acceptance.shape == (4, 2, 3) and run.barrier.shape == (2, 3)
    assert run.round_trips.shape == (500, 2, 2, 3) and run.trace.shape == (60, 500, 2, 2, 3)
    drawn, wanted = run.frames.flatten(0, 1), exact.sample(density, 10_000, generator(3))
    error = (wanted.var(0) * (1 / len(drawn) + 1 / len(wanted))).sqrt()
    rare = 5 / len(drawn)  # units that are hardly ever on come by the piece
    assert ((drawn.mean(0) - wanted.mean(0)).abs() < 5 * error + rare).all()


def test_a_run_goes_on_where_another_ended():
    density = random_density(LAYERS[1], 5, 3, 1)
    replicas = tempering.start(density.tempered, (20,), BETAS, generator(0))
    whole = parallel_tempering(density.tempered, replicas, 11, generator(1), density.free_energy)
    random = generator(1)
    half = parallel_tempering(density.tempered, replicas, 5, random, density.free_energy)
    rest = parallel_tempering(density.tempered, half.replicas, 6, random, density.free_energy)
    assert torch.equal(whole.frames, rest.frames)
    assert torch.equal(whole.trace, torch.cat([half.trace, rest.trace]))
    assert torch.equal(whole.round_trips, half.round_trips + rest.round_trips)
    assert rest.replicas.rounds == 11


def test_tuned_swaps_are_refused_equally_often():
    density = random_density(LAYERS[1], 12, 8, 5, scale=1.0)
    replicas = tempering.start(density.annealed, (500,), (0.0, 0.05, 0.1, 0.9, 1.0), generator(0))
    before = parallel_tempering(density.annealed, replicas, 100, generator(1)).acceptance
    tuned = tempering.tune(density.annealed, replicas, 400, generator(2))
    after = parallel_tempering(density.annealed, tuned, 100, generator(3))
    assert float(before.max() - before.min()) > 0.5
    assert float(after.acceptance.max() - after.acceptance.min()) < 0.1
    assert (tuned.betas[0], tuned.betas[-1]) == (0.0, 1.0)


def test_a_ladder_without_a_barrier_is_left_as_it_is():
    density = random_density(LAYERS[0], 4, 3, 0)
    betas = (0.0, 0.2, 0.7, 1.0)
    replicas = tempering.start(lambda beta: density, (3,), betas, generator(0))
    assert tempering.tune(lambda beta: density, replicas, 16).betas == pytest.approx(betas)


@pytest.mark.parametrize(
    "betas", [(1.0,), (0.0, 0.5), (0.0, 0.5, 0.5, 1.0), (-0.1, 1.0), (1.0, 0.0)]
)
def test_ladders_that_do_not_rise_to_the_target_are_refused(betas):
    density = random_density(LAYERS[0], 4, 3, 0)
    with pytest.raises(ValueError, match="betas must rise"):
        tempering.start(density.annealed, (3,), betas)


def test_nonsense_is_refused():
    density = random_density(LAYERS[0], 4, 3, 0)
    replicas = tempering.start(density.annealed, (3,))
    with pytest.raises(ValueError, match="at least 2"):
        parallel_tempering(density.annealed, replicas, 1)
    with pytest.raises(ValueError, match="11 betas but frames of 10 replicas"):
        Replicas(replicas.betas, replicas.frames[1:], replicas.from_base[1:])
