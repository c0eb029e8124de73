"""How the units of a frame hang together: conditional precision and covariance matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from evaluation.figures.style import Figure, caption, diverging, scale, sheet, styled
from evaluation.figures.track import Track

_QUANTILE = 0.995
_LEAST = 0.01  # of the mean diagonal


@styled
def precision(
    precisions: Mapping[str, np.ndarray],
    covariances: Mapping[str, np.ndarray],
    chosen: Sequence[int],
    track: Track,
    note: str = "",
) -> Figure:
    """Precision and covariance matrices of chosen frames, each kind on one scale about zero.

    Diagonals dwarf the rest: a scale ends where 99.5 % of the numbers off the diagonal are within
    it, but not below a hundredth of the mean diagonal, lest rounding look like structure. What lies
    beyond has the colour of its end.

    Args:
        precisions: name and `(n, V, V)` of the chosen frames; a row of the figure each.
        covariances: the same for covariances.
        chosen: numbers of the frames.
        track: the sequence.
        note: what the caption says first.
    """
    rows = [*precisions.items(), *covariances.items()]
    size = 148 / len(chosen)
    figure = sheet(26 + len(rows) * min(size + 8, 62))
    axes = figure.subplots(len(rows), len(chosen), squeeze=False, sharex=True, sharey=True)
    ends, label = track.unit_axis
    for part, matrices, name in (
        (axes[: len(precisions)], precisions, "precision"),
        (axes[len(precisions) :], covariances, "covariance"),
    ):
        bound = _bound(np.stack(list(matrices.values())))
        for line, (title, values) in zip(part, matrices.items(), strict=True):
            for axis, number, matrix in zip(line, chosen, values, strict=True):
                # Square, with the first unit top left, as matrices are written.
                where = (*ends, *ends[::-1])
                image = diverging(axis, matrix, bound, aspect="equal", extent=where)
                axis.set_title(f"{title}\n{track.name(number)}")
        scale(figure, image, part, f"{name} (normalised units)", extend="both")
    for axis in axes[-1]:
        axis.set_xlabel(label)
    for axis in axes[:, 0]:
        axis.set_ylabel(label)
    clipped = (
        "Scales end where 99.5 % of the entries off the diagonal are within, but not below 1 % of "
        "the mean diagonal; diagonals are clipped."
    )
    caption(figure, f"{note} {clipped}".strip())
    return figure


def _bound(matrices: np.ndarray) -> float:
    diagonal = np.diagonal(matrices, axis1=-2, axis2=-1)
    off = matrices[..., ~np.eye(matrices.shape[-1], dtype=bool)]
    return max(
        float(np.quantile(np.abs(off), _QUANTILE)) if off.size else 0.0,
        _LEAST * float(diagonal.mean()),
    )
