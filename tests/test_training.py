"""What training does beyond its loss: chains, schedule, time, the frames it watches."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch

from cgrnn.models import CGRNN, RNN
from cgrnn.settings import TrainingOptions
from cgrnn.training import Training, fit, marginals
from evaluation import ais

HEAD = {"format": 0}


def arrays(sequences=40, seed=0):
    """Sequences in which every key but the outer ones repeats its last state nine times in ten."""
    random = np.random.default_rng(seed)
    rolls = []
    for _ in range(sequences):
        roll = np.zeros((20, 8), np.uint8)
        roll[0, 2:6] = random.random(4) < 0.5
        for n in range(1, 20):
            roll[n, 2:6] = np.where(random.random(4) < 0.9, roll[n - 1, 2:6], 1 - roll[n - 1, 2:6])
        rolls.append(roll)
    return np.concatenate(rolls), np.full(sequences, 20)


def training(model, **options):
    given = {"batch_size": 4, "valid_levels": 20, "valid_chains": 5, "valid_frames": 30} | options
    estimate = partial(ais.log_partition, chains=given["valid_chains"], levels=20)
    settings = TrainingOptions(**given)
    return Training(model, arrays(), arrays(4, seed=1), settings, estimate, HEAD)


@pytest.mark.parametrize("kind", [CGRNN, RNN])
def test_training_learns_what_the_past_tells(tmp_path, kind):
    torch.manual_seed(0)
    model = kind(visible_dim=8, recurrent_dim=16, dropout=0.0)
    model.set_marginals(marginals([arrays()[0]]))
    lines = []
    task = training(model, max_epochs=40, validate_every=20, learning_rate=0.02, transpose=0)
    result = fit(task, tmp_path, False, lines.append, progress=False)
    # Independent keys cost 4 log 2 = 2.77 nats a frame; the true chain costs 1.30, its start 2.77.
    assert -1.9 < result["valid"] < -1.2
    assert result["epochs"] == 40
    assert len(lines) == 2
    assert (tmp_path / "checkpoints/best.ckpt").is_file()
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 41


def test_persistent_chains_keep_to_their_own_frames_in_every_key():
    """With no sweeps the chains must stay as they were, however the sequences are moved."""
    model = CGRNN(visible_dim=8, recurrent_dim=4, hidden_dim=3, cd_steps=0, restarts=0.0)
    task = training(model, persistent=True, transpose=2)
    task.log = lambda *args, **kwargs: None
    before = task.chains.clone()
    batches = list(task._batches(epoch=0))
    assert any(batch.shifts.any() for batch in batches)
    for index, batch in enumerate(batches):
        task.training_step(batch, index)
    assert torch.equal(task.chains, before)
    model.cd_steps = 1
    task.training_step(batches[0], 0)
    rows = batches[0].rows
    changed = (task.chains != before).any(-1)
    assert changed.any()
    assert not changed[~torch.isin(torch.arange(len(changed)), rows)].any()


def test_rate_falls_from_one_to_a_twentieth_over_the_epochs():
    task = training(RNN(visible_dim=8, recurrent_dim=4), max_epochs=10)
    rates = [task._rate(step) for step in range(101)]  # ten steps an epoch
    assert rates[0] == pytest.approx(1.0)
    assert rates[50] == pytest.approx(0.05 + 0.95 * 0.5)
    assert rates[100] == pytest.approx(0.05)
    assert all(after < before for before, after in pairwise(rates))


class Clock:
    """Goes on by what is done, however long that takes."""

    now = 0.0

    def monotonic(self):
        return self.now


def test_training_ends_in_its_minutes_with_a_validation(tmp_path, monkeypatch):
    clock = Clock()

    class Slow(RNN):
        def loss(self, *given, **named):
            clock.now += 0.1
            return super().loss(*given, **named)

        def scores(self, *given):
            clock.now += 2.0
            return super().scores(*given)

    monkeypatch.setattr("cgrnn.training.time", clock)
    task = training(Slow(visible_dim=8, recurrent_dim=4), max_epochs=100_000, max_minutes=0.5)
    result = fit(task, tmp_path, False, lambda line: None, progress=False)
    assert 29 < clock.now <= 30  # one validation after 20 epochs of ten steps, and one at the end
    assert result["seconds"] == pytest.approx(clock.now, abs=0.06)
    assert math.isfinite(result["valid"])


def test_silent_keys_keep_finite_odds():
    frequency = marginals([np.zeros((10, 3), np.uint8)])
    assert torch.isfinite(torch.logit(frequency)).all()


def test_a_model_without_chains_has_none_to_keep():
    with pytest.raises(ValueError, match="persistent: model 'rnn'"):
        training(RNN(visible_dim=8, recurrent_dim=4), persistent=True)
