"""Figures hold what they were given, and draw."""

from __future__ import annotations

import numpy as np

from evaluation import figures


def roll():
    notes = np.zeros((8, 88), np.uint8)
    notes[:, 39] = notes[2:4, 46] = 1  # C4 throughout, G4 for a while
    return notes


def test_pianoroll_shows_each_roll_over_its_seconds_and_pitches(tmp_path):
    figure = figures.pianoroll({"one": roll(), "two": roll() * 0.5}, 21, 2.0)
    one, two = figure.axes
    assert (one.get_title(loc="left"), two.get_title(loc="left")) == ("one", "two")
    assert one.images[0].get_extent() == [0, 4.0, 20.5, 108.5]
    low, high = one.get_ylim()
    assert low < 60 < 67 < high < 80
    assert "C4" in [label.get_text() for label in one.get_yticklabels()]
    assert np.array_equal(one.images[0].get_array(), roll().T)
    figure.savefig(tmp_path / "roll.png")


def test_silence_draws():
    figures.pianoroll({"nothing": np.zeros((4, 88))}, 21, 2.0)
    figures.activations(np.zeros((4, 5)), np.zeros((4, 88)), 2.0, "nothing")


def test_curves_show_every_validation():
    rows = [{"epoch": n, "train_loss": 1.0 / n} for n in range(1, 5)]
    rows[1]["valid_log_likelihood"], rows[3]["valid_log_likelihood"] = -9.0, -8.0
    left, right = figures.curves({"run": rows}).axes
    assert left.lines[0].get_xydata().tolist() == [[2, -9.0], [4, -8.0]]
    assert right.lines[0].get_xdata().tolist() == [1, 2, 3, 4]


def test_activations_are_sorted_by_mean_on_a_scale_about_zero():
    features = np.array([[3.0, -1.0, 0.0]] * 6)
    image = figures.activations(features, roll()[:6], 2.0, "units").axes[1].images[0]
    assert image.get_array()[:, 0].tolist() == [-1.0, 0.0, 3.0]
    assert image.norm.vmin == -image.norm.vmax
