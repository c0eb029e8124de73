"""The result of a sweep over options of training: its table and its plot."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from cgrnn.settings import MARKS
from evaluation.figures import style

Run = Mapping[str, Any]
"""A point of the grid: `options` that were varied, `run` (where), `state` "complete" or "failed".
Of a complete one: `valid` (nats a `frame`), its `kind` and, by annealed importance sampling, the
`spread` of the log-weights; `best_epoch`, `epochs`, `seconds`, `parameters`, `fingerprint` (of its
data). Of a failed one: `reason`."""

KINDS = {
    "exact": "=: exact",
    "estimate": "≈: short annealed importance sampling",
    "lower bound": "≥: lower bound by one path of latents, or few",
}
_COLUMNS = ("parameters", "valid", "frame", "kind", "spread", "best_epoch", "epochs", "seconds")
_HEADS = ("parameters", "validation, nats a {frame}", "best epoch", "epochs", "seconds")
_FILES = ("data", "config")  # options that name one
_WIDE = 3  # heat maps side by side


def word(value: Any) -> str:
    """An option's value as one types it.

    Example:
        >>> word(0.001), word([400, 400]), word(True), word(None)
        ('0.001', '[400,400]', 'true', 'null')
    """
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _shown(name: str, value: Any) -> str:
    return Path(value).stem if name in _FILES and value else word(value)


def title(options: Mapping[str, Any]) -> str:
    """Options as words, files by their names alone.

    Example:
        >>> title({"latent_dim": 20, "recurrent_dim": 200})
        'latent_dim=20,recurrent_dim=200'
        >>> title({"data": "sets/jsb.h5", "mlp_dims": [400, 400]})
        'data=jsb,mlp_dims=[400,400]'
    """
    return ",".join(f"{name}={_shown(name, value)}" for name, value in options.items())


def ranked(runs: Sequence[Run]) -> list[Run]:
    """Complete points by validation, best first and one data set after the other; then the failed.

    Example:
        >>> points = [{"state": "complete", "fingerprint": "a", "valid": x} for x in (-3.0, -2.0)]
        >>> [run["valid"] for run in ranked(points)]
        [-2.0, -3.0]
    """
    complete = _complete(runs)
    sets = list(dict.fromkeys(run["fingerprint"] for run in complete))
    complete.sort(key=lambda run: (sets.index(run["fingerprint"]), -run["valid"]))
    return complete + [run for run in runs if run["state"] != "complete"]


def best(runs: Sequence[Run]) -> Run | None:
    """The point with the highest validation; None where data differ, or all points failed."""
    complete = _complete(runs)
    if not complete or _data_differ(runs):
        return None
    return max(complete, key=lambda run: float(run["valid"]))


def _complete(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if run["state"] == "complete"]


def _data_differ(runs: Sequence[Run]) -> bool:
    return len({run["fingerprint"] for run in _complete(runs)}) > 1


def _frame(runs: Sequence[Run]) -> str:
    """What nats are counted by (`cgrnn.units.frame`); points of earlier versions do not say."""
    return " or ".join(sorted({run.get("frame") or "frame" for run in _complete(runs)})) or "frame"


def notes(runs: Sequence[Run]) -> list[str]:
    """What must be known before the figures of a table are compared."""
    from cgrnn.history import SPREAD_ALLOWED

    complete = _complete(runs)
    kinds = [kind for kind in KINDS if any(run["kind"] == kind for run in complete)]
    lines = [f"Validation log-likelihoods in nats a {_frame(runs)}, higher is better; "]
    lines[0] += "; ".join(KINDS[kind] for kind in kinds) + "."
    if len(kinds) > 1:
        lines.append("Kinds differ: a bound is low, and an estimate is high on average.")
    if _data_differ(runs):
        lines.append("Data differ: figures on one data set do not compare with those on another.")
    if any((run["spread"] or 0) > SPREAD_ALLOWED for run in complete):
        lines.append("(!) The log-weights deviate by more than one nat: this figure flatters.")
    lines.append("A run for each point: small differences may be due to its seed.")
    return lines


def _label(run: Run, form: str = ".3f") -> str:
    from cgrnn.history import SPREAD_ALLOWED

    flatters = " (!)" if (run["spread"] or 0) > SPREAD_ALLOWED else ""
    return f"{MARKS[run['kind']]}{format(run['valid'], form)}{flatters}"


def cells(runs: Sequence[Run], names: Sequence[str]) -> list[list[str]]:
    """Rows of text, the head first: a row a point, its options and what came of it."""
    rows = [[*names, *(head.format(frame=_frame(runs)) for head in _HEADS)]]
    for run in ranked(runs):
        options = [_shown(name, run["options"][name]) for name in names]
        if run["state"] == "complete":
            counts = (f"{run['best_epoch']}", f"{run['epochs']}", f"{run['seconds']:.1f}")
            rows.append([*options, f"{run['parameters']:,}", _label(run), *counts])
        else:
            rows.append([*options, "", "failed", "", "", ""])
    return rows


def text(runs: Sequence[Run], names: Sequence[str]) -> str:
    """The table for a terminal."""
    rows = cells(runs, names)
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = [
        "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, *notes(runs)]) + "\n"


def markdown(runs: Sequence[Run], names: Sequence[str]) -> str:
    """The table as Markdown, with the reasons of the failed points beneath."""
    head, *rows = ([cell.replace("|", "\\|") for cell in row] for row in cells(runs, names))
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---:"] * len(head), *rows)]
    lines += ["", *(f"{note}  " for note in notes(runs))]
    failed = [run for run in runs if run["state"] != "complete"]
    lines += [f"Failed: `{title(run['options'])}`: {run['reason']}  " for run in failed]
    return "\n".join(lines) + "\n"


def comma_separated(runs: Sequence[Run], names: Sequence[str]) -> str:
    """The table as CSV, figures in full."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*names, *_COLUMNS, "run", "state", "reason"])
    for run in ranked(runs):
        options = [word(run["options"][name]) for name in names]
        found = [run.get(name) for name in (*_COLUMNS, "run", "state", "reason")]
        writer.writerow([*options, *found])
    return file.getvalue()


