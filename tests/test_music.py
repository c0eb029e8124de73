"""Statistics of music, against rolls whose answers are known, plain loops and other libraries."""

import json
import math
from functools import partial
from itertools import combinations, pairwise

import librosa
import numpy as np
import pretty_midi
import pytest
from scipy.spatial.distance import jensenshannon

from data_prep.midi import write_midi
from evaluation import music

LOWEST = 50


def random_rolls(seed: int = 0, count: int = 4, share: float = 0.2) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [(random.random((20 + n, 30)) < share).astype(np.uint8) for n in range(count)]


def roll_of(*chords: tuple[int, ...], keys: int = 30) -> np.ndarray:
    """A roll from the pitches of each frame."""
    roll = np.zeros((len(chords), keys), np.uint8)
    for frame, chord in enumerate(chords):
        roll[frame, np.array(chord, int) - LOWEST] = 1
    return roll


def counts(bins: list[int], size: int) -> np.ndarray:
    return np.bincount(bins, minlength=size) / len(bins)


def test_a_phrase_has_the_numbers_that_one_counts_by_hand() -> None:
    phrase = roll_of((60, 64), (60, 67), (60, 67), (), (55, 59), (55, 72))
    found = music.statistics([phrase], LOWEST)
    assert found.scalars == pytest.approx({
        "mean_notes": 10 / 6,
        "mean_pitch": (3 * 60 + 64 + 2 * 67 + 2 * 55 + 59 + 72) / 10,
        "pitch_range": 17,
        "silence": 1 / 6,
        "onsets": 4 / 6,  # the third frame holds what sounds, the fourth is silent
        "mean_duration": 10 / 6,
        "repetition": 0.0,
    })  # fmt: skip
    shares = found.histograms
    np.testing.assert_allclose(shares["notes_per_frame"], counts([2, 2, 2, 0, 2, 2], 17))
    np.testing.assert_allclose(shares["melodic_interval"], counts([24 + 3, 24 + 13], 49))
    np.testing.assert_allclose(shares["harmonic_interval"], counts([4, 7, 7, 4, 5], 12))
    np.testing.assert_allclose(shares["duration"], counts([3, 1, 2, 2, 1, 1], 17))


def test_what_is_beyond_the_last_bin_is_counted_with_it() -> None:
    found = music.statistics([np.ones((40, 30))], LOWEST).histograms
    assert found["notes_per_frame"][-1] == found["duration"][-1] == 1
    leap = music.statistics([roll_of((50,), (79,), (50,))], LOWEST).histograms
    assert leap["melodic_interval"][[0, -1]].tolist() == [0.5, 0.5]


def test_random_rolls_against_plain_loops() -> None:
    rolls = random_rolls()
    steps, pairs, durations = [], [], []
    for roll in rolls:
        chords = [np.flatnonzero(frame).tolist() for frame in roll]
        for chord, following in pairwise(chords):
            if chord and following and chord[-1] != following[-1]:
                steps.append(24 + max(-24, min(24, following[-1] - chord[-1])))
        pairs += [(b - a) % 12 for chord in chords for a, b in combinations(chord, 2)]
        for key in roll.T:
            runs = "".join(map(str, key)).split("0")
            durations += [min(16, len(run)) for run in runs if run]
    found = music.statistics(rolls, LOWEST).histograms
    np.testing.assert_allclose(found["melodic_interval"], counts(steps, 49))
    np.testing.assert_allclose(found["harmonic_interval"], counts(pairs, 12))
    np.testing.assert_allclose(found["duration"], counts(durations, 17))


def test_pitch_classes_are_those_of_pretty_midi(tmp_path) -> None:
    (roll,) = random_rolls(count=1)
    write_midi(tmp_path / "x.mid", roll, 4.0, LOWEST)
    expected = pretty_midi.PrettyMIDI(str(tmp_path / "x.mid")).get_pitch_class_histogram(
        use_duration=True, normalize=True
    )
    found = music.statistics([roll], LOWEST).histograms["pitch_class"]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_repetition_and_copying_against_sets_of_frames() -> None:
    random = np.random.default_rng(3)
    rolls = [(random.random((60, 2)) < 0.5).astype(np.uint8) for _ in range(3)]  # they recur
    known = [(random.random((400, 2)) < 0.5).astype(np.uint8) for _ in range(4)]

    def patterns(roll: np.ndarray, size: int) -> list[bytes]:
        cut = [roll[n : n + size] for n in range(len(roll) - size + 1)]
        return [one.tobytes() for one in cut if one.any()]

    of_each = [patterns(roll, 4) for roll in rolls]
    expected = 1 - sum(len(set(some)) for some in of_each) / sum(map(len, of_each))
    assert 0.05 < expected < 0.95
    assert music.statistics(rolls, 60).scalars["repetition"] == pytest.approx(expected)
    for size in (2, 5):
        heard = {one for roll in known for one in patterns(roll, size)}
        made = [one in heard for roll in rolls for one in patterns(roll, size)]
        assert music.copying(rolls, known, size) == pytest.approx(np.mean(made))
    assert music.copying(known, known) == 1
    assert math.isnan(music.copying(rolls, known, frames=61))
    assert math.isnan(music.copying([], known))


