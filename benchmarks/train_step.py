"""A training step of the published Lakh setting against torch's own GRU, side by side.

    python benchmarks/train_step.py

75 sequences × 240 frames × 128 keys, 4 % ones; MLP 400-400, GRU 500, H 250, CD-1, SGD. The measure
is `nn.GRU(650, 500)` forward and backward on a batch of the same size, in float32 as torch comes.
The step is taken in float32, with the products that cgrnn's command chooses, and with products of
bfloat16 numbers (`train --precision bf16`). Each is held against the GRU and against its floor: its
multiplications at the speed of a product of 1024³ of the same numbers. Works take turns, and both
sides keep freed memory; medians of all rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from harness import Row, alternating, apart, peaks

from cgrnn import CGRNN
from cgrnn.arithmetic import keep_memory, rounded_products, use_fast_products

BATCH, FRAMES, KEYS, ROUNDS = 75, 240, 128, 5
MLP, SIZE, HIDDEN = (400, 400), 500, 250
SQUARE = 1024
GRU = "nn.GRU(650, 500), float32"
LATENTS = {"sample": "latents drawn, as published", "mean": "latents expected, the default"}
Work = Callable[[], object]


def gru_step() -> Work:
    gru = torch.nn.GRU(MLP[-1] + HIDDEN, SIZE)
    x = torch.randn(FRAMES, BATCH, MLP[-1] + HIDDEN)
    return lambda: gru(x)[0].sum().backward()


def cgrnn_step(latents: str) -> Work:
    options: dict[str, Any] = {"dropout": 0.0, "cd_steps": 1, "restarts": 0.0}
    model = CGRNN(KEYS, HIDDEN, SIZE, MLP, latents=latents, **options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    frames = (torch.rand(BATCH, FRAMES, KEYS) < 0.04).float()
    lengths = torch.full((BATCH,), FRAMES)

    def step() -> None:
        optimizer.zero_grad()
        model.loss(frames, lengths).backward()
        optimizer.step()

    return step


def operations(latents: str) -> int:
    """Multiplications and additions of a step's products, forward and backward."""
    first, second = MLP
    once = KEYS * first + KEYS * HIDDEN  # frames have no gradient: forward, and the weights'
    twice = first * second + SIZE * (KEYS + HIDDEN)  # forward, the weights' and the inputs'
    twice += 3 * SIZE * (second + HIDDEN + SIZE)
    spikes = SIZE * HIDDEN * (3 if latents == "mean" else 1)
    chain, energies = 2 * KEYS * HIDDEN, 2 * 2 * KEYS * HIDDEN
    return 2 * BATCH * FRAMES * (2 * once + 3 * twice + spikes + chain + energies)


def in_precision(work: Work, precision: str, rounded: bool = False) -> Work:
    """The work with torch's precision of float32 products set so, and with rounded factors."""

    def inside() -> None:
        torch.set_float32_matmul_precision(precision)
        with rounded_products(rounded):
            work()

    return inside


def rows() -> list[Row]:
    torch.manual_seed(0)
    keep_memory()
    use_fast_products()
    chosen = torch.get_float32_matmul_precision()
    square = torch.randn(SQUARE, SQUARE)
    half = square.bfloat16()
    works: dict[str, Work] = {
        GRU: in_precision(gru_step(), "highest"),
        "float32": in_precision(lambda: square @ square, chosen),
        "bfloat16": lambda: half @ half,
    }
    for latents in LATENTS:
        step = cgrnn_step(latents)
        works |= {
            f"{latents} {numbers}": in_precision(step, chosen, numbers == "bfloat16")
            for numbers in ("float32", "bfloat16")
        }
    taken = alternating(works, ROUNDS)
    torch.set_float32_matmul_precision(chosen)
    product = f"product of {SQUARE}³"
    found = [
        Row(f"{product}, bfloat16", taken["bfloat16"], f"{product}, float32", taken["float32"])
    ]
    for latents, meaning in LATENTS.items():
        for numbers in ("float32", "bfloat16"):
            name, own = f"training step, {numbers}, {meaning}", taken[f"{latents} {numbers}"]
            floor = operations(latents) * taken[numbers] / (2 * SQUARE**3)
            memory = apart("train_step:memory", latents=latents, rounded=numbers == "bfloat16")
            found.append(Row(name, own, GRU, taken[GRU], peak_memory_mb=memory))
            found.append(Row(name, own, "its products alone", floor))
    return found


def memory(latents: str, rounded: bool) -> float:
    """MB that a step holds at the most, in a process that has made one before."""
    keep_memory()
    step = cgrnn_step(latents)
    with rounded_products(rounded):
        step()
        return peaks([step])[0]


def main() -> None:
    found = rows()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for row in found:
        note = "" if row.peak_memory_mb is None else f", {row.peak_memory_mb:.0f} MB"
        print(
            f"{row.name + note:<72}{1e3 * (row.ours or 0):>9.1f} ms  "
            f"{row.against:<26}{1e3 * (row.reference or 0):>9.1f} ms  ratio {row.ratio:.2f}"
        )


if __name__ == "__main__":
    main()
