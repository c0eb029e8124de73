"""A sequence beside what a model foretold of it and what its latents keep of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from evaluation.figures.style import LEVELS, Figure, scale, sheet, styled
from evaluation.figures.track import (
    Track,
    draw,
    label_pitches,
    label_time,
    probability_scale,
    sounding,
)

WINDOW = 512  # samples of a spectrum: 46 ms at 11,025 Hz
RANGE = 80.0  # decibels shown below the loudest of the first track


@styled
def reconstruction(tracks: Mapping[str, Track]) -> Figure:
    """Tracks beneath each other: rolls, maps of units, or waveforms with their spectrograms.

    Args:
        tracks: title and track, the truth first.
    """
    first = next(iter(tracks.values()))
    if first.sample_rate:
        return _sounds(tracks)
    figure = sheet(14 + 42 * len(tracks))
    axes = figure.subplots(len(tracks), 1, squeeze=False, sharex=True)[:, 0]
    for axis, (title, track) in zip(axes, tracks.items(), strict=True):
        draw(axis, track)
        axis.set_title(title)
        if track.lowest_pitch is not None:
            label_pitches(axis, *sounding(list(tracks.values())))
    label_time(axes[-1], first)
    if first.kind == "binary":
        probability_scale(figure, axes)
    else:
        for axis in axes[1:]:
            axis.images[0].set_norm(axes[0].images[0].norm)
        scale(figure, axes[0].images[0], axes, "value; the scale is the truth's", aspect=40)
    return figure


def spectrogram(waveform: np.ndarray, sample_rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Power of a waveform over time and frequency, of Hann windows that overlap by three quarters.

    Returns:
        Frequencies in Hz, `(F,)`, and power, `(F, windows)`.

    Example:
        >>> wave = np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000)
        >>> frequencies, power = spectrogram(wave, 8000)
        >>> float(frequencies[power.mean(axis=1).argmax()])
        1000.0
    """
    size = min(WINDOW, len(waveform))
    starts = np.arange(0, len(waveform) - size + 1, max(1, size // 4))
    windows = waveform[starts[:, None] + np.arange(size)] * np.hanning(size)
    return np.fft.rfftfreq(size, 1 / sample_rate), np.abs(np.fft.rfft(windows)).T ** 2


def _sounds(tracks: Mapping[str, Track]) -> Figure:
    figure = sheet(18 + 46 * len(tracks))
    axes = figure.subplots(len(tracks), 2, squeeze=False, sharex=True, sharey="col")
    loudest = None
    for (left, right), (title, track) in zip(axes, tracks.items(), strict=True):
        draw(left, track)
        left.set_title(title)
        rate = float(track.sample_rate or 0)
        frequencies, power = spectrogram(track.waveform.astype(float), rate)
        loudest = loudest or float(power.max()) or 1.0
        level = 10 * np.log10(np.maximum(power / loudest, 10 ** (-RANGE / 10)))
        where: dict[str, Any] = {"origin": "lower", "aspect": "auto"}
        where["extent"] = (0, track.end, 0, frequencies[-1] / 1000)
        image = right.imshow(level, cmap=LEVELS, vmin=-RANGE, vmax=0, **where)
        right.set_ylabel("frequency (kHz)")
    for axis in axes[-1]:
        label_time(axis, track)
    label = "level (dB; 0 is the loudest of the truth)"
    scale(figure, image, axes[:, 1], label, aspect=50)
    return figure
