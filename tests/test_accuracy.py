"""Frame accuracy against mir_eval, and the two protocols on a model."""

from __future__ import annotations

import mir_eval
import numpy as np
import pytest
import torch
from densities import generator

from cgrnn.batches import Batches
from cgrnn.models import CGRNN, RNN, NoteRNN
from evaluation.accuracy import (
    accuracies,
    errors,
    frame_accuracy,
    frame_counts,
    measures,
    measures_of,
    note_errors,
    plain,
    stderr_of,
)


def split_of(guess, truth):
    counts = frame_counts("binary", torch.from_numpy(guess), torch.from_numpy(truth))
    return measures_of("binary", {name: count.sum() for name, count in counts.items()})


def test_equals_mir_eval_on_random_rolls():
    random = np.random.default_rng(0)
    pitches = 440.0 * 2 ** (np.arange(6) / 12)
    for _ in range(1000):
        density = random.uniform(0.1, 0.5, size=(2, 1, 1))
        truth, guess = (random.random((2, 5, 6)) < density).astype(float)
        truth[0, 0] = 1.0  # mir_eval has no errors where there is no note
        scores = mir_eval.multipitch.metrics(
            *(part for roll in (truth, guess)
              for part in (np.arange(5) / 4.0, [pitches[frame > 0] for frame in roll])),
        )  # fmt: skip
        accuracy, *wrong = scores[2:7]
        mine = split_of(guess, truth)
        assert float(mine["accuracy"]) == pytest.approx(accuracy)
        assert frame_accuracy(torch.from_numpy(guess), torch.from_numpy(truth)) == pytest.approx(
            accuracy
        )
        split = mine["note_split"]
        found = [float(split[name]) for name in ("misplaced", "missed", "false", "total")]
        assert found == pytest.approx(wrong)


def test_special_cases():
    truth = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert frame_accuracy(truth, truth) == 1.0
    assert frame_accuracy(1 - truth, truth) == 0.0
    assert frame_accuracy(torch.zeros(2, 2), torch.zeros(2, 2)) == 1.0
    assert frame_accuracy(torch.stack([truth, torch.zeros(2, 2)]), truth) == 0.5


def test_silence_and_perfection():
    """Silence against silence is right; errors over no note are not defined."""
    silent, note = np.zeros((3, 2)), np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    perfect = split_of(note, note)
    assert float(perfect["accuracy"]) == float(perfect["accuracy_of_frames"]) == 1.0
    assert set(plain(perfect["note_split"]).values()) == {0.0}
    both = split_of(silent, silent)
    assert float(both["accuracy"]) == float(both["accuracy_of_frames"]) == 1.0
    assert set(plain(split_of(note, silent)["note_split"]).values()) == {None}
    missed = split_of(silent, note)
    assert float(missed["accuracy"]) == 0.0
    assert float(missed["accuracy_of_frames"]) == pytest.approx(1 / 3)  # the silent one
    assert plain(missed["note_split"]) == {"missed": 1, "false": 0, "misplaced": 0, "total": 1}


def test_the_mean_over_frames_weighs_them_alike():
    guess, truth = np.eye(4)[:2], np.array([[1.0, 1.0, 1.0, 1.0], [0.0, 1.0, 0.0, 0.0]])
    found = split_of(guess, truth)
    assert float(found["accuracy"]) == pytest.approx(2 / 5)
    assert float(found["accuracy_of_frames"]) == pytest.approx((1 / 4 + 1) / 2)


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


def test_errors_of_known_noise():
    """Truth of deviation 2 predicted by unit noise: the error has variance 5 in each of 5 units."""
    frames = 2 * np.random.default_rng(0).normal(size=(4000, 5)).astype("f4")
    model = RNN(5, recurrent_dim=3, visible="continuous").eval()
    with torch.no_grad():
        for parameter in model.layer.parameters():
            parameter.zero_()
    found = measures(model, Batches(frames, np.full(40, 100), 8), 2, generator(0))
    chi = 5**0.5 * 2**0.5 * 2 / (3 * np.pi**0.5 / 4)  # √5 E[χ_5] = √5 √2 Γ(3) / Γ(5/2)
    for protocol in ("prediction", "reconstruction"):
        assert found["rmse"][protocol] == pytest.approx(5**0.5, abs=0.05)
        assert found["rmse_of_frames"][protocol] == pytest.approx(chi, abs=0.1)
        assert found["snr_db"][protocol] == pytest.approx(10 * np.log10(4 / 5), abs=0.15)


def test_all_measures_are_over_the_same_draws():
    random = np.random.default_rng(0)
    frames = (random.random((60, 6)) < 0.4).astype(np.uint8)
    model, batches = RNN(6, recurrent_dim=4).eval(), Batches(frames, np.array([20, 40]), 2)
    found = measures(model, batches, 3, generator(0))
    assert found["accuracy"] == accuracies(model, batches, 3, generator(0))
    for split in found["note_split"].values():
        assert split["total"] == pytest.approx(
            split["missed"] + split["false"] + split["misplaced"]
        )
    assert measures(model, batches, 3, generator(1)) != found


def test_note_errors_are_hits_and_distances():
    model = NoteRNN(classes=10, recurrent_dim=3).eval()
    with torch.no_grad():
        model.layer.logits.weight.zero_()
        model.layer.logits.bias.copy_(torch.arange(10) == 4)
    notes = np.array([[4], [4], [7], [1]])
    found = note_errors(model, Batches(notes, np.array([3, 1]), 2))
    assert found["accuracy"] == {"prediction": 0.5, "reconstruction": 0.5}
    assert found["mean_error"] == pytest.approx((3 + 3) / 4)


@pytest.mark.parametrize("kind", ["binary", "continuous", "notes"])
def test_the_error_over_sequences_is_the_jackknife_s(kind):
    random = torch.Generator().manual_seed(0)
    frames = torch.randint(5, 50, (200,), generator=random).double()
    wrong = frames * torch.rand(200, generator=random, dtype=torch.float64)
    sums = {"frames": frames, "right": wrong, "either": frames, "squares": wrong, "cells": frames}
    ratio = (wrong.sum() - wrong) / (frames.sum() - frames)  # without each sequence in turn
    left_out = ratio.sqrt() if kind == "continuous" else ratio
    jackknife = (left_out.var(correction=0) * 199).sqrt()
    assert float(stderr_of(kind, sums)) == pytest.approx(float(jackknife), rel=0.03)