def test_silence_leaves_undefined_what_it_has_none_of() -> None:
    found = music.statistics([np.zeros((5, 30))], LOWEST)
    assert [found.scalars[name] for name in ("silence", "mean_notes", "onsets")] == [1, 0, 0]
    assert math.isnan(found.scalars["mean_pitch"]) and math.isnan(found.scalars["repetition"])
    assert not found.histograms["pitch_class"].any()
    apart = music.distances(found, music.statistics(random_rolls(), LOWEST))
    assert math.isnan(apart["pitch_class"]) and apart["silence"] > 0.9
    nothing = music.statistics([], LOWEST)
    assert all(math.isnan(value) for value in nothing.scalars.values())


def test_distances_are_the_divergence_in_bits_and_absolute_differences() -> None:
    one, other = (music.statistics(random_rolls(n, share=0.1 + 0.1 * n), LOWEST) for n in (0, 1))
    found = music.distances(one, other)
    for name, shares in one.histograms.items():
        expected = jensenshannon(shares, other.histograms[name], base=2) ** 2
        assert found[name] == pytest.approx(expected, abs=1e-12)
    for name, value in one.scalars.items():
        assert found[name] == pytest.approx(abs(value - other.scalars[name]))
    assert all(value == pytest.approx(0) for value in music.distances(one, one).values())


def test_usual_distances_shrink_as_the_parts_grow() -> None:
    rolls = random_rolls(count=40)
    measure = partial(music.statistics, lowest_pitch=LOWEST)

    def usual(lengths: list[int]) -> dict[str, float]:
        random = np.random.default_rng(0)
        return music.usual_distances(measure, rolls, lengths, measure(rolls), random)

    few, many = usual([20] * 2), usual([20] * 30)
    assert all(many[name] < 0.5 * few[name] for name in ("pitch_class", "harmonic_interval"))


def test_a_comparison_tells_strange_music_and_is_json() -> None:
    rolls = random_rolls(count=20)
    measure = partial(music.statistics, lowest_pitch=LOWEST)
    like, strange = random_rolls(9), random_rolls(9, share=0.6)
    near, far = (music.compare(measure, made, rolls) for made in (like, strange))
    assert near["distances"]["mean_notes"] < 4 * near["usual_distances"]["mean_notes"]
    assert far["distances"]["mean_notes"] > 10 * far["usual_distances"]["mean_notes"]
    assert near["training"] == far["training"] == measure(rolls).plain()
    silent = music.compare(measure, [np.zeros((5, 30))], rolls)
    assert silent["distances"]["pitch_class"] is None
    assert "NaN" not in json.dumps(silent)


def test_self_similarity_is_the_cosine_of_windows() -> None:
    (roll,) = random_rolls(count=1, share=0.1)
    roll[3:6] = 0
    found = music.self_similarity(roll, window=2)
    windows = [roll[n : n + 2].ravel().astype(float) for n in range(len(roll) - 1)]
    for (a, x), (b, y) in combinations(enumerate(windows), 2):
        sizes = np.linalg.norm(x), np.linalg.norm(y)
        expected = x @ y / math.prod(sizes) if all(sizes) else float(sizes[0] == sizes[1])
        assert found[a, b] == pytest.approx(expected)
    np.testing.assert_allclose(found, found.T)
    np.testing.assert_allclose(found.diagonal(), 1)
    for wrong in (0, len(roll) + 1):
        with pytest.raises(ValueError, match=f"window is {wrong}; give 1 to {len(roll)}"):
            music.self_similarity(roll, wrong)


def test_sound_of_a_sine_and_of_silence() -> None:
    rate = 8000
    sine = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(rate) / rate)
    found = music.sound_statistics([np.concatenate([sine, np.zeros(rate)])], rate).scalars
    assert found["rms"] == pytest.approx(0.25, rel=1e-3)
    assert found["peak"] == pytest.approx(0.5)
    assert found["silence"] == pytest.approx(0.5)
    assert found["centroid"] == pytest.approx(1000, rel=0.02)


def test_the_centroid_is_near_that_of_librosa() -> None:
    noise = np.random.default_rng(0).normal(size=16000).cumsum() / 100
    found = music.sound_statistics([noise.reshape(-1, 10)], 8000).scalars["centroid"]
    magnitude = np.abs(librosa.stft(noise, n_fft=160, hop_length=160, center=False))
    frequency = librosa.fft_frequencies(sr=8000, n_fft=160)
    assert found == pytest.approx((frequency @ magnitude).sum() / magnitude.sum(), rel=0.02)
