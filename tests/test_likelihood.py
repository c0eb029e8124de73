"""The likelihood of a data set against enumeration, with its error, kind and warnings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from densities import generator

from cgrnn.batches import Batches
from cgrnn.models import CGRNN, LGSSM, RNN
from evaluation import exact, likelihood

LENGTHS = np.array([120, 30, 250])


def data():
    random = np.random.default_rng(0)
    return (random.random((400, 8)) < 0.3).astype(np.uint8), LENGTHS


def strong_model(scale):
    model = CGRNN(8, 5, 6, latents="mean").eval().double()
    random = generator(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=scale, generator=random)
    return model


class DoubleBatches(Batches):
    """Batches in the precision of the tests."""

    def __getitem__(self, number):
        batch = super().__getitem__(number)
        return replace(batch, frames=batch.frames.double())


def exact_averages(model, batches):
    scores = torch.cat(
        [
            model.log_likelihood(batch.frames, batch.lengths, exact.log_partition).log_prob
            for batch in batches
        ]
    )
    pieces = scores.split(LENGTHS.tolist())
    return float(scores.mean()), float(torch.stack([piece.mean() for piece in pieces]).mean())


@pytest.mark.parametrize("seed", range(4))
def test_both_averages_are_within_their_error_of_enumeration(seed):
    model, batches = strong_model(0.8), DoubleBatches(*data(), 2)
    per_frame, per_sequence = exact_averages(model, batches)
    found = likelihood.evaluate(model, batches, chains=50, target=0.02, generator=generator(seed))
    assert found.kind == "estimate"
    assert 0 < found.stderr <= 0.02
    assert abs(found.per_frame - per_frame) < 4 * found.stderr + 0.005
    assert abs(found.per_sequence - per_sequence) < 8 * found.stderr + 0.005
    assert not found.warnings
    assert found.frames_estimated < 400
    assert "not the bias of annealing" in found.stderr_covers


def test_all_frames_are_used_when_the_target_asks_for_them():
    model, batches = strong_model(0.8), DoubleBatches(*data(), 2)
    found = likelihood.evaluate(model, batches, 20, 100, 1e-9, generator(0))
    assert found.frames_estimated == 400
    per_frame, _ = exact_averages(model, batches)
    assert abs(found.per_frame - per_frame) < 5 * found.stderr + 0.01


def test_too_short_an_annealing_says_so_and_is_not_above_what_is_proven():
    model, batches = strong_model(1.5), DoubleBatches(*data(), 2)
    short = likelihood.evaluate(model, batches, 5, 4, 0.5, generator(0))
    per_frame, _ = exact_averages(model, batches)
    assert per_frame - 1e-6 < short.proven_at_most < per_frame + 0.5
    assert short.per_frame <= short.proven_at_most + 3 * short.stderr
    assert any("misses modes" in warning for warning in short.warnings)
    longer = likelihood.evaluate(model, batches, 20, None, 0.1, generator(0))
    assert longer.levels > 4
    assert abs(longer.per_frame - per_frame) < 0.2


def test_few_levels_on_large_couplings_are_made_up_for_by_the_modes():
    model, batches = strong_model(3.0), DoubleBatches(*data(), 2)
    found = likelihood.evaluate(model, batches, 20, 10, 1.0, generator(0))
    per_frame, _ = exact_averages(model, batches)
    assert abs(found.per_frame - per_frame) < 5 * found.stderr + 0.1


def test_a_figure_above_what_is_proven_is_not_given():
    found = likelihood.Likelihood(-5.0, -5.1, 0.01, "estimate", "annealing", warnings=["few"])
    assert found.at_most(-4.9, -4.8).per_frame == -5.0
    assert found.at_most(-5.02, -5.0).kind == "estimate"  # within its error
    refuted = found.at_most(-9.0, -9.5)
    assert (refuted.per_frame, refuted.per_sequence) == (-9.0, -9.5)
    assert (refuted.kind, refuted.stderr, refuted.proven_at_most) == ("upper bound", 0.0, -9.0)
    assert "proven wrong" in refuted.warnings[0] and refuted.warnings[1] == "few"


def test_exact_models_say_exact():
    model, batches = RNN(8, recurrent_dim=4).eval(), Batches(*data(), 2)
    found = likelihood.evaluate(model, batches)
    assert (found.kind, found.stderr, found.warnings) == ("exact", 0.0, [])
    scores = torch.cat([model.log_likelihood(b.frames, b.lengths).log_prob for b in batches])
    assert found.per_frame == pytest.approx(float(scores.mean()))


def test_sampled_feedback_is_called_a_lower_bound():
    model = CGRNN(8, 5, 6, latents="sample").eval()
    found = likelihood.evaluate(model, Batches(*data(), 2), 10, 50, 0.5, generator(0))
    assert found.kind == "lower bound"
    assert "log Z and of the draws of the latents; not the gap" in found.stderr_covers


def linear_gaussian(sequences=20):
    """A model whose likelihood is exact, and sequences that it drew."""
    torch.manual_seed(0)
    model = LGSSM(visible_dim=3, latent_dim=2).double().eval()
    frames = model.generate(12, sequences, generator=generator(0)).flatten(0, 1).numpy()
    return model, DoubleBatches(frames, np.full(sequences, 12), 8)


def test_bounds_by_paths_lie_in_order_under_the_exact_likelihood():
    model, batches = linear_gaussian()
    exact_value = likelihood.exactly(model, batches)
    assert (exact_value.kind, exact_value.stderr) == ("exact", 0.0)
    found = likelihood.by_paths(model, batches, 100, "filter", generator(0))
    assert found.kind == "lower bound" and found.paths == 100
    one, many, filtered = found.bounds.values()
    assert one < many < exact_value.per_frame + 4 * found.stderr
    assert filtered == found.per_frame
    assert abs(filtered - exact_value.per_frame) < 0.05 + 4 * found.stderr
    by_paths = likelihood.by_paths(model, batches, 100, "paths", generator(0))
    assert by_paths.per_frame == by_paths.bounds["100 paths"]


def test_the_error_of_a_bound_is_its_spread():
    model, batches = linear_gaussian()
    found = [likelihood.by_paths(model, batches, 5, "paths", generator(n)) for n in range(30)]
    spread = np.std([one.per_frame for one in found], ddof=1)
    claimed = np.mean([one.stderr for one in found])
    assert 0.6 < claimed / spread < 1.6  # thirty of them know their spread to a seventh


def test_the_error_of_a_bound_holds_nothing_of_its_gap():
    """That of one path is about twenty of its standard errors here, and is said to be left out."""
    model, batches = linear_gaussian(200)
    truth = likelihood.exactly(model, batches)
    found = likelihood.by_paths(model, batches, 1, "paths", generator(0))
    assert truth.per_frame - found.per_frame > 10 * found.stderr
    assert "not the gap" in found.stderr_covers
    assert truth.stderr_covers == "nothing to cover: the figure is exact"


def test_given_frames_count_in_neither_average():
    model, batches = linear_gaussian()
    model.given_frames = 3
    found = likelihood.exactly(model, batches)
    scores = torch.cat([model.filtered(batch.frames).log_prob[:, 3:] for batch in batches])
    assert found.per_frame == pytest.approx(float(scores.mean()))
    assert not found.first_frame_scored
