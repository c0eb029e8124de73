"""The unit of log-likelihoods: nats of frames as a model sees them, or as their file has them.

A model of continuous frames sees `x = (v - mean)/std`, with the mean and deviation of the training
cells. Its density of a frame `x` of V units is one of the frame `v` in the file's own units by the
change of variables `p(v) = p(x) std^-V`, so that `log p(v) = log p(x) - V log std`. Probabilities
of binary frames and of notes have no such unit: they are not normalised (mean 0, std 1).
"""

from __future__ import annotations

import math


def normalised(mean: float, std: float) -> bool:
    """Whether frames that come as `(v - mean)/std` are other than those of the file."""
    return (mean, std) != (0.0, 1.0)


def frame(mean: float, std: float) -> str:
    """What nats are counted by, in few words.

    Example:
        >>> frame(0.0, 1.0), frame(0.0, 0.04)
        ('frame', 'normalised frame')
    """
    return "normalised frame" if normalised(mean, std) else "frame"


def unit(mean: float, std: float) -> str:
    """The unit of a log-likelihood per frame, in full."""
    of = " of normalised frames, (v - mean)/std" if normalised(mean, std) else ""
    return f"nats per frame{of}"


def to_file_units(visible_dim: int, std: float) -> float:
    """`-V log std`: what added to nats per normalised frame gives nats per frame of the file.

    Args:
        visible_dim: V, units of a frame.
        std: what the frames were divided by.

    Example:
        >>> round(to_file_units(150, 0.036), 1)  # quiet audio: a narrow density is a high one
        498.6
        >>> to_file_units(88, 1.0)
        0.0
    """
    return visible_dim * math.log(1 / std)


def conversion(std: float, file_units: float | None) -> str:
    """What a reader of nats of normalised frames is told.

    Args:
        std: what the frames were divided by.
        file_units: by `to_file_units`; None where V is not known.

    Example:
        >>> conversion(0.036, 498.6)
        'nats are of normalised frames, (v − mean)/std; for those of the file add 498.6 a frame'
    """
    number = (
        f"−V log {std:.4g} (of V units)"
        if file_units is None
        else f"{file_units:.1f}".replace("-", "−")
    )
    return (
        f"nats are of normalised frames, (v − mean)/std; for those of the file add {number} a frame"
    )
