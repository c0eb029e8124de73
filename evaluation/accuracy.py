"""Predicted against true frames: accuracy of piano-rolls, error of continuous frames."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from cgrnn.batches import Batch
from cgrnn.layers import EnergyDensity
from cgrnn.models.notes import NoteRNN
from cgrnn.models.recurrent import RecurrentModel
from cgrnn.models.sequence import SequenceModel
from evaluation.blocks import BatchList, Blocks, blocks_of
from samplers import draw, watch
from samplers.diagnostics import R_HAT_WANTED

PROTOCOLS = ("prediction", "reconstruction")
Sums = dict[str, Tensor]
WATCHED_FRAMES, WATCHED_CHAINS = 30, 20


def frame_accuracy(predicted: Tensor, truth: Tensor) -> float:
    """`Σ TP / Σ (TP + FP + FN)` over all frames: the share of notes right among those in either.

    Frames silent in both count in neither sum. Silence against silence throughout is right and
    scores 1 (`mir_eval` says 0 there).

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
    counts = frame_counts("binary", predicted, truth)
    return float(measures_of("binary", _summed(counts))["accuracy"])


def frame_counts(kind: str, drawn: Tensor, truth: Tensor) -> Sums:
    """What each frame adds to the sums that `measures_of` takes.

    Args:
        kind: of the frames: "binary", "continuous" or "notes".
        drawn: `(*S, *B, V)`.
        truth: `(*B, V)`.

    Returns:
        Numbers by name, each `(*S, *B)` float64.
    """
    drawn, truth = drawn.double(), truth.double().expand(drawn.shape)
    frames = torch.ones_like(drawn[..., 0])
    if kind == "notes":
        return {"frames": frames, "right": (drawn == truth)[..., 0].double()}
    if kind == "continuous":
        squares = (drawn - truth).square().sum(-1)
        power, cells = truth.square().sum(-1), frames * truth.shape[-1]
        return {
            "frames": frames, "cells": cells, "squares": squares, "norms": squares.sqrt(),
            "power": power,
        }  # fmt: skip
    right, made, true = (drawn * truth).sum(-1), drawn.sum(-1), truth.sum(-1)
    either = made + true - right
    return {
        "frames": frames,
        "right": right,
        "either": either,
        "shares": _share(right, either),
        "missed": (true - made).clamp(min=0),
        "false": (made - true).clamp(min=0),
        "misplaced": torch.minimum(made, true) - right,
        "true": true,
    }


def measures_of(kind: str, sums: Sums) -> dict[str, Any]:
    """The measures of sums over frames, which may have any shape in common.

    Binary frames:
        `accuracy`: `Σ TP / Σ (TP + FP + FN)`, the ratio of sums; see `frame_accuracy`.
        `accuracy_of_frames`: the mean over frames of each frame's own ratio. A frame silent in
            both counts 1: silence there was right. (The ratio is 0/0 and nobody's convention;
            `mir_eval` has no such mean.)
        `note_split`: `Σ max(0, N - M)` `missed`, `Σ max(0, M - N)` `false` and
            `Σ min(N, M) - TP` `misplaced`, with N true notes and M predicted ones in a frame, each
            over `Σ N`; `total` is all three. NaN where there is no true note. Source: Poliner &
            Ellis 2006; `mir_eval.multipitch` calls them miss, false alarm and substitution error.

    Continuous frames, e the error of a draw:
        `rmse`: `√(Σ e² / cells)`, per sample of the signal, in units of the training frames'
            deviation where frames are normalised.
        `rmse_of_frames`: the mean over frames of `√(Σ_j e_j²)`, in the same unit. The CGRNN paper
            reports a "framewise rooted mean square error" without a formula; we read the norm over
            the frame's samples. It grows with the frame size.
        `snr_db`: `10 log10(Σ v² / Σ e²)`. Normalised frames have the training mean taken off, so
            that a constant offset is no signal; the unit cancels.

    Notes: `accuracy`, the share that is right.

    Args:
        kind: of the frames.
        sums: those of `frame_counts`.
    """
    if kind == "notes":
        return {"accuracy": sums["right"] / sums["frames"]}
    if kind == "continuous":
        return {
            "rmse": (sums["squares"] / sums["cells"]).sqrt(),
            "rmse_of_frames": sums["norms"] / sums["frames"],
            "snr_db": 10 * (sums["power"] / sums["squares"]).log10(),
        }
    split = {name: sums[name] for name in ("missed", "false", "misplaced")}
    split["total"] = sums["missed"] + sums["false"] + sums["misplaced"]
    return {
        "accuracy": _share(sums["right"], sums["either"]),
        "accuracy_of_frames": sums["shares"] / sums["frames"],
        "note_split": {
            name: torch.where(sums["true"] > 0, wrong / sums["true"], torch.nan)
            for name, wrong in split.items()
        },
    }


