"""Plucked strings, synthesised.

Karplus, K., Strong, A.: Digital synthesis of plucked-string and drum timbres. Computer Music
Journal 7(2) (1983); with the fractional delay and pick position of Jaffe, D., Smith, J.:
Extensions of the Karplus-Strong plucked-string algorithm, ibid.
"""

from __future__ import annotations

import numpy as np

LOWEST_PITCH, HIGHEST_PITCH = 28, 76  # from the low E of a bass to the twelfth fret of a guitar


def pluck(
    pitch: float,
    random: np.random.Generator,
    *,
    seconds: float = 2.0,
    decay_seconds: float = 3.0,
    pick: float = 0.13,
    damping: float = 0.3,
    peak: float = 0.5,
    sample_rate: int = 44100,
) -> np.ndarray:
    """A note of a string: (samples,) float32.

    Args:
        pitch: MIDI.
        random: draws the noise that the string starts from.
        seconds: length.
        decay_seconds: in which the fundamental falls by 60 dB, damping aside.
        pick: where the string is plucked, as a share of its length; harmonics with a node there
            are missing.
        damping: 0 to 0.5: how much faster high harmonics decay.
        peak: of the result; full scale is 1.
        sample_rate: Hz.

    >>> pluck(69, np.random.default_rng(0), seconds=0.5).shape
    (22050,)
    """
    from scipy.signal import lfilter

    frequency = 440.0 * 2 ** ((pitch - 69) / 12)
    period = sample_rate / frequency
    noise = np.zeros(round(seconds * sample_rate))
    noise[: round(period)] = random.uniform(-1, 1, round(period))
    shape = np.zeros(max(2, round(pick * period)) + 1)
    shape[0], shape[-1] = 1, -1
    # Once round the string: attenuated, made duller, and late by one period in all.
    angle = 2 * np.pi * frequency / sample_rate
    dull = np.array([1 - damping, damping])
    response = dull[0] + dull[1] * np.exp(-1j * angle)
    late = period + np.angle(response) / angle
    whole = int(late) - 1
    loop = np.convolve(dull, _fractional_delay(late - whole))
    loop *= 10 ** (-3 / (frequency * decay_seconds))
    feedback = np.concatenate([[1.0], np.zeros(whole - 1), -loop])
    note = lfilter([1.0], feedback, lfilter(shape, [1.0], noise))
    return (note * (peak / np.abs(note).max())).astype(np.float32)


def _fractional_delay(samples: float) -> np.ndarray:
    """Lagrange interpolation of third order: a filter of 4 taps that delays by 1 to 2 samples.

    >>> (_fractional_delay(1.5) * 16).tolist()
    [-1.0, 9.0, 9.0, -1.0]
    """
    taps = np.arange(4)
    return np.array(
        [np.prod([(samples - m) / (n - m) for m in taps if m != n]) for n in taps], dtype=float
    )


def variant(pitch: int, number: int, seed: int) -> np.ndarray:
    """One of the notes of a pitch: 2 s at 44.1 kHz, plucked in its own place and strength."""
    random = np.random.default_rng([seed, pitch, number])
    return pluck(
        pitch,
        random,
        decay_seconds=random.uniform(1.5, 5.0),
        pick=random.uniform(0.08, 0.4),
        damping=random.uniform(0.1, 0.5),
        peak=random.uniform(0.2, 0.8),
    )
