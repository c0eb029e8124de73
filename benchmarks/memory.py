"""Peak memory of the published settings, against a reference that does the same work plainly."""

from __future__ import annotations

import growth
import plain_ais
import torch
from harness import Row, apart, peaks

BATCH, FRAMES, CHAINS, LEVELS = 75, 240, 100, 3


def rows(quick: bool) -> list[Row]:
    """MB of each above the process before it, in a process of its own."""
    share = 10 if quick else 1
    step = f"memory of a training step, {BATCH // share} × {FRAMES} × {growth.KEYS}"
    ais = f"memory of AIS, {FRAMES // share} frames, {CHAINS} chains"
    gru = "nn.GRU(650, 500), forward and backward"
    pairs = [
        (step, "cgrnn_step", gru, "gru_step"),
        (ais, "annealing", "plain loop", "plain_annealing"),
    ]
    found = []
    for name, work, against, reference in pairs:
        own, theirs = (apart(f"memory:{which}", share=share) for which in (work, reference))
        found.append(Row(name, own, against, theirs, "MB", own))
    return found


def cgrnn_step(share: int) -> float:
    growth.training(2, 2)()  # what is made once
    return peaks([growth.training(BATCH // share, FRAMES)])[0]


def gru_step(share: int) -> float:
    gru = torch.nn.GRU(650, 500)
    x = torch.randn(FRAMES, BATCH // share, 650)
    gru(x[:2])[0].sum().backward()
    return peaks([lambda: gru(x)[0].sum().backward()])[0]


def annealing(share: int) -> float:
    growth.annealing(2, 2)()
    return peaks([growth.annealing(FRAMES // share, CHAINS)])[0]


def plain_annealing(share: int) -> float:
    density = growth.density(FRAMES // share)
    plain_ais.log_partition(density[:2], 2, 1)
    return peaks([lambda: plain_ais.log_partition(density, CHAINS, LEVELS)])[0]
