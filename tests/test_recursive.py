"""Predictions k steps ahead on models whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from densities import generator

from cgrnn.batches import Batches
from cgrnn.models import RNN, NoteRNN
from cgrnn.models.sequence import SequenceModel
from evaluation.accuracy import measures
from evaluation.recursive import SPACING, starts, steps_ahead


class Copier(SequenceModel):
    """Knows that its frames come again after a period, and errs in none."""

    name, kinds, period = "copier", ("binary",), 3

    def __init__(self, units: int) -> None:
        super().__init__(units, "binary")
        self.layer = torch.nn.Linear(1, 1)

    def generate(self, frames_to_make, batch=1, prime=None, generator=None):
        made = prime
        for _ in range(frames_to_make):
            made = torch.cat([made, made[:, -self.period, None]], 1)
        return made

    likelihood_kind = loss = scores = walk = predict = reconstruct = features = None


def periodic(lengths):
    roll = np.eye(3, dtype=np.uint8)[np.arange(200) % 3]
    return np.concatenate([roll[:length] for length in lengths]), np.array(lengths)


def constant(probability, continuous=False):
    """A network that does not look at the past."""
    kind = "continuous" if continuous else "binary"
    model = RNN(len(probability), recurrent_dim=3, visible=kind).eval()
    with torch.no_grad():
        for parameter in model.layer.parameters():
            parameter.zero_()
        if not continuous:
            model.layer.visible_bias.copy_(torch.logit(probability))
    return model


def test_a_copier_scores_one_at_every_step():
    batches = Batches(*periodic([60, 20, 5, 47]), 2)
    model = Copier(3)
    model.given_frames = 3
    found = steps_ahead(model, batches, 32)
    assert found.steps.tolist() == list(range(1, 33))
    assert found.measures["accuracy"].tolist() == [1.0] * 32
    assert not found.stderr.any()
    Copier.period = 2
    wrong = steps_ahead(model, batches, 4)
    Copier.period = 3
    assert wrong.measures["accuracy"][0] == 0.0


def test_what_is_compared_is_what_is_there():
    """Sequences of 5 and 20 frames, told 1 or 17: so many frames lie 1, 2, … after a start."""
    found = steps_ahead(constant(torch.full((3,), 0.3)), Batches(*periodic([5, 20]), 2), 32)
    expected = [sum(n + k <= length for length, n in ((5, 1), (20, 1), (20, 17))) for k in
                range(1, 20)]  # fmt: skip
    assert found.frames.tolist() == expected
    assert list(starts(1, 20)) == [1, 1 + SPACING]


def test_frames_without_time_give_a_flat_curve_that_agrees_with_prediction():
    random = np.random.default_rng(0)
    p = torch.tensor([0.2, 0.5, 0.4, 0.1])
    frames = (random.random((400 * 24, 4)) < p.numpy()).astype(np.uint8)
    batches, model = Batches(frames, np.full(400, 24), 200), constant(p)
    found = steps_ahead(model, batches, 12, generator(0))
    accuracy = found.measures["accuracy"]
    oracle = float((p * p).sum() / (2 * p - p * p).sum())
    z = (accuracy - oracle) / found.stderr
    assert z.square().mean().sqrt() < 2  # of twelve: beyond four deviations
    assert z.abs().max() < 4.5
    prediction = measures(model, batches, 5, generator(1))["accuracy"]["prediction"]
    assert abs(accuracy[0] - prediction) < 5 * found.stderr[0]


def test_the_error_is_the_spread_over_data_sets():
    p, scores, claimed = torch.tensor([0.3, 0.5]), [], []
    for seed in range(40):
        random = np.random.default_rng(seed)
        frames = (random.random((30 * 20, 2)) < p.numpy()).astype(np.uint8)
        batches = Batches(frames, np.full(30, 20), 30)
        found = steps_ahead(constant(p), batches, 1, generator(seed))
        scores.append(float(found.measures["accuracy"][0]))
        claimed.append(float(found.stderr[0]))
    assert 0.6 < np.mean(claimed) / np.std(scores, ddof=1) < 1.6  # known to a ninth


def test_continuous_frames_have_their_error():
    frames = np.random.default_rng(0).normal(size=(100 * 20, 3)).astype("f4")
    batches = Batches(frames, np.full(100, 20), 50)
    found = steps_ahead(constant(torch.zeros(3), continuous=True), batches, 4, generator(0))
    z = (found.measures["rmse"] - 2**0.5) / found.stderr
    assert z.abs().max() < 4.5
    assert 0.01 < found.stderr[0] < 0.1


def test_notes_are_right_or_wrong():
    model = NoteRNN(classes=5, recurrent_dim=3).eval()
    with torch.no_grad():
        model.layer.logits.weight.zero_()
        model.layer.logits.bias.copy_(100 * (torch.arange(5) == 4))
    notes = np.array([[4], [4], [1], [4]])
    found = steps_ahead(model, Batches(notes, np.array([4]), 2), 32, generator(0))
    assert found.plain() == {
        "steps": [1, 2, 3], "accuracy": [1.0, 0.0, 1.0], "stderr": [None] * 3, "frames": [1] * 3,
    }  # fmt: skip


def test_later_frames_change_nothing_that_was_drawn():
    """With the same seed, the model makes the same of the first frames whatever follows."""
    random = np.random.default_rng(0)
    frames = (random.random((40, 4)) < 0.4).astype(np.uint8)
    model, made = RNN(4, recurrent_dim=5).eval(), []
    generate = model.generate

    def watched(*arguments):
        made.append(generate(*arguments))
        return made[-1]

    model.generate = watched
    first = steps_ahead(model, Batches(frames, np.array([40]), 1), 8, generator(0))
    assert len(made) == 3  # told 1, 17 and 33 frames
    later = frames.copy()
    later[33:] = 1 - later[33:]
    second = steps_ahead(model, Batches(later, np.array([40]), 1), 8, generator(0))
    assert all(one.equal(two) for one, two in zip(made[:3], made[3:], strict=True))
    assert first.measures["accuracy"][0] != second.measures["accuracy"][0]


def test_padding_is_not_seen():
    """A short sequence beside a long one gives what it gives by itself."""
    frames, lengths = periodic([33, 7])
    copier = Copier(3)
    copier.given_frames = 3
    alone = steps_ahead(copier, Batches(frames[33:], lengths[1:], 1), 8)
    beside = steps_ahead(copier, Batches(frames, lengths, 2), 8)
    longer = steps_ahead(copier, Batches(frames[:33], lengths[:1], 1), 8)
    reached = len(alone.frames)
    assert beside.frames[:reached].equal(alone.frames + longer.frames[:reached])
    assert beside.measures["accuracy"].eq(1).all()


def test_no_sequence_is_long_enough():
    found = steps_ahead(constant(torch.full((3,), 0.5)), Batches(*periodic([1, 1]), 2))
    assert found.plain() == {"steps": [], "stderr": [], "frames": []}
    with pytest.raises(ValueError, match="horizon must be at least 1, got 0"):
        steps_ahead(constant(torch.full((3,), 0.5)), Batches(*periodic([9]), 2), 0)