def values(runs: Sequence[Run], name: str) -> list[Any]:
    """The values of an option, numbers in their order and words as they come.

    Example:
        >>> values([{"options": {"layers": n}} for n in (2, 1, 2)], "layers")
        [1, 2]
    """
    found = list({word(run["options"][name]): run["options"][name] for run in runs}.values())
    return sorted(found) if _numbers(found) else found


def _numbers(found: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in found)


def array(runs: Sequence[Run], names: Sequence[str]) -> np.ndarray:
    """Validation log-likelihoods over the options, nats a frame.

    Args:
        runs: the points.
        names: options, one a dimension.

    Returns:
        An array of as many dimensions, each in the order of `values`; NaN where a point failed or
        is not there.
    """
    return _filled(runs, names, lambda run: run["valid"], math.nan).astype(float)


def _filled(
    runs: Sequence[Run], names: Sequence[str], entry: Callable[[Run], Any], otherwise: Any
) -> np.ndarray:
    """An entry for each complete point, in an array over the options."""
    orders = [[word(value) for value in values(runs, name)] for name in names]
    filled = np.full([len(order) for order in orders], otherwise, dtype=object)
    for run in _complete(runs):
        place = [o.index(word(run["options"][n])) for n, o in zip(names, orders, strict=True)]
        filled[tuple(place)] = entry(run)
    return filled


def _labels(runs: Sequence[Run], names: Sequence[str]) -> np.ndarray:
    """The points' likelihoods in words, with digits enough to tell them apart."""
    found = [run["valid"] for run in _complete(runs)]
    form = ".3f" if max(found) - min(found) < 0.1 else ".2f"
    return _filled(runs, names, lambda run: _label(run, form), "failed")


