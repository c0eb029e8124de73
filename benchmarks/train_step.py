"""A training step of the published Lakh setting against torch's own GRU, side by side.

    python benchmarks/train_step.py

75 sequences × 240 frames × 128 keys, 4 % ones; MLP 400-400, GRU 500, H 250, CD-1, SGD. The measure
is `nn.GRU(650, 500)` forward and backward on a batch of the same size: with torch as it comes, and
with the float32 products that cgrnn's command chooses (`cgrnn.arithmetic`). Medians of alternating
runs; ratios are what to quote.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from cgrnn import CGRNN
from cgrnn.arithmetic import use_fast_products

BATCH, FRAMES, KEYS, ROUNDS = 75, 240, 128, 5


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def gru_step() -> Callable[[], object]:
    gru = torch.nn.GRU(650, 500)
    x = torch.randn(FRAMES, BATCH, 650)
    return lambda: gru(x)[0].sum().backward()


def cgrnn_step(latents: str) -> Callable[[], object]:
    options = {"dropout": 0.0, "cd_steps": 1, "restarts": 0.0}
    model = CGRNN(KEYS, 250, 500, (400, 400), latents=latents, **options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    frames = (torch.rand(BATCH, FRAMES, KEYS) < 0.04).float()
    lengths = torch.full((BATCH,), FRAMES)

    def step() -> None:
        optimizer.zero_grad()
        model.loss(frames, lengths).backward()
        optimizer.step()

    return step


def main() -> None:
    torch.manual_seed(0)
    square = torch.randn(1024, 1024)
    works = {
        "sgemm 1024³": lambda: square @ square,
        "nn.GRU(650, 500)": gru_step(),
        "CGRNN, latents drawn (the paper)": cgrnn_step("sample"),
        "CGRNN, latents expected (default)": cgrnn_step("mean"),
    }
    times: dict[tuple[str, bool], list[float]] = {}
    plain, fast = torch.get_float32_matmul_precision(), use_fast_products()
    chosen = torch.get_float32_matmul_precision()
    for round_ in range(ROUNDS + 1):
        for name, work in works.items():
            for own in (False, True):
                torch.set_float32_matmul_precision(chosen if own else plain)
                taken = seconds(work)
                if round_:  # the first is a warm-up
                    times.setdefault((name, own), []).append(taken)
    medians = {key: statistics.median(values) for key, values in times.items()}
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads; "
        f"oneDNN products chosen: {fast}"
    )
    print(
        f"{'':<36}{'torch as it comes':>18}{'cgrnn products':>16}{'ratio to nn.GRU':>18}"
        f"{'like for like':>15}"
    )
    reference = medians["nn.GRU(650, 500)", False]
    for name in works:
        before, after = medians[name, False], medians[name, True]
        like = after / medians["nn.GRU(650, 500)", True]
        print(
            f"{name:<36}{before * 1e3:>15.1f} ms{after * 1e3:>13.1f} ms"
            f"{after / reference:>18.2f}{like:>15.2f}"
        )


if __name__ == "__main__":
    main()
