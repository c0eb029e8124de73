"""Generation of the published Lakh setting, against the same with the sweeps as a plain loop."""

from __future__ import annotations

import torch
from harness import Row, alternating, apart, peaks
from torch import Tensor

from cgrnn import CGRNN

KEYS, SIZES, SWEEPS = 128, (250, 500, (400, 400)), 200


def rows(quick: bool) -> list[Row]:
    """Frames a second of one sequence, and of 64 side by side."""
    frames, rounds = (1, 1) if quick else (10, 3)
    return [_row(batch, frames, rounds) for batch in (1, 64)]


def _row(batch: int, frames: int, rounds: int) -> Row:
    model = _model()
    taken = alternating(
        {
            "ours": lambda: model.generate(frames, batch),
            "plain": lambda: _plainly(model, frames, batch),
        },
        rounds,
    )
    made = batch * frames
    return Row(
        f"generate, batch {batch}, {SWEEPS} sweeps a frame",
        made / taken["ours"],
        "sweeps as a plain loop of torch calls",
        made / taken["plain"],
        "frames/s",
        apart("generation:memory", batch=batch, frames=frames),
    )


def memory(batch: int, frames: int) -> float:
    model = _model()
    model.generate(1)
    return peaks([lambda: model.generate(frames, batch)])[0]


def _model() -> CGRNN:
    torch.manual_seed(0)
    model = CGRNN(KEYS, *SIZES).eval()
    model.layer.requires_grad_(False).W.normal_(std=0.1)
    model.layer.visible_bias.fill_(-3.0)  # 5 % ones, as music has
    model.sweeps = SWEEPS
    return model


@torch.no_grad()
def _plainly(model: CGRNN, frames: int, batch: int) -> Tensor:
    """What `generate` draws, with the formulas of a sweep written out."""
    state, made = model.transition.initial_state(batch), []
    for _ in range(frames):
        density = model.layer(model.transition.context(state))
        W, alpha, mu = density.weight, density.alpha, density.mu
        v = torch.bernoulli(torch.sigmoid(density.visible_bias))
        for _ in range(SWEEPS):
            vW = v @ W
            logits = density.hidden_bias + mu * vW + vW**2 / (2 * alpha)
            h = torch.bernoulli(torch.sigmoid(logits))
            s = h * (vW / alpha + mu) + torch.randn_like(h) / alpha.sqrt()
            v = torch.bernoulli(torch.sigmoid((h * s) @ W.T + density.visible_bias))
        made.append(v)
        _, state = model.contexts(v.unsqueeze(1), None, state)
    return torch.stack(made, dim=1)