@style.styled
def figure(runs: Sequence[Run], names: Sequence[str]) -> Figure:
    """Validation log-likelihood over the options that were varied.

    One option gives a line; two give a heat map, the value in each cell; more give heat maps side
    by side on one scale. Options of numbers come first for the axes. A failed point is grey.

    Args:
        runs: the points, at least one of them complete.
        names: the options.
    """
    if len(names) == 1:
        drawn = style.sheet(85)
        _line(drawn.subplots(), runs, names[0])
    else:
        drawn = _maps(runs, sorted(names, key=lambda name: not _numbers(values(runs, name))))
    drawn.suptitle("Validation log-likelihood", x=0.01, ha="left")
    style.caption(drawn, " ".join(notes(runs)))
    return drawn


def _line(axis: Axes, runs: Sequence[Run], name: str) -> None:
    options, found = values(runs, name), array(runs, [name])
    numbers = _numbers(options)
    places = options if numbers else list(range(len(options)))
    axis.plot(places, found, **style.line(0) | ({} if numbers else {"linestyle": "none"}))
    if numbers and min(options) > 0 and max(options) > 30 * min(options):
        axis.set_xscale("log")
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
    lowest = float(np.nanmin(found))
    axis.update_datalim([(place, lowest) for place in places])
    for place, value, label in zip(places, found, _labels(runs, [name]), strict=True):
        at = (place, lowest if math.isnan(value) else value)
        axis.annotate(label, at, (0, 6), textcoords="offset points", ha="center", bbox=paper)
    axis.set_xticks(places, [_shown(name, value) for value in options])
    axis.minorticks_off()
    axis.margins(0.08, 0.15)
    axis.set(xlabel=name, ylabel=f"nats a {_frame(runs)}")
    axis.grid(visible=True)


def _maps(runs: Sequence[Run], names: Sequence[str]) -> Figure:
    """Heat maps over the first two options, one for each choice of the others."""
    down, along, *others = names
    order = [*others, down, along]
    found, labels = array(runs, order), _labels(runs, order)
    choices = list(np.ndindex(found.shape[:-2]))
    wide = min(_WIDE, len(choices))
    high = math.ceil(len(choices) / wide)
    drawn = style.sheet(30 + high * (18 + 9 * found.shape[-2]))
    axes = drawn.subplots(high, wide, squeeze=False).ravel()
    colours = Normalize(np.nanmin(found), np.nanmax(found))
    for axis, choice in zip(axes, choices, strict=False):
        _map(axis, found[choice], labels[choice], colours)
        axis.set_xticks(
            range(found.shape[-1]), [_shown(along, value) for value in values(runs, along)]
        )
        axis.set_yticks(
            range(found.shape[-2]), [_shown(down, value) for value in values(runs, down)]
        )
        axis.set(xlabel=along, ylabel=down)
        chosen = zip(others, choice, strict=True)
        axis.set_title(title({name: values(runs, name)[n] for name, n in chosen}))
    for axis in axes[len(choices) :]:
        axis.set_visible(False)
    style.scale(drawn, axes[0].images[0], list(axes[: len(choices)]), f"nats a {_frame(runs)}")
    return drawn


def _map(axis: Axes, found: np.ndarray, labels: np.ndarray, colours: Normalize) -> None:
    """A cell for each point, its value in it; a failed one is grey."""
    axis.set_facecolor("0.88")
    shown = np.ma.masked_invalid(found)
    image = axis.imshow(shown, cmap=style.LEVELS, norm=colours, aspect="auto", origin="lower")
    for (row, column), value in np.ndenumerate(found):
        dark = not math.isnan(value) and sum(image.to_rgba(value)[:3]) < 1.5
        colour = "white" if dark else "black"
        axis.text(column, row, str(labels[row, column]), ha="center", va="center", color=colour)
