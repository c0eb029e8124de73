"""Figures of rolls: the rolls themselves, their self-similarity, and what is counted in them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from evaluation.figures.style import ACCENT, COLOURS, LEVELS, Figure, scale, sheet, styled
from evaluation.figures.track import (
    Track,
    draw,
    label_pitches,
    label_time,
    probability_scale,
    sounding,
)

_HATCHES = ("", "///", "...", "xxx", "\\\\\\", "+++", "ooo")


@styled
def pianoroll(
    rolls: Mapping[str, np.ndarray], lowest_pitch: int, frame_rate: float, prime_frames: int = 0
) -> Figure:
    """Piano-rolls beneath each other, on one scale of pitch.

    Args:
        rolls: title and `(frames, keys)`, zeros and ones or probabilities.
        lowest_pitch: MIDI note of key 0.
        frame_rate: frames a second.
        prime_frames: frames of the last roll that were given to the model; a line marks their end.
    """
    tracks = [
        Track(roll, "binary", frame_rate, lowest_pitch=lowest_pitch) for roll in rolls.values()
    ]
    figure = sheet(14 + 42 * len(tracks))
    axes = figure.subplots(len(tracks), 1, squeeze=False, sharex=True)[:, 0]
    for axis, title, track in zip(axes, rolls, tracks, strict=True):
        draw(axis, track)
        label_pitches(axis, *sounding(tracks))
        axis.set_title(title)
    axes[0].set_xlim(0, max(track.end for track in tracks))
    label_time(axes[-1], tracks[-1])
    if prime_frames:
        axes[-1].axvline(prime_frames / frame_rate, color=ACCENT, label="end of the prime")
        # Beside the title, where it hides no note.
        axes[-1].legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)
    probability_scale(figure, axes)
    return figure


@styled
def similarity(matrices: Mapping[str, np.ndarray], frame_rate: float) -> Figure:
    """How like every frame of a piece is to every other, from 0 to 1, piece beside piece.

    Repetitions are lines beside the diagonal, sections are blocks on it.

    Args:
        matrices: title and `(frames, frames)` of each piece.
        frame_rate: frames a second.
    """
    columns = min(len(matrices), 3)
    rows = math.ceil(len(matrices) / columns)
    figure = sheet(12 + rows * (160 / columns if columns > 1 else 100))
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(matrices) :]:
        axis.set_axis_off()
    for axis, (title, matrix) in zip(axes.flat, matrices.items(), strict=False):
        end = len(matrix) / frame_rate
        image = axis.imshow(
            matrix,
            cmap=LEVELS,
            vmin=0,
            vmax=1,
            origin="lower",
            extent=(0, end, 0, end),
            interpolation="nearest",
        )
        axis.set(title=title, xlabel="time (s)", ylabel="time (s)")
    scale(figure, image, axes, "similarity", aspect=20 * rows)
    return figure


@styled
def histograms(
    panels: Mapping[str, Mapping[str, np.ndarray]],
    labels: Mapping[str, str] | None = None,
    ticks: Mapping[str, list[str]] | None = None,
    firsts: Mapping[str, int] | None = None,
) -> Figure:
    """Bars of several series beside each other, such as generated music's and its training set's.

    Args:
        panels: title of each panel, and in it name of each series and its values, `(bins,)`.
        labels: what the bins of a panel are, by its title.
        ticks: names of the bins of a panel, by its title; else they are numbered.
        firsts: number of the first bin of a panel, by its title; 0 unless told.
    """
    columns = min(len(panels), 2)
    rows = math.ceil(len(panels) / columns)
    figure = sheet(14 + 52 * rows)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    handles = {}
    for axis, (title, panel) in zip(axes.flat, panels.items(), strict=False):
        width, first = 0.8 / len(panel), (firsts or {}).get(title, 0)
        for place, (name, values) in enumerate(panel.items()):
            number = names.index(name)
            handles[name] = axis.bar(
                first + np.arange(len(values)) + (place - (len(panel) - 1) / 2) * width,
                values,
                width,
                color=COLOURS[number % len(COLOURS)],
                hatch=_HATCHES[number % len(_HATCHES)],
                edgecolor="white",
                linewidth=0,
            )
        axis.set(title=title, xlabel=(labels or {}).get(title, "number"), ylabel="share")
        if ticks and title in ticks:
            axis.set_xticks(range(len(ticks[title])), ticks[title])
        else:
            axis.locator_params(axis="x", integer=True)
    figure.legend(
        [handles[name] for name in names], names, loc="outside upper right", ncols=len(names)
    )
    return figure
