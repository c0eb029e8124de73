"""Frame accuracy of predicted against true piano-rolls."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from cgrnn.batches import Batch
from cgrnn.models.recurrent import RecurrentModel, mask_of


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
    right = float((predicted * truth).sum(dtype=torch.float64))
    either = float(torch.maximum(predicted, truth.expand_as(predicted)).sum(dtype=torch.float64))
    return right / either if either else 1.0


@torch.no_grad()
def accuracies(
    model: RecurrentModel,
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
    drawn: dict[str, list[Tensor]] = {"prediction": [], "reconstruction": []}
    truth = []
    for batch in batches:
        inside = mask_of(batch.lengths, batch.frames.shape[1])
        truth.append(batch.frames[inside])
        drawn["prediction"].append(model.predict(batch.frames, generator, samples)[:, inside])
        drawn["reconstruction"].append(
            model.reconstruct(batch.frames, generator, samples)[:, inside]
        )
    true = torch.cat(truth)
    return {name: frame_accuracy(torch.cat(rolls, 1), true) for name, rolls in drawn.items()}