@torch.no_grad()
def measures(
    model: SequenceModel,
    batches: BatchList,
    samples: int = 5,
    generator: torch.Generator | Blocks | None = None,
) -> dict[str, Any]:
    """How near draws come to the frames of a split, under two protocols not to be confused.

    `prediction`: each frame drawn given the frames before it alone. `reconstruction`: drawn after
    one Gibbs sweep that starts at the frame itself, the paper's protocol; it measures how much of a
    frame the latents keep, and is high even where the past tells nothing.

    All sums run over the draws: each figure is what one draw is expected to score, which is less
    than the mean of the draws would. Notes are an exception, see `note_errors`.

    Args:
        model: in evaluation mode.
        batches: the split.
        samples: draws of each frame.
        generator: source of the draws, or the blocks in which the work is done.

    Returns:
        The `measures_of` the model's kind of frames, each by protocol, as plain numbers, None where
        one is not defined; and `accuracy_stderr` or `rmse_stderr`, see `stderr_of`.
    """
    blocks = blocks_of(generator, model)
    if isinstance(model, NoteRNN):
        return note_errors(model, batches, blocks)

    def one(number: int, own: torch.Generator) -> dict[str, Any]:
        batch = batches[number].to(blocks.device)
        inside = model.scored(batch.lengths, batch.frames.shape[1])

        def sums(drawn: Tensor) -> Sums:
            counts = frame_counts(model.visible, drawn, batch.frames)
            return {
                name: torch.where(inside, count, 0.0).sum((0, 2)) for name, count in counts.items()
            }

        return {
            "prediction": sums(model.predict(batch.frames, own, samples)),
            "reconstruction": sums(model.reconstruct(batch.frames, own, samples, batch.lengths)),
        }

    found = blocks.run("accuracy", range(len(batches)), one)
    by_protocol = {}
    for protocol, names in found[0].items():
        its = {name: torch.cat([part[protocol][name] for part in found]) for name in names}
        by_protocol[protocol] = _with_error(model.visible, its)
    return _by_measure(by_protocol)


def _with_error(kind: str, by_sequence: Sums) -> dict[str, Any]:
    """The measures, and the standard error of the first of them."""
    result = measures_of(kind, _summed(by_sequence))
    return {**result, f"{next(iter(result))}_stderr": stderr_of(kind, by_sequence)}


def stderr_of(kind: str, by_sequence: Sums) -> Tensor:
    """Standard error over sequences of the first of the measures; NaN for one sequence.

    Sequences count as independent, and frames of one as what they are, related: for a ratio
    `r = Σ a_i / Σ b_i` over S sequences the error's square is `S/(S-1) Σ (a_i - r b_i)² / (Σ b_i)²`
    (the delta method), and that of its root follows.

    Args:
        kind: of the frames.
        by_sequence: what `measures_of` takes, `(sequences, *)`.
    """
    top, bottom = {
        "binary": ("right", "either"),
        "continuous": ("squares", "cells"),
        "notes": ("right", "frames"),
    }[kind]
    a, b = by_sequence[top], by_sequence[bottom]
    ratio = a.sum(0) / b.sum(0)
    count = (by_sequence["frames"] > 0).sum(0)
    error = ((a - ratio * b).square().sum(0) * count / (count - 1)).sqrt() / b.sum(0)
    return error / (2 * ratio.sqrt()) if kind == "continuous" else error


