"""The mean of many partition functions against enumeration, with its error and its cost."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from densities import generator, random_layer, without_gradient

from cgrnn.layers import BinarySpikeSlabRBM, BinarySpikeSlabRBMDensity
from evaluation import ais, exact, mean_partition, stages
from evaluation.blocks import Blocks
from evaluation.mean_partition import MeanLogPartition
from evaluation.walks import plan

FRAMES = 600


def densities(scale, frames=FRAMES):
    """A batch whose biases differ as under a context."""
    layer = random_layer(BinarySpikeSlabRBM, 8, 5, 3, scale)
    context = without_gradient(BinarySpikeSlabRBM(8, 5, context_dim=4).double())
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            context.get_parameter(name).copy_(parameter)
        for linear in (context.context_to_visible, context.context_to_hidden):
            linear.weight.normal_(std=0.5, generator=generator(0))
    return context(torch.randn(frames, 4, dtype=torch.float64, generator=generator(1)))


def share_of(frames):
    """Sequences of growing lengths, so that the two averages differ."""
    weight = torch.arange(1, frames + 1).double().rsqrt()
    return weight / weight.sum()


def mean_of(density, target, seed, chains=20, levels=None):
    share = share_of(density.batch_shape[0])
    return MeanLogPartition(density, share, chains, levels, target, Blocks(seed))


def test_the_target_is_met_at_a_fraction_of_the_work():
    density = densities(1.0)
    found = mean_of(density, 0.01, 0)
    truth = exact.log_partition(density)
    assert 0 < found.stderr <= 0.01
    assert abs(found.per_frame - float(truth.mean())) < 4 * found.stderr
    assert abs(found.per_sequence - float((share_of(FRAMES) * truth).sum())) < 8 * found.stderr
    assert found.chain_levels < FRAMES * 100 * 1000 / 5
    assert len(found.long) < FRAMES
    assert found.warnings() == []


def test_the_standard_errors_are_those_of_repetitions():
    """Both averages; the second has half of its weight on a tenth of the frames."""
    density = densities(1.0, frames=300)
    log_z = exact.log_partition(density)
    share = torch.cat([torch.full((30,), 0.5 / 30), torch.full((270,), 0.5 / 270)]).double()
    off = []
    for seed in range(12):
        found = MeanLogPartition(density, share, 10, 100, 0.03, Blocks(seed))
        weighted = found.per_sequence - float((share * log_z).sum())
        pair = (
            (found.per_frame - float(log_z.mean())) / found.stderr,
            weighted / found.per_sequence_stderr,
        )
        off.append(pair)
    for square in torch.tensor(off).square().mean(0).tolist():
        assert 0.5 < math.sqrt(square) < 1.7  # chi of 12 repetitions: beyond three deviations


def test_few_chains_are_corrected_for_the_log_of_a_mean():
    """With four chains `log Ẑ` is low by about half its squared error, which is added back."""
    density = densities(1.0)
    found = mean_of(density, 1e-9, 0, chains=4, levels=60)
    truth = float(exact.log_partition(density).mean())
    assert len(found.long) == FRAMES
    bias = 0.5 * float(found.annealed.noise.mean())
    assert bias > 3 * found.stderr  # else this test could not tell
    assert abs(found.per_frame - truth) < abs(found.per_frame - bias - truth)


def test_reverse_annealing_agrees_where_chains_mix():
    gap, error = mean_of(densities(0.7), 0.05, 0).reverse_gap
    assert -4 * error < gap < 0.1 + 4 * error


def hidden_mode(frames):
    """All mass in a mode of full frames, where chains from sparse frames never go."""
    one = torch.ones(frames, 1, dtype=torch.float64)
    return BinarySpikeSlabRBMDensity(
        torch.ones(16, 1, dtype=torch.float64), -12 * one.expand(frames, 16), 0 * one, 1.0,
        one[0] / 2, one[0],
    )  # fmt: skip


def test_a_mode_far_from_the_base_is_met_by_both_directions():
    density = hidden_mode(60)
    found = MeanLogPartition(density, share_of(60), 20, 200, 0.1, Blocks(0))
    truth = exact.log_partition(density)
    assert abs(found.per_frame - float(truth.mean())) < 4 * found.stderr + 0.01
    assert abs(found.reverse_gap.mean) < 4 * found.reverse_gap.error + 0.1
    assert (found.bound <= truth + 1e-9).all() and (found.bound > truth - 1).all()


def test_an_estimate_that_is_proven_wrong_gives_way_and_says_so(monkeypatch):
    """Chains that cannot go to the mode: what the search proves stands in their place."""
    monkeypatch.setattr(ais, "_ENOUGH", 1000)  # no annealing from the modes
    monkeypatch.setattr(
        ais, "plan", lambda *args: [replace(walk, path="annealed") for walk in plan(*args)]
    )
    density = hidden_mode(60)
    found = MeanLogPartition(density, share_of(60), 20, 200, 0.1, Blocks(0))
    truth = float(exact.log_partition(density).mean())
    assert truth - 1 < found.per_frame <= truth
    assert found.annealed.missed.all()
    assert any("misses modes on 100.0% of the frames" in text for text in found.warnings())


def test_levels_that_still_move_the_mean_say_so():
    found = mean_of(densities(0.7, frames=60), 0.1, 0, levels=100)
    assert not any("too few" in text for text in found.warnings())
    found.drift = mean_partition.Gap(0.3, 0.01)
    assert any("100 levels are too few" in text for text in found.warnings())


def test_a_pilot_that_found_more_is_not_forgotten():
    def estimates(*log_z):
        log_z = torch.tensor(log_z, dtype=torch.float64)
        none = torch.full_like(log_z, 0.01)
        return stages.Annealed(log_z, none, none, none - math.inf, none > 1)

    pilots = [stages.Pilot(250, estimates(*log_z)) for log_z in ((0, 9.0, 0), (0, 0, 0.5))]
    forgotten = stages.forgotten(pilots, estimates(0, 0, 0, 7))
    assert forgotten.mean == pytest.approx(9.0) and forgotten.error == pytest.approx(1 / 3)
    assert stages.forgotten(pilots[1:], estimates(0, 0, 0)) == (0.0, 0.0)


def test_small_blocks_are_as_good(monkeypatch):
    monkeypatch.setitem(mean_partition._BLOCK, "cpu", 60_000)
    monkeypatch.setattr(mean_partition, "REVERSE_SWEEPS", 100)
    density = densities(1.0, frames=150)
    stages = []
    blocks = Blocks(0, progress=lambda done, total, name: stages.append((name, done, total)))
    found = MeanLogPartition(density, share_of(150), 10, 100, 0.03, blocks)
    assert abs(found.per_frame - float(exact.log_partition(density).mean())) < 4 * found.stderr
    # What is told on the way ends with all of each stage, and all stages are all the work.
    ends = {name: (done, total) for name, done, total in stages}
    assert all(done == total for done, total in ends.values())
    assert sum(total for _, total in ends.values()) == found.chain_levels
    assert len(stages) > 2 * len(ends)


@pytest.mark.parametrize("frames", [1, 3])
def test_a_handful_of_frames_is_no_special_case(frames):
    density = densities(0.5, frames)
    found = mean_of(density, 0.05, 0, levels=200)
    assert abs(found.per_frame - float(exact.log_partition(density).mean())) < 0.2
