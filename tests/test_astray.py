"""Training says when a mode far from the data has taken over, and when a validation misses one."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from densities import generator

from cgrnn import units
from cgrnn.history import History
from cgrnn.models import CGRNN, RNNSSRBM
from evaluation import ais

DRAW = partial(ais.draw, count=8, levels=100)


def model_with_a_full_mode(kind, depth):
    """Sparse frames as the data, and a mode of full frames `depth` nats deep."""
    model = kind(16, hidden_dim=2, recurrent_dim=3).double().eval()
    with torch.no_grad():
        model.layer.visible_bias.fill_(-4.0)
        model.layer.W.zero_()
        model.layer.W[:, 0] = (2 * (64.0 + depth)) ** 0.5 / 16
        model.layer.mu.zero_()
    return model


def data():
    return (torch.rand(4, 10, 16, generator=generator(0)) < 0.05).double(), torch.full((4,), 10)


@pytest.mark.parametrize("kind", [RNNSSRBM, CGRNN])
def test_a_mode_that_has_taken_over_is_seen_and_one_that_has_not_is_not(kind):
    frames, lengths = data()
    shares = [
        model_with_a_full_mode(kind, depth).astray(frames, lengths, DRAW, generator(1))
        for depth in (-15.0, 15.0)
    ]
    assert shares[0] < 0.1
    assert shares[1] > 0.9


def line(tmp_path, **row):
    history = History(tmp_path / "metrics.csv", print, "estimate")
    common = {"epoch": 3, "seconds": 60.0, "valid_log_likelihood": -5.0}
    history.rows.append({**common, "valid_log_weight_std": 0.4, **row})
    return history._line(units.frame(0.0, 1.0))


def test_the_line_of_a_validation_says_what_it_misses_and_what_to_do(tmp_path):
    sound = line(tmp_path, valid_missed=0.0, valid_astray=0.1)
    assert "WARNING" not in sound and "misses" not in sound
    assert "≤ on 12% of the frames" in line(tmp_path, valid_missed=0.12)
    astray = line(tmp_path, valid_astray=0.97)
    assert "WARNING: 97% of the model's mass" in astray and "--restarts" in astray
