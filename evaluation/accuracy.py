"""Predicted against true frames: accuracy of piano-rolls, error of continuous frames."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from cgrnn.batches import Batch
from cgrnn.layers import EnergyDensity
from cgrnn.models.notes import NoteRNN
from cgrnn.models.recurrent import RecurrentModel
from cgrnn.models.sequence import SequenceModel
from samplers import draw, watch
from samplers.diagnostics import R_HAT_WANTED

PROTOCOLS = ("prediction", "reconstruction")
WATCHED_FRAMES, WATCHED_CHAINS = 30, 20


def frame_accuracy(predicted: Tensor, truth: Tensor) -> float:
    """`Σ TP / Σ (TP + FP + FN)` over all frames: the share of notes right among those in either.

    Frames silent in both count in neither sum; silence against silence throughout scores 1.

    Source: Poliner & Ellis 2006, the "Accuracy" of `mir_eval.multipitch`.

    Args:
        predicted: zeros and ones, `(*S, frames, V)`; the sums run over the samples too, so that
            this is the expected score of one draw.
        truth: `(frames, V)`.

    Example:
        >>> truth = torch.tensor([[1.0, 1.0, 0.0]])
        >>> frame_accuracy(torch.tensor([[1.0, 0.0, 1.0]]), truth)  # right, missed, false
        0.3333333333333333
    """
    return _share(*_counts(predicted, truth))


def _counts(predicted: Tensor, truth: Tensor) -> tuple[float, float]:
    """Notes right, and notes in either roll."""
    either = torch.maximum(predicted, truth.expand_as(predicted))
    return (
        float((predicted * truth).sum(dtype=torch.float64)),
        float(either.sum(dtype=torch.float64)),
    )


def _share(right: float, either: float) -> float:
    return right / either if either else 1.0


@torch.no_grad()
def accuracies(
    model: SequenceModel,
    batches: Iterable[Batch],
    samples: int = 5,
    generator: torch.Generator | None = None,
) -> dict[str, float]:
    """Frame accuracy of a split under two protocols that must not be confused.

    `prediction`: each frame drawn given the frames before it alone. `reconstruction`: drawn after
    one Gibbs sweep that starts at the frame itself, the paper's protocol; it measures how much of a
    frame the latents keep, and is high even where the past tells nothing.

    Args:
        model: in evaluation mode.
        batches: the split.
        samples: draws of each frame.
        generator: source of the draws.
    """
    right, either = dict.fromkeys(PROTOCOLS, 0.0), dict.fromkeys(PROTOCOLS, 0.0)
    for protocol, drawn, truth in _drawn(model, batches, samples, generator):
        counts = _counts(drawn, truth)
        right[protocol] += counts[0]
        either[protocol] += counts[1]
    return {name: _share(right[name], either[name]) for name in PROTOCOLS}


@torch.no_grad()
def errors(
    model: SequenceModel,
    batches: Iterable[Batch],
    samples: int = 5,
    generator: torch.Generator | None = None,
) -> dict[str, float]:
    """Root of the mean squared error of draws of continuous frames, by `accuracies`' protocols.

    It is in units of the training frames' deviation where the batches are normalised. A draw from
    the truth itself does worse, by the factor `√2`, than its mean would.

    Args: those of `accuracies`.
    """
    squares, cells = dict.fromkeys(PROTOCOLS, 0.0), dict.fromkeys(PROTOCOLS, 0)
    for protocol, drawn, truth in _drawn(model, batches, samples, generator):
        squares[protocol] += float((drawn - truth).square().sum(dtype=torch.float64))
        cells[protocol] += drawn.numel()
    return {name: math.sqrt(squares[name] / cells[name]) for name in PROTOCOLS}


@torch.no_grad()
def note_errors(model: NoteRNN, batches: Iterable[Batch]) -> dict[str, Any]:
    """How often the likeliest note is the note, and how far it is from it on average.

    Args:
        model: in evaluation mode; without latents, its reconstruction is its prediction.
        batches: the split.

    Returns:
        `accuracy` by both protocols, and `mean_error`: in classes, which are semitones where the
        model takes pitches and mean nothing where it takes notes and chords.
    """
    off = torch.cat([model.deviations(batch.frames, batch.lengths) for batch in batches])
    right = float((off == 0).double().mean())
    return {
        "accuracy": dict.fromkeys(PROTOCOLS, right),
        "mean_error": float(off.abs().double().mean()),
    }


def _drawn(
    model: SequenceModel, batches: Iterable[Batch], samples: int, generator: torch.Generator | None
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(protocol, draws `(samples, frames, V)`, truth `(frames, V)`) of each batch in turn."""
    for batch in batches:
        inside = model.scored(batch.lengths, batch.frames.shape[1])
        drawn = model.predict(batch.frames, generator, samples)
        yield "prediction", drawn[:, inside], batch.frames[inside]
        drawn = model.reconstruct(batch.frames, generator, samples, batch.lengths)
        yield "reconstruction", drawn[:, inside], batch.frames[inside]


@torch.no_grad()
def mixing(
    model: RecurrentModel, batch: Batch, generator: torch.Generator | None = None
) -> dict[str, Any] | None:
    """Whether the chains that draw the predictions have forgotten where they began.

    On some frames of a batch, chains make the model's sweeps as for a prediction, and as many
    again, which are watched (`samplers.watch`).

    Args:
        model: in evaluation mode.
        batch: frames to choose from.
        generator: source of the draws.

    Returns:
        `sweeps`, and the medians over the frames of `r_hat` and of `autocorrelation_time` in
        sweeps, of the worse of two statistics; `warning`, empty where half of the frames have
        mixed. None for a density that is drawn from exactly.
    """
    inside = model.scored(batch.lengths, batch.frames.shape[1])
    density = model.layer(model.contexts(batch.frames, generator)[0][inside])
    if not isinstance(density, EnergyDensity):
        return None
    some = density[torch.randperm(density.batch_shape[0], generator=generator)[:WATCHED_FRAMES]]
    v = draw(some, (WATCHED_CHAINS,), model.sweeps, generator)
    found = watch(some, v, max(4, model.sweeps), generator).diagnostics.values()
    r_hat = max(float(one.r_hat.median()) for one in found)
    time = max(float(one.autocorrelation_time.median()) for one in found)
    warning = ""
    if r_hat > R_HAT_WANTED:
        warning = (
            f"the chains that draw predictions have not mixed after {model.sweeps} sweeps (R-hat "
            f"{r_hat:.2f}, below {R_HAT_WANTED} wanted; autocorrelation time {time:.0f} sweeps): "
            "accuracy and generated music depend on where they start; raise --sweeps"
        )
    return {
        "sweeps": model.sweeps,
        "r_hat": round(r_hat, 3),
        "autocorrelation_time": round(time, 1),
        "warning": warning,
    }
