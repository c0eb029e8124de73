"""The floors against counts made by hand and another library."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from evaluation import floors

SHARED = Path(__file__).resolve().parents[2] / "shared/data/pianorolls/JSB_Chorales.mat"


def test_markov_chain_by_hand():
    train = [np.array([[1], [1], [0]]), np.array([[0], [1]])]
    test = [np.array([[0]]), np.array([[1], [1]])]
    # Starts: on, off -> P(on) = 2/4. From on: on, off -> 2/4. From off: on -> 2/3.
    start, stay = math.log(0.5), math.log(0.5)
    found = floors.markov(train, test)
    assert found.per_frame == pytest.approx((start + start + stay) / 3)
    assert found.per_sequence == pytest.approx((start + (start + stay) / 2) / 2)


def test_all_sequences_under_a_floor_sum_to_one():
    random = np.random.default_rng(0)
    train = (random.random((40, 2)) < 0.3).astype(np.uint8)
    states = np.array(np.meshgrid(*[[0, 1]] * 6)).reshape(6, -1).T.reshape(-1, 3, 2)
    for floor in (floors.independent, floors.markov):
        total = sum(
            math.exp(3 * floor([train[:25], train[25:]], [roll]).per_frame) for roll in states
        )
        assert total == pytest.approx(1.0)


def test_frames_that_are_told_are_not_scored():
    train = [np.array([[1], [1], [0]]), np.array([[0], [1]])]
    stay = floors.markov(train, [np.array([[0]]), np.array([[1], [1]])], given=1)
    assert stay.per_frame == stay.per_sequence == pytest.approx(math.log(0.5))
    alone = floors.independent(train, [np.array([[0], [1]])], given=1)
    assert alone.per_frame == pytest.approx(math.log(4 / 7))


def test_a_silent_key_stays_possible():
    silent, loud = np.zeros((5, 3), np.uint8), np.ones((2, 3), np.uint8)
    for floor in (floors.independent, floors.markov):
        assert math.isfinite(floor([silent], [loud]).per_frame)


@pytest.mark.skipif(not SHARED.exists(), reason="the standard piano-rolls are not beside the clone")
def test_known_floor_of_jsb():
    from data_prep.pianorolls import load

    splits = {name: [roll for _, roll in rolls] for name, rolls in load(SHARED).items()}
    arrays = splits["train"], splits["test"]
    assert floors.independent(*arrays).per_frame == pytest.approx(-11.06, abs=0.01)
    assert floors.markov(*arrays).per_frame == pytest.approx(-10.47, abs=0.05)
