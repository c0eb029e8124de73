"""How all figures look: width, type, colours, and the one way to write them."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

MILLIMETRE = 1 / 25.4  # inches
WIDTH = 180 * MILLIMETRE
FONT = 8  # points, of the smallest type

# Okabe & Ito's colours, which the colour-blind tell apart, the pale yellow left out; dashes and
# markers tell the lines apart in print without colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
ACCENT = COLOURS[1]

DIVERGING = "RdBu_r"  # signed numbers, white at zero
SEQUENTIAL = "Blues"  # probabilities and shares
LEVELS = "cividis"  # decibels, similarities

_SETTINGS = {
    "font.size": FONT,
    "axes.titlesize": FONT + 1,
    "axes.labelsize": FONT,
    "xtick.labelsize": FONT,
    "ytick.labelsize": FONT,
    "legend.fontsize": FONT,
    "figure.titlesize": FONT + 2,
    "axes.titlelocation": "left",
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "grid.color": "0.88",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # letters stay letters: they can be searched and edited
    "savefig.dpi": 200,
}

Arguments = ParamSpec("Arguments")


def styled(draw: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """Let a function draw in this style, and leave matplotlib's settings as they were."""

    @functools.wraps(draw)
    def drawn(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure:
        with matplotlib.rc_context(_SETTINGS):  # type: ignore[arg-type]
            return draw(*args, **kwargs)

    return drawn


def sheet(height: float) -> Figure:
    """An empty figure of the common width and of so many millimetres' height."""
    return Figure(figsize=(WIDTH, height * MILLIMETRE), layout="constrained")


def save(figure: Figure, file: Path, kind: str) -> None:
    """Write a figure; kind is "png" or "pdf", whatever the file is called."""
    # No date: the same figure is the same file.
    metadata = {"CreationDate": None} if kind == "pdf" else None
    with matplotlib.rc_context(_SETTINGS):  # type: ignore[arg-type]
        figure.savefig(file, format=kind, metadata=metadata)


def line(number: int) -> dict[str, Any]:
    """Colour, dashes and marker of the line of this number."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": DASHES[number % len(DASHES)],
        "marker": MARKERS[number % len(MARKERS)],
    }


def unmarked(number: int) -> dict[str, Any]:
    """The same for a line of so many points that markers would hide it."""
    return line(number) | {"marker": ""}


def caption(figure: Figure, text: str) -> None:
    """What must be known to read a figure, beneath it."""
    lines = textwrap.fill(text, 118)
    figure.supxlabel(lines, fontsize=FONT, x=0.01, ha="left", color="0.25")


def bound_of(values: np.ndarray, quantile: float = 1.0) -> float:
    """The end of a scale about zero that shows this share of the values, above 0."""
    size = np.abs(values)
    return float(np.quantile(size, quantile)) or float(size.max(initial=0.0)) or 1.0


def diverging(axis: Axes, values: np.ndarray, bound: float, **where: Any) -> Any:
    """An image of signed numbers on a scale from `-bound` to `bound`."""
    settings: dict[str, Any] = {"aspect": "auto", "interpolation": "nearest", **where}
    return axis.imshow(values, cmap=DIVERGING, vmin=-bound, vmax=bound, **settings)


def scale(figure: Figure, image: Any, axes: Any, label: str, **settings: Any) -> None:
    """The colour scale of an image, with arrows where numbers lie beyond its ends."""
    shown = np.asarray(image.get_array())
    below, above = shown.min() < image.norm.vmin, shown.max() > image.norm.vmax
    extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[below, above]
    settings = {"extend": extend, **settings}
    figure.colorbar(image, ax=axes, label=label, pad=0.01, **settings).outline.set_linewidth(0.6)
