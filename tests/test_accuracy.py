"""Frame accuracy against mir_eval, and the two protocols on a model."""

from __future__ import annotations

import mir_eval
import numpy as np
import pytest
import torch
from densities import generator

from cgrnn.batches import Batches
from cgrnn.models import CGRNN, RNN, NoteRNN
from evaluation.accuracy import accuracies, errors, frame_accuracy, note_errors


def test_equals_mir_eval_on_random_rolls():
    random = np.random.default_rng(0)
    for _ in range(100):
        truth, guess = (random.random((2, 20, 12)) < random.uniform(0.05, 0.5)).astype(float)
        frequencies = [
            [440.0 * 2 ** (np.flatnonzero(frame) / 12) for frame in roll] for roll in (truth, guess)
        ]
        times = np.arange(20) / 4.0
        scores = mir_eval.multipitch.evaluate(times, frequencies[0], times, frequencies[1])
        mine = frame_accuracy(torch.from_numpy(guess), torch.from_numpy(truth))
        assert mine == pytest.approx(scores["Accuracy"])


def test_special_cases():
    truth = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert frame_accuracy(truth, truth) == 1.0
    assert frame_accuracy(1 - truth, truth) == 0.0
    assert frame_accuracy(torch.zeros(2, 2), torch.zeros(2, 2)) == 1.0
    assert frame_accuracy(torch.stack([truth, torch.zeros(2, 2)]), truth) == 0.5


def test_reconstruction_is_not_prediction():
    random = np.random.default_rng(0)
    frames, lengths = (random.random((60, 6)) < 0.4).astype(np.uint8), np.array([20, 40])
    batches = Batches(frames, lengths, 2)
    rnn = accuracies(RNN(6, recurrent_dim=4), batches, 20, generator(0))
    assert rnn["prediction"] == pytest.approx(rnn["reconstruction"], abs=0.05)
    model = CGRNN(6, 6, 4).eval()
    with torch.no_grad():
        model.layer.W.copy_(10 * torch.eye(6))
        model.layer.visible_bias.fill_(-5.0)
        model.layer.hidden_bias.fill_(-54.0)
    found = accuracies(model, batches, 5, generator(0))
    assert found["reconstruction"] > 0.9
    assert found["prediction"] < 0.6


def test_error_of_draws_from_the_truth_is_the_root_of_two():
    """Unit noise predicted by unit noise: the error has variance two."""
    frames = np.random.default_rng(0).normal(size=(4000, 5)).astype("f4")
    model = RNN(5, recurrent_dim=3, visible="continuous").eval()
    with torch.no_grad():
        for parameter in model.layer.parameters():
            parameter.zero_()
    found = errors(model, Batches(frames, np.full(40, 100), 8), 2, generator(0))
    for value in found.values():
        assert value == pytest.approx(2**0.5, abs=0.03)


def test_note_errors_are_hits_and_distances():
    model = NoteRNN(classes=10, recurrent_dim=3).eval()
    with torch.no_grad():
        model.layer.logits.weight.zero_()
        model.layer.logits.bias.copy_(torch.arange(10) == 4)
    notes = np.array([[4], [4], [7], [1]])
    found = note_errors(model, Batches(notes, np.array([3, 1]), 2))
    assert found["accuracy"] == {"prediction": 0.5, "reconstruction": 0.5}
    assert found["mean_error"] == pytest.approx((3 + 3) / 4)
