"""The log-weights that partition functions were estimated with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluation.comparison import Value, written
from evaluation.figures.style import ACCENT, COLOURS, Figure, caption, sheet, styled


@styled
def weights(
    log_weights: np.ndarray,
    log_z: np.ndarray,
    stderr: np.ndarray,
    ess: np.ndarray,
    collapsed: np.ndarray,
    names: Sequence[str],
    note: str = "",
) -> Figure:
    """Histograms of the log-weights of chosen frames, and how few chains carry the estimate.

    Args:
        log_weights: `(chains, n)`, with the other fields of `evaluation.result.LogPartition`.
        log_z, stderr, ess, collapsed: `(n,)` each.
        names: of the frames.
        note: what the caption says.
    """
    chains, count = log_weights.shape
    figure = sheet(116)
    axes = figure.subplots(2, count, squeeze=False, sharey="row")
    for n, (top, bottom) in enumerate(axes.T):
        top.hist(log_weights[:, n], bins="auto", color=COLOURS[4], edgecolor="white", linewidth=0.4)
        top.axvline(log_z[n], color=ACCENT, label="log Ẑ")
        if np.isfinite(stderr[n]):
            ends = log_z[n] - stderr[n], log_z[n] + stderr[n]
            top.axvspan(*ends, color=ACCENT, alpha=0.3, linewidth=0)
        said = f"{names[n]}\nlog Ẑ = {written(Value(log_z[n], stderr[n]), '.2f')}"
        bad = bool(collapsed[n])
        top.set_title(
            f"{said}\nESS {ess[n]:.1f} of {chains}" + (": COLLAPSED" if bad else ""),
            color=ACCENT if bad else "black",
        )
        top.set_xlabel("log-weight (nats)")
        share = np.sort(np.exp(log_weights[:, n] - log_weights[:, n].max()))[::-1]
        carried = np.concatenate([[0.0], share.cumsum() / share.sum()])
        bottom.step(range(chains + 1), 100 * carried, where="post", color=COLOURS[0])
        bottom.plot([0, chains], [0, 100], ":", color="0.4", label="equal weights")
        bottom.set(xlabel="chains, the heaviest first", ylim=(0, 103), xlim=(0, chains))
        bottom.grid(True)
    axes[0, 0].set_ylabel("chains")
    axes[0, 0].legend(loc="upper left")
    axes[1, 0].set_ylabel("share of all weights (%)")
    axes[1, 0].legend(loc="lower right")
    if note:
        caption(figure, note)
    return figure
