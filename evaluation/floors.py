"""Models without parameters worth the name: what any sequence model must beat.

They treat every key or unit on its own, are fitted on the training split by counting, with one
count added to each outcome so that a silent key stays possible, and have exact likelihoods.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

Sequences = Iterable[np.ndarray]
"""Rolls `(length, V)` of zeros and ones, which are gone through once."""


@dataclass(frozen=True)
class Floor:
    """Exact test log-likelihood of a counted model, in nats of the frames that it was given."""

    name: str
    per_frame: float
    per_sequence: float


def independent(train: Sequences, test: Sequences, given: int = 0) -> Floor:
    """Every key on with its frequency in the training frames, whatever the past.

    Args:
        train: what to count.
        test: what to score.
        given: how many first frames of each sequence are told, not scored.

    Example:
        >>> roll = np.array([[1], [0]])
        >>> independent([roll], [roll]).per_frame  # a fair coin
        -0.6931471805599453
    """
    on, frames = np.zeros(()), 0
    for roll in train:
        on, frames = on + roll.sum(axis=0, dtype=np.float64), frames + len(roll)
    p = (on + 1) / (frames + 2)
    scores = [_bernoulli(roll, p) for roll in test]
    return _averages("independent Bernoulli", scores, given)


def markov(train: Sequences, test: Sequences, given: int = 0) -> Floor:
    """Every key a two-state Markov chain; a first frame by the frequencies of first frames.

    Args: those of `independent`.
    """
    first, sequences = np.zeros(()), 0
    went_on, times = ([np.zeros(()), np.zeros(())] for _ in range(2))  # from off, from on
    for roll in train:
        first, sequences = first + roll[0].astype(np.float64), sequences + 1
        before, now = roll[:-1] > 0, roll[1:] > 0
        for was in (0, 1):
            went_on[was] = went_on[was] + (now & (before == was)).sum(axis=0)
            times[was] = times[was] + (before == was).sum(axis=0)
    start = (first + 1) / (sequences + 2)
    off, on = ((a + 1) / (b + 2) for a, b in zip(went_on, times, strict=True))
    scores = [
        _bernoulli(roll, np.concatenate([start[None], np.where(roll[:-1] > 0, on, off)]))
        for roll in test
    ]
    return _averages("Markov chain per key", scores, given)


def gaussian(train: Sequences, test: Sequences, given: int = 0) -> Floor:
    """Every unit Gaussian with its mean and deviation over the training frames, whatever the past.

    Args: those of `independent`, over continuous frames.

    Example:
        >>> frames = np.array([[1.0], [-1.0]])
        >>> gaussian([frames], [frames]).per_frame  # unit deviation: -½ log 2π - ½
        -1.4189385332046727
    """
    total, squares, frames = np.zeros(()), np.zeros(()), 0
    for block in train:
        total = total + block.sum(axis=0, dtype=np.float64)
        squares = squares + np.square(block, dtype=np.float64).sum(axis=0)
        frames += len(block)
    mean = total / frames
    variance = np.maximum(squares / frames - mean**2, np.finfo(np.float32).tiny)
    scores = [
        -0.5 * (np.log(2 * np.pi * variance) + (block - mean) ** 2 / variance).sum(axis=-1)
        for block in test
    ]
    return _averages("independent Gaussian", scores, given)


def frequencies(train: Sequences, test: Sequences, given: int = 0) -> Floor:
    """Every note or chord with its frequency in training, whatever the past.

    Args: those of `independent`, over sequences `(length, 1)` of classes.

    Example:
        >>> notes = np.array([[0], [1]])
        >>> frequencies([notes], [notes]).per_frame  # a fair coin
        -0.6931471805599453
    """
    train, test = list(train), list(test)
    count = np.bincount(np.concatenate([*train, *test]).ravel().astype(int), minlength=1) * 0.0
    for notes in train:
        count += np.bincount(notes.ravel().astype(int), minlength=len(count))
    log_p = np.log(count + 1) - np.log((count + 1).sum())
    return _averages(
        "note frequencies", [log_p[notes.ravel().astype(int)] for notes in test], given
    )


def _bernoulli(v: np.ndarray, p: np.ndarray) -> np.ndarray:
    return np.where(v > 0, np.log(p), np.log1p(-p)).sum(axis=-1)


def _averages(name: str, scores: list[np.ndarray], given: int) -> Floor:
    scores = [score[given:] for score in scores if len(score) > given]
    per_sequence = float(np.mean([score.mean() for score in scores]))
    return Floor(name, float(np.concatenate(scores).mean()), per_sequence)
