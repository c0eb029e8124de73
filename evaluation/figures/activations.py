"""What the hidden units do while a sequence is played."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from evaluation.figures.style import Figure, bound_of, caption, diverging, scale, sheet, styled
from evaluation.figures.track import Track, draw, label_time

_QUANTILE = 0.995


@styled
def activations(features: Mapping[str, np.ndarray], track: Track) -> Figure:
    """Hidden activations over time under the frames that caused them, model beneath model.

    The units of each are in the order of their mean, on a scale about zero that the largest half
    per cent of the numbers go beyond.

    Args:
        features: what they are of which model, and `(frames, units)`, of the same sequence.
        track: the sequence.
    """
    figure = sheet(54 + (62 if len(features) < 3 else 46) * len(features))
    heights = (1, *([2] * len(features)))
    top, *others = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    draw(top, track)
    top.set_title("Frames")
    for axis, (title, values) in zip(others, features.items(), strict=True):
        ordered = values[:, np.argsort(values.mean(axis=0))]
        image = diverging(
            axis,
            ordered.T,
            bound_of(values, _QUANTILE),
            origin="lower",
            extent=(0, track.end, 0, values.shape[1]),
        )
        axis.set(ylabel="hidden unit, by its mean", title=title)
        scale(figure, image, axis, "activation")
    label_time(others[-1], track)
    caption(
        figure,
        "Each colour scale is its model's own and ends where 99.5 % of the numbers are within it.",
    )
    return figure
