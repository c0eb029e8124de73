"""The learned filters: what each hidden unit sees of a frame."""

from __future__ import annotations

import numpy as np

from evaluation.figures.style import (
    COLOURS,
    Figure,
    bound_of,
    caption,
    diverging,
    scale,
    sheet,
    styled,
)
from evaluation.figures.track import Track, label_pitches

_QUANTILE = 0.995


def peak_frequencies(weights: np.ndarray, sample_rate: float) -> np.ndarray:
    """Hz at which the spectrum of each filter `(V, H)` is largest, `(H,)`.

    Filters are padded to eight times their length, so that short ones are told apart.

    Example:
        >>> wave = np.cos(2 * np.pi * 1000 * np.arange(80) / 8000)[:, None]
        >>> float(peak_frequencies(wave, 8000)[0])
        1000.0
    """
    size = 8 * len(weights)
    spectrum = np.abs(np.fft.rfft(weights, size, axis=0))
    peaks: np.ndarray = np.fft.rfftfreq(size, 1 / sample_rate)[spectrum.argmax(axis=0)]
    return peaks


@styled
def filters(weights: np.ndarray, track: Track) -> Figure:
    """Couplings `W`, a column for each hidden unit: of audio in the order of the frequency at
    which they peak, else the largest first.

    Args:
        weights: `(V, H)`.
        track: some frames of the data, for the units.
    """
    norms = np.linalg.norm(weights, axis=0)
    key, label, title = norms, "norm", "the largest first"
    order = np.argsort(-norms, kind="stable")
    if track.sample_rate:
        key = peak_frequencies(weights, track.sample_rate) / 1000
        label, title = "peak (kHz)", "by the frequency of their peak"
        order = np.argsort(key, kind="stable")
    (low, high), units = track.unit_axis
    hidden = weights.shape[1]
    figure = sheet(120)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    image = diverging(
        top,
        weights[:, order],
        bound_of(weights, _QUANTILE),
        origin="lower",
        extent=(-0.5, hidden - 0.5, low, high),
    )
    top.set(ylabel=units, title=f"Filters W, {title}")
    if track.lowest_pitch is not None:
        label_pitches(top, round(low + 0.5), round(high - 0.5))
    scale(figure, image, top, "weight")
    bottom.plot(np.arange(hidden), key[order], ".", color=COLOURS[0])
    bottom.set(xlabel="hidden unit, sorted", ylabel=label, xlim=(-0.5, hidden - 0.5))
    bottom.set_ylim(bottom=0)
    bottom.grid(True)
    caption(figure, "The colour scale ends where 99.5 % of the weights are within it.")
    return figure
