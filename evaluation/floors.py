"""Two models without parameters worth the name: what any sequence model must beat.

Both treat every key on its own, are fitted on the training split by counting, with one count added
to each outcome so that a silent key stays possible, and have exact likelihoods.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Floor:
    """Exact test log-likelihood of a counted model, nats, first frames included."""

    name: str
    per_frame: float
    per_sequence: float


def _bernoulli(v: np.ndarray, p: np.ndarray) -> np.ndarray:
    return np.where(v > 0, np.log(p), np.log1p(-p)).sum(axis=-1)


def _starts(lengths: np.ndarray) -> np.ndarray:
    return np.cumsum(lengths) - lengths


def _averages(name: str, score: np.ndarray, lengths: np.ndarray) -> Floor:
    sums = np.add.reduceat(score, _starts(lengths))
    return Floor(name, float(score.mean()), float((sums / lengths).mean()))


def independent(
    train: np.ndarray, lengths: np.ndarray, frames: np.ndarray, frames_lengths: np.ndarray
) -> Floor:
    """Every key on with its frequency in the training frames, whatever the past.

    Args:
        train, lengths: training frames end to end `(total, V)` and lengths of the sequences.
        frames, frames_lengths: the split to score.

    Example:
        >>> roll = np.array([[1], [0]])
        >>> independent(roll, np.array([2]), roll, np.array([2])).per_frame  # a fair coin
        -0.6931471805599453
    """
    p = (train.sum(axis=0, dtype=np.float64) + 1) / (len(train) + 2)
    return _averages("independent Bernoulli", _bernoulli(frames, p), frames_lengths)


def markov(
    train: np.ndarray, lengths: np.ndarray, frames: np.ndarray, frames_lengths: np.ndarray
) -> Floor:
    """Every key a two-state Markov chain; a first frame by the frequencies of first frames.

    Args: those of `independent`.
    """
    first = np.zeros(len(train), dtype=bool)
    first[_starts(lengths)] = True
    start = (train[first].sum(axis=0, dtype=np.float64) + 1) / (first.sum() + 2)
    later = np.flatnonzero(~first)
    before, now = train[later - 1] > 0, train[later] > 0
    on = [
        ((now & (before == was)).sum(axis=0) + 1) / ((before == was).sum(axis=0) + 2)
        for was in (False, True)
    ]
    previous = np.roll(frames, 1, axis=0)
    p = np.where(previous > 0, on[1], on[0])
    p[_starts(frames_lengths)] = start
    return _averages("Markov chain per key", _bernoulli(frames, p), frames_lengths)
