"""What music is like, in numbers: to hold what a model makes against what it was trained on.

After Yang, L.-C., Lerch, A.: On the evaluation of generative models in music. Neural Computing and
Applications 32 (2020): histograms and simple features of two sets of pieces, and the distances
between them. Departures: piano-rolls know frames, not bars, so that rhythm is in frames; distances
are those of the sets as wholes, by the Jensen-Shannon divergence, and stand beside those of real
music of the same amount (`usual_distances`), without which no reader can tell what is far.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MOST = 16  # notes in a frame, and frames of a note; more are counted with them
WIDEST = 24  # semitones, up or down; wider steps are counted with them
SIZES = {
    "notes_per_frame": MOST + 1,
    "pitch_class": 12,
    "melodic_interval": 2 * WIDEST + 1,
    "harmonic_interval": 12,
    "duration": MOST + 1,
}
REPEATED_FRAMES, COPIED_FRAMES = 4, 8
PARTS = 20


@dataclass(frozen=True, eq=False)
class Statistics:
    """What was counted in a set of pieces.

    Attributes:
        histograms: shares by name, each summing to one, or all zero where there was nothing.
        scalars: numbers by name, NaN where there was nothing.
    """

    histograms: dict[str, np.ndarray]
    scalars: dict[str, float]

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        shares = {name: np.round(h, 6).tolist() for name, h in self.histograms.items()}
        return {"scalars": finite(self.scalars), "histograms": shares}


def statistics(rolls: Iterable[np.ndarray], lowest_pitch: int) -> Statistics:
    """Statistics of piano-rolls.

    A note is a run of frames in which a key is on. The histograms, by their index:
        * `notes_per_frame`: keys on in a frame, 0 to 16 (or more);
        * `pitch_class`: C, C♯, …, B, by frames that sound;
        * `melodic_interval`: semitones from the highest key of a frame to that of the next where
          both sound and they differ, -24 to 24 (or more) at 0 to 48. Frames do not tell a note
          that is held from one that is repeated;
        * `harmonic_interval`: semitones between any two keys of a frame, octaves left out;
        * `duration`: frames of a note, 1 to 16 (or more); 0 is empty.

    The scalars: `mean_notes` in a frame; `mean_pitch` (MIDI), by frames that sound; `pitch_range`
    in semitones from the lowest to the highest key of a piece, mean over the pieces that sound;
    `silence`, the share of frames without a note; `onsets`, the share in which one begins;
    `mean_duration` of a note in frames; and `repetition`, the share of patterns of 4 frames that
    occurred before in the piece, silent ones aside.

    Args:
        rolls: pieces `(frames, keys)`, on where above zero.
        lowest_pitch: MIDI note of key 0.

    Example:
        >>> found = statistics([np.array([[1, 0, 0], [1, 0, 1], [0, 0, 0]])], lowest_pitch=60)
        >>> found.scalars["mean_notes"], found.scalars["mean_duration"]
        (1.0, 1.5)
        >>> found.histograms["pitch_class"].round(2).tolist()[:3]
        [0.67, 0.0, 0.33]
    """
    counts = {name: np.zeros(size) for name, size in SIZES.items()}
    pitches, ranges, begun, patterns, repeated = 0.0, [], 0, 0, 0
    for roll in rolls:
        on = np.asarray(roll) > 0
        for name, values, weights in _counted(on, lowest_pitch):
            counts[name] += np.bincount(values, weights, minlength=SIZES[name])
        _, keys = np.nonzero(on)
        if len(keys):
            pitches += float((keys + lowest_pitch).sum())
            ranges.append(int(keys.max() - keys.min()))
        begun += int(_onsets(on).any(axis=1).sum())
        codes = pattern_codes(on, REPEATED_FRAMES)
        patterns, repeated = patterns + len(codes), repeated + len(codes) - len(np.unique(codes))
    frames, cells = counts["notes_per_frame"].sum(), counts["pitch_class"].sum()
    scalars = {
        "mean_notes": _share(cells, frames),
        "mean_pitch": _share(pitches, cells),
        "pitch_range": _share(sum(ranges), len(ranges)),
        "silence": _share(counts["notes_per_frame"][0], frames),
        "onsets": _share(begun, frames),
        "mean_duration": _share(cells, counts["duration"].sum()),
        "repetition": _share(repeated, patterns),
    }
    return Statistics({name: c / (c.sum() or 1.0) for name, c in counts.items()}, scalars)


def _counted(
    on: np.ndarray, lowest_pitch: int
) -> Iterable[tuple[str, np.ndarray, np.ndarray | None]]:
    """Of each histogram the bins of a piece, and how often each of them is meant."""
    _, keys = np.nonzero(on)
    yield "notes_per_frame", np.minimum(on.sum(axis=1), MOST), None
    yield "pitch_class", (keys + lowest_pitch) % 12, None
    top = np.where(on.any(axis=1), on.shape[1] - 1 - on[:, ::-1].argmax(axis=1), -1)
    steps = np.diff(top)[(top[1:] >= 0) & (top[:-1] >= 0)]
    yield "melodic_interval", np.clip(steps[steps != 0], -WIDEST, WIDEST) + WIDEST, None
    together = on.T.astype(np.float32) @ on.astype(np.float32)
    low, high = np.triu_indices(on.shape[1], 1)
    yield "harmonic_interval", (high - low) % 12, together[low, high]
    # Key by key, the starts of the notes and their ends come in the same order.
    _, starts = np.nonzero(_onsets(on).T)
    _, ends = np.nonzero(_onsets(on[::-1])[::-1].T)
    yield "duration", np.minimum(ends - starts + 1, MOST), None


def _onsets(on: np.ndarray) -> np.ndarray:
    """Where a note begins, `(frames, keys)`."""
    before = np.zeros_like(on)
    before[1:] = on[:-1]
    return on & ~before


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else math.nan


def pattern_codes(roll: np.ndarray, frames: int) -> np.ndarray:
    """A number for every pattern of so many frames that is not silent, `(patterns,)` uint64.

    Equal patterns have equal numbers; that different ones do has a chance of about 2⁻⁶⁴.
    """
    on = np.asarray(roll) > 0
    count = len(on) - frames + 1
    if count < 1:
        return np.zeros(0, np.uint64)
    shape = (on.shape[1], frames)
    weights = np.random.default_rng(0).integers(2**64 - 1, size=shape, dtype=np.uint64)
    of_frames = on.astype(np.uint64) @ weights  # wraps round: a hash, not a number of anything
    sounds = on.sum(axis=1) > 0
    codes, loud = np.zeros(count, np.uint64), np.zeros(count, bool)
    for n in range(frames):
        codes += of_frames[n : n + count, n]
        loud |= sounds[n : n + count]
    return codes[loud]


def copying(
    generated: Iterable[np.ndarray], training: Iterable[np.ndarray], frames: int = COPIED_FRAMES
) -> float:
    """The share of patterns of so many frames that the training set holds, silent ones aside.

    NaN where there is no such pattern. Equal means note for note, at the same pitch.

    Args:
        generated: pieces `(frames, keys)`.
        training: pieces; taken one by one.
        frames: in a pattern.
    """
    none = np.zeros(0, np.uint64)
    codes = np.concatenate([none, *(pattern_codes(roll, frames) for roll in generated)])
    found = np.zeros(len(codes), bool)
    for roll in training:
        found |= np.isin(codes, pattern_codes(roll, frames))
    return _share(found.sum(), len(found))


def self_similarity(roll: np.ndarray, window: int = 1) -> np.ndarray:
    """Cosine of every two windows of a piece, `(windows, windows)`, 0 to 1.

    Silence is like silence (1) and unlike all else (0).

    Args:
        roll: `(frames, keys)`, on where above zero.
        window: frames in a window; one begins at every frame that has as many left.

    Example:
        >>> self_similarity(np.array([[1, 1], [0, 0], [1, 0]])).round(2).tolist()
        [[1.0, 0.0, 0.71], [0.0, 1.0, 0.0], [0.71, 0.0, 1.0]]

    Raises:
        ValueError: the piece is shorter than a window.
    """
    on = (np.asarray(roll) > 0).astype(float)
    if not 1 <= window <= len(on):
        raise ValueError(f"window is {window}; give 1 to {len(on)}, the frames of the piece")
    rows = [on[n : len(on) - window + 1 + n] for n in range(window)]
    windows = np.concatenate(rows, axis=1)
    silent = ~windows.any(axis=1, keepdims=True)
    windows = np.concatenate([windows, silent], axis=1)
    windows /= np.linalg.norm(windows, axis=1, keepdims=True)
    return windows @ windows.T


def sound_statistics(recordings: Iterable[np.ndarray], sample_rate: int) -> Statistics:
    """Statistics of sound, scalars alone.

    `rms` and `peak` (mean over recordings), full scale being 1; `silence`, the share of blocks of
    20 ms below -60 dB of full scale; `centroid` in Hz, the mean frequency of the spectrum, by
    magnitude in the same blocks.

    Args:
        recordings: samples, in frames or not.
        sample_rate: Hz.
    """
    size = max(1, round(0.02 * sample_rate))
    window, frequency = np.hanning(size), np.fft.rfftfreq(size, 1 / sample_rate)
    squares, samples, peaks, silent, blocks, magnitude = 0.0, 0, [], 0, 0, np.zeros(len(frequency))
    for recording in recordings:
        sound = np.asarray(recording, dtype=float).ravel()
        peaks.append(float(np.abs(sound).max()))
        squares, samples = squares + float(sound @ sound), samples + len(sound)
        block = np.pad(sound, (0, -len(sound) % size)).reshape(-1, size)
        silent += int((np.sqrt((block**2).mean(axis=1)) < 1e-3).sum())
        blocks += len(block)
        magnitude += np.abs(np.fft.rfft(block * window)).sum(axis=0)
    scalars = {
        "rms": math.sqrt(_share(squares, samples)),
        "peak": _share(sum(peaks), len(peaks)),
        "silence": _share(silent, blocks),
        "centroid": _share(float(magnitude @ frequency), magnitude.sum()),
    }
    return Statistics({}, scalars)


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    """Jensen-Shannon divergence in bits, 0 to 1; NaN where either histogram is empty.

    Example:
        >>> divergence(np.array([1.0, 0.0]), np.array([0.0, 1.0]))
        1.0
    """
    if not p.any() or not q.any():
        return math.nan

    def entropy(shares: np.ndarray) -> float:
        some = shares[shares > 0]
        return float(-(some * np.log2(some)).sum())

    return max(0.0, entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2)


def distances(generated: Statistics, reference: Statistics) -> dict[str, float]:
    """How far two sets are apart: `divergence` of histograms, absolute difference of scalars."""
    histograms = {
        name: divergence(shares, reference.histograms[name])
        for name, shares in generated.histograms.items()
    }
    scalars = {
        name: abs(value - reference.scalars[name]) for name, value in generated.scalars.items()
    }
    return histograms | scalars


def random_part(
    pieces: Sequence[np.ndarray], lengths: Sequence[int], random: np.random.Generator
) -> list[np.ndarray]:
    """Excerpts of pieces drawn at random, one of each length, or the whole piece if shorter."""
    part = []
    for length in lengths:
        piece = pieces[int(random.integers(len(pieces)))]
        start = int(random.integers(max(1, len(piece) - length + 1)))
        part.append(piece[start : start + length])
    return part


def usual_distances(
    measure: Callable[[Iterable[np.ndarray]], Statistics],
    pieces: Sequence[np.ndarray],
    lengths: Sequence[int],
    reference: Statistics,
    random: np.random.Generator,
) -> dict[str, float]:
    """Mean distances of random parts of real music, 20 of them: a scale for those of a model.

    Args:
        measure: gives the statistics of pieces.
        pieces: real music to draw from.
        lengths: frames of each piece of a part: as many as the model made.
        reference: what the parts are compared with.
        random: source of the draws.
    """
    parts = (random_part(pieces, lengths, random) for _ in range(PARTS))
    found = [distances(measure(part), reference) for part in parts]
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def compare(
    measure: Callable[[Iterable[np.ndarray]], Statistics],
    generated: Sequence[np.ndarray],
    training: Sequence[np.ndarray],
    unheard: Sequence[np.ndarray] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """The statistics of generated music beside those of the training set, for JSON.

    Args:
        measure: gives the statistics of pieces, as `statistics` with its pitch filled in.
        generated: pieces, at the least one.
        training: pieces.
        unheard: real pieces that the model was not trained on, for the usual distances; where
            there are none they are of parts of the training set.
        seed: of the draws of those parts.

    Returns:
        `generated` and `training`, each `scalars` and `histograms` by name; `distances` and
        `usual_distances` of the two by name. What is undefined is None.
    """
    made, known = measure(generated), measure(training)
    lengths = [len(piece) for piece in generated]
    random = np.random.default_rng(seed)
    usual = usual_distances(measure, unheard or training, lengths, known, random)
    return {
        "generated": made.plain(),
        "training": known.plain(),
        "distances": finite(distances(made, known)),
        "usual_distances": finite(usual),
    }


def finite(numbers: dict[str, float]) -> dict[str, float | None]:
    """Rounded; None for NaN, which JSON has not."""
    return {name: round(x, 6) if math.isfinite(x) else None for name, x in numbers.items()}
