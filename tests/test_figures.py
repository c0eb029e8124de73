"""Figures hold what they were given, label it, and can be read in print."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from evaluation import figures
from evaluation.figures import Track
from evaluation.figures.filters import peak_frequencies
from evaluation.figures.reconstruction import spectrogram
from evaluation.figures.style import COLOURS

RANDOM = np.random.default_rng(0)


def roll() -> np.ndarray:
    notes = np.zeros((8, 88), np.uint8)
    notes[:, 39] = notes[2:4, 46] = 1  # C4 throughout, G4 for a while
    return notes


def music(frames: np.ndarray | None = None) -> Track:
    attributes = {"kind": "binary", "frame_rate": 2.0, "lowest_pitch": 21}
    return Track.of(roll() if frames is None else frames, attributes)


def audio(frames: int = 40) -> Track:
    """A tone of 1 kHz at 8 kHz."""
    wave = np.sin(2 * np.pi * 1000 * np.arange(frames * 50) / 8000)
    return Track.of(wave.reshape(frames, 50), {"kind": "continuous", "sample_rate": 8000})


def words() -> Track:
    attributes = {"kind": "continuous", "frame_rate": 1.0, "frame_unit": "word"}
    return Track.of(RANDOM.normal(size=(8, 4)), attributes)


def notes() -> Track:
    return Track.of(np.arange(8)[:, None], {"kind": "notes", "frame_unit": "note"})


def image(axis: Axes) -> np.ndarray:
    return np.asarray(axis.images[0].get_array())


def matrices(count: int) -> np.ndarray:
    root = RANDOM.normal(size=(count, 50, 60))
    return root @ root.transpose(0, 2, 1)


def every_figure() -> Iterator[tuple[str, Figure]]:
    """One of each, and those of a sequence for each sort of frames."""
    yield "pianoroll", figures.pianoroll({"one": roll(), "two": roll() * 0.5}, 21, 2.0, 4)
    yield "filters", figures.filters(RANDOM.normal(size=(88, 7)), music())
    for track in (words(), notes()):
        features = {"one": RANDOM.normal(size=(8, 5)), "two": RANDOM.normal(size=(8, 3))}
        yield f"activations of {track.kind}", figures.activations(features, track)
    values, error = RANDOM.normal(size=8), np.full(8, 0.5)
    parts: Any = (values, error, values, values, error)
    yield "energy", figures.energy(music(), *parts, kind="estimate", note="how it was found")
    for track in (audio(), words()):
        pair = {"truth": track, "prediction": track.holding(0.5 * track.frames)}
        yield f"reconstruction {track.sample_rate}", figures.reconstruction(pair)
    two = {"first": matrices(2), "second": matrices(2)}
    yield "precision", figures.precision(two, two, [0, 39], audio(), "note")
    rows = [{"epoch": n, "train_loss": 1 / n, "kl": n, "kl_weight": n / 4} for n in range(1, 5)]
    rows[3]["valid_log_likelihood"] = -8.0
    yield "curves", figures.curves({"a": rows, "b": rows}, figures.LOSSES | {"a": "x", "b": "y"})
    weights = RANDOM.normal(300, 2, size=(100, 3))
    mean = weights.mean(0)
    names = ["frame 0 (0 s)", "frame 60 (30 s)", "frame 140 (70 s)"]
    bad = np.array([False, True, False])
    yield "weights", figures.weights(weights, mean, mean / 1000, mean / 9, bad, names, "note")
    curve = {"steps": [1, 2, 3], "accuracy": [0.5, 0.4, 0.3], "stderr": [0.01, 0.02, 0.01]}
    both = {"prediction": 0.5, "reconstruction": 0.9}
    yield "recursive", figures.recursive({"a": curve, "b": curve}, {"a": both})
    pieces = {name: RANDOM.random((20, 20)) for name in ("generated", "training", "more", "last")}
    yield "similarity", figures.similarity(pieces, 2.0)
    counts = {"generated": RANDOM.random(12), "training": RANDOM.random(12)}
    panels = {"Pitch classes": counts, "Notes per frame": counts, "Intervals": counts}
    yield (
        "histograms",
        figures.histograms(
            panels, {"Pitch classes": "pitch class"}, {"Pitch classes": list("CdDeEFgGaAbB")}
        ),
    )


def shown_texts(figure: Figure) -> list[Text]:
    return [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]


def test_every_figure_is_legible_and_labelled() -> None:
    before = dict(matplotlib.rcParams)
    for name, figure in every_figure():
        assert figure.get_size_inches()[0] * 25.4 == pytest.approx(180), name
        figure.draw_without_rendering()
        assert figure.get_size_inches()[1] * 25.4 < 297, name  # a page
        assert all(text.get_fontsize() >= 8 for text in shown_texts(figure)), name
        axes = [a for a in figure.axes if a.axison and a.get_label() != "<colorbar>"]
        for axis in axes:
            assert axis.get_ylabel() or axis.get_subplotspec().colspan.start, name  # type: ignore
        assert any(axis.get_xlabel() for axis in axes), name
        _titles_are_apart(name, figure, axes)
    assert dict(matplotlib.rcParams) == before


def _titles_are_apart(name: str, figure: Figure, axes: list[Axes]) -> None:
    width, height = figure.canvas.get_width_height()
    boxes = [
        axis._left_title.get_window_extent()  # type: ignore[attr-defined]
        for axis in axes
        if axis.get_title(loc="left")
    ]
    for n, box in enumerate(boxes):
        assert box.x0 >= 0 and box.x1 <= width and box.y1 <= height + 1, name
        assert not any(box.overlaps(other) for other in boxes[:n]), name


def test_colours_are_told_apart_without_red_and_green() -> None:
    """Seen by a person without the cones for red (Viénot, Brettel & Mollon 1999, in linear light),
    any two lines that carry no other mark still differ."""
    linear = np.array([to_rgb(colour) for colour in COLOURS]) ** 2.2
    to_lms = np.array([[17.8824, 43.5161, 4.1194], [3.4557, 27.1554, 3.8671], [0.03, 0.184, 1.467]])
    without = np.array([[0, 2.0234, -2.5258], [0, 1, 0], [0, 0, 1]])
    seen = (linear @ to_lms.T @ without.T @ np.linalg.inv(to_lms).T).clip(0, 1) ** (1 / 2.2)
    apart = np.linalg.norm(seen[:, None] - seen, axis=-1) + np.eye(len(seen))
    assert apart.min() > 0.1


def test_pianoroll_shows_each_roll_over_its_seconds_and_pitches() -> None:
    figure = figures.pianoroll({"one": roll(), "two": roll() * 0.5}, 21, 2.0)
    one, two = figure.axes[:2]
    assert (one.get_title(loc="left"), two.get_title(loc="left")) == ("one", "two")
    assert one.images[0].get_extent() == [0, 4.0, 20.5, 108.5]
    low, high = one.get_ylim()
    assert low < 60 < 67 < high < 80
    assert "C4" in [label.get_text() for label in one.get_yticklabels()]
    assert np.array_equal(image(one), roll().T)


def test_silence_draws() -> None:
    figures.pianoroll({"nothing": np.zeros((4, 88))}, 21, 2.0)
    figures.activations({"nothing": np.zeros((4, 5))}, music(np.zeros((4, 88))))
    silent = audio().holding(np.zeros((4, 50)))
    figures.reconstruction({"truth": silent})
    figures.filters(np.zeros((50, 3)), silent)
    figures.precision({"a": np.eye(50)[None]}, {"b": np.eye(50)[None]}, [0], silent)


def test_curves_show_every_validation_and_say_what_the_loss_is() -> None:
    rows = [{"epoch": n, "train_loss": 1.0 / n} for n in range(1, 5)]
    rows[1]["valid_log_likelihood"], rows[3]["valid_log_likelihood"] = -9.0, -8.0
    for kind, loss in figures.LOSSES.items():
        left, right = figures.curves({"run": rows}, {"run": loss}).axes
        assert left.lines[0].get_xydata().tolist() == [[2, -9.0], [4, -8.0]]  # type: ignore
        assert list(right.lines[0].get_xdata()) == [1, 2, 3, 4]
        assert right.lines[0].get_label() == f"run: {loss}"
        assert ("contrastive" in loss) == (kind == "estimate")
    two = figures.curves({"a": rows, "b": rows}, {"a": "x", "b": "y"}).axes[0].lines
    assert two[0].get_linestyle() != two[1].get_linestyle()
    assert two[0].get_marker() != two[1].get_marker()
    axes = figures.curves({"a": rows}, {"a": "x"}, "normalised frame").axes
    assert [axis.get_ylabel() for axis in axes] == ["nats a normalised frame"] * 2


def test_activations_are_sorted_by_mean_on_a_scale_about_zero() -> None:
    features = np.array([[3.0, -1.0, 0.0]] * 8)
    figure = figures.activations({"units": features, "more": 2 * features}, music())
    first, second = (figure.axes[n].images[0] for n in (1, 2))
    assert np.asarray(first.get_array())[:, 0].tolist() == [-1.0, 0.0, 3.0]
    assert first.norm.vmin == -first.norm.vmax  # type: ignore[operator]
    assert second.norm.vmax == 2 * first.norm.vmax  # type: ignore[operator]


def test_precision_has_one_scale_about_zero_for_each_kind_that_shows_what_is_off_the_diagonal() -> (
    None
):
    strong = np.eye(50) * 100 + 5 * np.ones((50, 50)) * RANDOM.choice([-1, 1], (50, 50))
    rows = {"one": np.stack([strong, np.eye(50)]), "two": np.stack([2 * strong, strong])}
    covariances = {"three": np.stack([np.eye(50)] * 2), "four": np.stack([np.eye(50)] * 2)}
    figure = figures.precision(rows, covariances, [0, 3], audio())
    axes = [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]
    wanted = [*rows["one"], *rows["two"], *covariances["three"], *covariances["four"]]
    for axis, matrix in zip(axes, wanted, strict=True):
        assert np.array_equal(image(axis), matrix)
    ends = [(axis.images[0].norm.vmin, axis.images[0].norm.vmax) for axis in axes]
    assert set(ends[:4]) == {(-10, 10)}
    assert set(ends[4:]) == {(-0.01, 0.01)}  # diagonal ones: a hundredth of the diagonal
    assert "frame 3" in axes[1].get_title(loc="left")


def test_energy_shows_what_there_is() -> None:
    values = np.array([-1.0, -2, -3, -4, -5, -6, -7, np.nan])
    axes = figures.energy(music(), values).axes
    assert len(axes) == 2 and "mean = −4.00" in axes[1].get_title(loc="left")
    assert np.array_equal(axes[1].lines[0].get_ydata(), values, equal_nan=True)
    assert np.allclose(axes[1].lines[0].get_xdata(), np.arange(8) / 2 + 0.25)
    error = np.full(8, 0.5)
    axes = figures.energy(music(), values, error, values + 1, values + 2, error, "estimate").axes
    assert [len(axis.collections) for axis in axes[1:]] == [0, 1, 1]
    assert np.array_equal(axes[2].lines[0].get_ydata(), values + 2, equal_nan=True)
    axes = figures.energy(music(), values, frame="normalised frame").axes
    assert axes[1].get_title(loc="left").endswith("nats a normalised frame")
    assert axes[1].get_ylabel() == "nats a\nnormalised frame"


def test_filters_are_sorted() -> None:
    weights = RANDOM.normal(size=(88, 5)) * np.array([1, 5, 3, 2, 4])
    found = image(figures.filters(weights, music()).axes[0])
    assert np.array_equal(found, weights[:, [1, 4, 2, 3, 0]])
    tones = np.sin(2 * np.pi * np.array([3000, 500, 1500]) * np.arange(50)[:, None] / 8000)
    assert np.allclose(peak_frequencies(tones, 8000), [3000, 500, 1500], atol=30)
    top, bottom, *_ = figures.filters(tones, audio()).axes
    assert np.array_equal(image(top), tones[:, [1, 2, 0]])
    assert (np.diff(bottom.lines[0].get_ydata()) > 0).all()


def test_audio_is_shown_as_its_samples_and_their_spectrum() -> None:
    track = audio()
    figure = figures.reconstruction({"truth": track, "half": track.holding(0.5 * track.frames)})
    wave, spectrum, half_wave, half = figure.axes[:4]
    assert np.array_equal(wave.lines[0].get_ydata(), track.frames.ravel())
    assert wave.get_xlim() == (0, 0.25)  # 2,000 samples at 8 kHz
    assert np.array_equal(half_wave.lines[0].get_ydata(), 0.5 * track.frames.ravel())
    low, high = 0, 4  # kHz
    assert spectrum.images[0].get_extent()[2:] == [low, high]
    found = image(spectrum)
    assert found.max() == 0 and found.mean(1).argmax() == round((len(found) - 1) * 1 / high)
    assert image(half).max() == pytest.approx(-20 * np.log10(2))  # on the scale of the truth
    assert spectrogram(np.ones(10), 8000)[1].shape == (6, 1)


def test_maps_of_units_share_the_scale_of_the_truth() -> None:
    track = words()
    figure = figures.reconstruction({"truth": track, "half": track.holding(0.5 * track.frames)})
    truth, half = (axis.images[0] for axis in figure.axes[:2])
    assert truth.norm.vmax == half.norm.vmax == -half.norm.vmin > 0  # type: ignore[operator]


def test_weights_say_where_one_chain_carries_all() -> None:
    even = np.zeros((100, 1))
    one = np.concatenate([[[50.0]], np.zeros((99, 1))])
    weights, found = np.hstack([even, one]), np.array([0.0, 45.4])
    bad, ess = np.array([False, True]), np.array([100.0, 1.0])
    figure = figures.weights(weights, found, np.array([0.1, np.inf]), ess, bad, ["a", "b"])
    tops, bottoms = figure.axes[:2], figure.axes[2:]
    assert ["COLLAPSED" in axis.get_title(loc="left") for axis in tops] == [False, True]
    assert sum(patch.get_height() for patch in tops[1].patches) == 100  # type: ignore
    for axis, share in zip(bottoms, (1.0, 100.0), strict=True):
        assert axis.lines[0].get_ydata()[1] == pytest.approx(share)  # type: ignore[index]


def test_recursive_curves_share_one_measure() -> None:
    curve = {"steps": [1, 2], "accuracy": [0.5, 0.4], "stderr": [0.1, 0.2], "frames": [9, 8]}
    known = {"a": {"prediction": 0.6, "reconstruction": 0.9}}
    (axis,) = figures.recursive({"a": curve}, known).axes
    line, again, ahead = axis.lines
    assert line.get_xydata().tolist() == [[1, 50.0], [2, 40.0]]  # type: ignore[union-attr]
    assert again.get_xydata().tolist() == [[0, 90.0]]  # type: ignore[union-attr]
    assert ahead.get_xydata().tolist() == [[1, 60.0]]  # type: ignore[union-attr]
    band = axis.collections[0].get_paths()[0].vertices
    assert {20.0, 60.0} <= set(np.round(np.asarray(band)[:, 1], 9))
    error = {"steps": [1, 2], "rmse": [0.5, 0.4], "stderr": [0.1, 0.2]}
    with pytest.raises(ValueError, match="plot them apart"):
        figures.recursive({"a": curve, "b": error}, {})


def test_histograms_hold_their_series() -> None:
    panel = {"generated": np.array([0.2, 0.8]), "training": np.array([0.5, 0.5])}
    figure = figures.histograms({"Pitch": panel}, {"Pitch": "pitch class"})
    (axis,) = figure.axes
    heights = [[bar.get_height() for bar in bars] for bars in axis.containers]  # type: ignore
    assert heights == [[0.2, 0.8], [0.5, 0.5]]
    (moved,) = figures.histograms({"Steps": panel}, firsts={"Steps": -1}).axes
    centres = [
        np.mean([bar.get_x() + bar.get_width() / 2 for bar in pair])
        for pair in zip(*moved.containers, strict=True)  # type: ignore[call-overload]
    ]
    assert np.allclose(centres, [-1, 0])
    assert axis.get_xlabel() == "pitch class" and axis.get_title(loc="left") == "Pitch"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(panel)


def test_similarity_is_over_seconds() -> None:
    matrix = RANDOM.random((6, 6))
    axis = figures.similarity({"piece": matrix}, 2.0).axes[0]
    assert np.array_equal(image(axis), matrix)
    assert axis.images[0].get_extent() == [0, 3, 0, 3]