def accuracies(
    model: SequenceModel,
    batches: BatchList,
    samples: int = 5,
    generator: torch.Generator | Blocks | None = None,
) -> dict[str, float]:
    """The `accuracy` of `measures` alone, by protocol."""
    found: dict[str, float] = measures(model, batches, samples, generator)["accuracy"]
    return found


def errors(
    model: SequenceModel,
    batches: BatchList,
    samples: int = 5,
    generator: torch.Generator | Blocks | None = None,
) -> dict[str, float]:
    """The `rmse` of `measures` alone, by protocol.

    A draw from the truth itself does worse, by the factor `√2`, than its mean would.
    """
    found: dict[str, float] = measures(model, batches, samples, generator)["rmse"]
    return found


@torch.no_grad()
def note_errors(
    model: NoteRNN, batches: BatchList, generator: torch.Generator | Blocks | None = None
) -> dict[str, Any]:
    """How often the likeliest note is the note, and how far it is from it on average.

    Args:
        model: in evaluation mode; without latents, its reconstruction is its prediction.
        batches: the split.
        generator: the blocks in which the work is done; nothing is drawn.

    Returns:
        `accuracy` by both protocols, `accuracy_stderr`, and `mean_error`: in classes, which are
        semitones where the model takes pitches and mean nothing where it takes notes and chords.
    """
    blocks = blocks_of(generator, model)

    def one(number: int, _: torch.Generator) -> Sums:
        batch = batches[number].to(blocks.device)
        frames = model.scored(batch.lengths, batch.frames.shape[1]).sum(1)
        off = model.deviations(batch.frames, batch.lengths).double().split(frames.tolist())
        return {
            "frames": frames.double(),
            "right": torch.stack([(its == 0).double().sum() for its in off]),
            "off": torch.stack([its.abs().sum() for its in off]),
        }

    found = blocks.run("accuracy", range(len(batches)), one)
    by_sequence = {name: torch.cat([part[name] for part in found]) for name in found[0]}
    both = dict.fromkeys(PROTOCOLS, _with_error("notes", by_sequence))
    mean_error = by_sequence["off"].sum() / by_sequence["frames"].sum()
    return {**_by_measure(both), "mean_error": plain(mean_error)}


def plain(measure: Any) -> Any:
    """A measure as JSON has it: numbers, lists of them, and None where it is not defined.

    Example:
        >>> plain({"missed": torch.tensor([0.5, math.nan])})
        {'missed': [0.5, None]}
    """
    if isinstance(measure, dict):
        return {name: plain(value) for name, value in measure.items()}
    if isinstance(measure, Tensor):
        return plain(measure.tolist())
    if isinstance(measure, list):
        return [plain(value) for value in measure]
    return measure if math.isfinite(measure) else None


def _by_measure(by_protocol: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """{measure: {protocol: value}} of {protocol: {measure: value}}."""
    names = by_protocol[PROTOCOLS[0]]
    return {
        name: {protocol: plain(found[name]) for protocol, found in by_protocol.items()}
        for name in names
    }


def _summed(counts: Sums) -> Sums:
    return {name: count.sum() for name, count in counts.items()}


def _share(right: Tensor, either: Tensor) -> Tensor:
    """What is right among what is in either; 1 where there is nothing."""
    return torch.where(either > 0, right / either, 1.0)


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
    order = torch.randperm(density.batch_shape[0], generator=generator, device=batch.frames.device)
    some = density[order[:WATCHED_FRAMES]]
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
