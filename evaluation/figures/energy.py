"""Energy, partition function and likelihood over time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from evaluation.figures.style import ACCENT, COLOURS, Figure, caption, sheet, styled
from evaluation.figures.track import Track, draw, label_time


class _Row(NamedTuple):
    title: str
    label: str
    values: np.ndarray
    stderr: np.ndarray | None


@styled
def energy(
    track: Track,
    log_prob: np.ndarray,
    log_prob_stderr: np.ndarray | None = None,
    free_energy: np.ndarray | None = None,
    log_z: np.ndarray | None = None,
    log_z_stderr: np.ndarray | None = None,
    kind: str = "exact",
    frame: str = "frame",
    note: str = "",
) -> Figure:
    """`log p(v_n | v_<n)` of every frame; of energy models the free energy and `log Z` above it.

    Args:
        track: the sequence.
        log_prob: `(frames,)`, NaN at frames that are not scored.
        log_prob_stderr: its standard error, where it has one; a band of one each way.
        free_energy: `F(v_n)`, `(frames,)`.
        log_z: `log Z(u_{n-1})`, `(frames,)`, with its standard error.
        kind: what the likelihood is: "exact", "estimate" or "lower bound".
        frame: what nats are counted by (`cgrnn.units.frame`).
        note: what the caption says.
    """
    mark = {"exact": "=", "estimate": "≈", "lower bound": "≥"}[kind]
    mean = f"{np.nanmean(log_prob):.2f}".replace("-", "−")
    rows = [
        _Row("Free energy F(vₙ)", "nats", free_energy, None) if free_energy is not None else None,
        _Row("log Z(uₙ₋₁)", "nats", log_z, log_z_stderr) if log_z is not None else None,
        _Row(
            f"log p(vₙ | v₁ … vₙ₋₁): {kind}, mean {mark} {mean} nats a {frame}",
            f"nats a\n{frame}",
            log_prob,
            log_prob_stderr,
        ),
    ]
    shown = [row for row in rows if row is not None]
    figure = sheet(18 + 34 * (1 + len(shown)))
    top, *axes = figure.subplots(1 + len(shown), 1, sharex=True)
    draw(top, track)
    top.set_title("Frames")
    for axis, row in zip(axes, shown, strict=True):
        axis.plot(track.times, row.values, color=COLOURS[0], marker=".")
        if row.stderr is not None and row.stderr.any():
            ends = row.values - row.stderr, row.values + row.stderr
            axis.fill_between(track.times, *ends, color=ACCENT, alpha=0.4, linewidth=0)
        axis.set(title=row.title, ylabel=row.label)
        axis.grid(True)
    label_time(axes[-1], track)
    if note:
        caption(figure, note)
    return figure
