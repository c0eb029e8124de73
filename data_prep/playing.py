"""Piano-rolls as they are played: their notes, their voices, and the sound of plucked strings."""

from __future__ import annotations

import numpy as np

STRING_SECONDS = 4.0  # after which a string has faded by 80 dB
DECAY_SECONDS = 3.0
FADE_SECONDS = 0.03  # of a note's end, lest it clicks
PEAK = 0.9
SAMPLE_RATE = 22050
_HIGHEST_SHARE = 1 / 3  # of the sample rate: strings above it would have no sample to vibrate in


def notes_of(roll: np.ndarray, restrike: bool = False) -> np.ndarray:
    """The notes of a roll (frames, keys), in order of start: (notes, 3) integers.

    Args:
        roll: on where above zero.
        restrike: strike a key anew in every frame, where else consecutive frames are one note.

    Returns:
        Of each note key, first frame, and the frame after its last.

    >>> notes_of(np.array([[0, 1], [1, 1]])).tolist()
    [[1, 0, 2], [0, 1, 2]]
    >>> notes_of(np.array([[0, 1], [1, 1]]), restrike=True).tolist()
    [[1, 0, 1], [0, 1, 2], [1, 1, 2]]
    """
    on = np.asarray(roll) > 0
    if restrike:
        starts, keys = np.nonzero(on)
        return np.stack([keys, starts, starts + 1], axis=1)
    padded = np.zeros((len(on) + 2, on.shape[1]), dtype=np.int8)
    padded[1:-1] = on
    change = np.diff(padded, axis=0)
    keys, starts = np.nonzero(change.T == 1)
    _, ends = np.nonzero(change.T == -1)  # of each key in turn, as the starts are
    order = np.lexsort((keys, starts))
    return np.stack([keys, starts, ends], axis=1)[order]


def voices_of(roll: np.ndarray, voices: int) -> np.ndarray:
    """A roll (frames, keys) split into voices from the top, (voices, frames, keys) bool.

    The first voice has the highest key of every frame, the second the next; the last has all that
    is left. A chord of fewer keys leaves the lower voices silent, whoever sang its bass before.

    >>> voices_of(np.array([[1, 1, 1], [0, 1, 0]]), 2).astype(int).tolist()
    [[[0, 0, 1], [0, 1, 0]], [[1, 1, 0], [0, 0, 0]]]
    """
    on = np.asarray(roll) > 0
    above: np.ndarray = np.cumsum(on[:, ::-1], axis=1)[:, ::-1] - on
    voice = np.minimum(above, voices - 1)
    return np.stack([on & (voice == n) for n in range(voices)])


def roll_of_tokens(texts: list[str]) -> np.ndarray:
    """Notes and chords as `notes.tokens` writes them, a frame each, (tokens, 128) uint8.

    >>> np.argwhere(roll_of_tokens(["60", "48.52", "?"])).tolist()
    [[0, 60], [1, 48], [1, 52]]
    """
    roll = np.zeros((len(texts), 128), np.uint8)
    for n, text in enumerate(texts):
        if text != "?":
            roll[n, [int(pitch) for pitch in text.split(".")]] = 1
    return roll


def render(
    roll: np.ndarray,
    frame_rate: float = 4.0,
    lowest_pitch: int = 21,
    *,
    restrike: bool = False,
    sample_rate: int = SAMPLE_RATE,
) -> np.ndarray:
    """A roll played on plucked strings: (samples,) float32, one sample after the other.

    All notes are equally loud, and the loudest sample is 0.9, full scale being 1; a silent roll
    is silence. Keys above a third of the sample rate are left out.

    Args:
        roll: (frames, keys), on where above zero.
        frame_rate: frames a second.
        lowest_pitch: MIDI note of key 0.
        restrike: strike a key anew in every frame.
        sample_rate: Hz.

    >>> render(np.eye(8), frame_rate=4.0).shape  # two seconds
    (44100,)
    """
    from data_prep.plucked import pluck

    result = np.zeros(round(len(roll) / frame_rate * sample_rate))
    notes = notes_of(roll, restrike)
    edges = np.rint(notes[:, 1:] / frame_rate * sample_rate).astype(int)
    for key in np.unique(notes[:, 0]):
        pitch = lowest_pitch + int(key)
        if 440.0 * 2 ** ((pitch - 69) / 12) > _HIGHEST_SHARE * sample_rate:
            continue
        its = edges[notes[:, 0] == key]
        string = pluck(
            pitch,
            np.random.default_rng(pitch),
            seconds=min(STRING_SECONDS, int(np.diff(its).max()) / sample_rate),
            decay_seconds=DECAY_SECONDS,
            sample_rate=sample_rate,
        )
        for start, end in its:
            sound = string[: end - start]
            result[start : start + len(sound)] += sound * _fading(len(sound), sample_rate)
    loudest = np.abs(result).max(initial=0)
    return (result * (PEAK / loudest if loudest else 1.0)).astype(np.float32)


def _fading(samples: int, sample_rate: int) -> np.ndarray:
    """One, and to zero at the end."""
    left = np.arange(samples, 0, -1) - 1
    return np.minimum(1.0, left / min(FADE_SECONDS * sample_rate, max(1, samples / 2)))
