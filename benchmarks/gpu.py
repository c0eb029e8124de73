"""On a GPU: a training step of the published Lakh setting, and annealed importance sampling.

    python benchmarks/gpu.py

Beside it, in the same run, torch's own GRU of the same size (cuDNN), and the same step with torch's
loop over time in place of the fused kernels (`cgrnn.scan_cuda`). Once in float32 and once with
products in TF32, which torch allows cuDNN unasked. Medians of alternating runs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import fields, replace
from datetime import date
from functools import partial
from typing import Any

import torch
from ais import density
from train_step import BATCH, FRAMES, cgrnn_step, gru_step

from cgrnn import scan_cuda
from evaluation import ais

ROUNDS, CHAINS, LEVELS = 10, 100, 100
LATENTS = {"drawn (the paper)": "sample", "expected (default)": "mean"}
Work = Callable[[], object]


def seconds(work: Work) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def medians(works: dict[str, Work]) -> dict[str, float]:
    """Median seconds of each work; they take turns, after one run of each to warm up."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for round_ in range(ROUNDS + 1):
        for name, work in works.items():
            taken = seconds(work)
            if round_:
                times[name].append(taken)
    return {name: statistics.median(taken) for name, taken in times.items()}


def steps() -> dict[str, Work]:
    """The reference first, then each model with the kernels and without."""
    works: dict[str, Work] = {}
    with torch.device("cuda"):
        works["nn.GRU(650, 500), cuDNN"] = gru_step()
        for name, latents in LATENTS.items():
            step = cgrnn_step(latents)
            for engine, context in (("", nullcontext), (", torch's loop", scan_cuda.disabled)):
                works[f"CGRNN, latents {name}{engine}"] = partial(_within, context, step)
    return works


def _within(context: Callable[[], Any], work: Work) -> None:
    with context():
        work()


def allow_tf32(allow: bool) -> None:
    torch.set_float32_matmul_precision("high" if allow else "highest")
    torch.backends.cudnn.allow_tf32 = allow


def on_gpu(one: Any) -> Any:
    values = {field.name: getattr(one, field.name) for field in fields(one)}
    return replace(one, **{k: v.cuda() for k, v in values.items() if isinstance(v, torch.Tensor)})


def main() -> None:
    if not torch.cuda.is_available():
        print("no GPU that torch can use: nothing to measure")
        return
    torch.manual_seed(0)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {date.today()}")
    works = steps()
    for tf32 in (False, True):
        allow_tf32(tf32)
        print(f"\n{'TF32' if tf32 else 'float32':<52}{'step':>12}{'to nn.GRU':>12}{'frames/s':>14}")
        times = medians(works)
        reference = next(iter(times.values()))
        for name, taken in times.items():
            rate = BATCH * FRAMES / taken
            print(f"{name:<52}{taken * 1e3:>9.2f} ms{taken / reference:>12.2f}{rate:>14,.0f}")
    allow_tf32(False)
    one = on_gpu(density("binary"))
    runs = {
        name: partial(ais.log_partition, one, CHAINS, LEVELS, schedule=name)
        for name in ("linear", "adaptive")
    }
    print()
    for name, taken in medians(runs).items():
        rate = one.batch_shape[0] * CHAINS * LEVELS / taken / 1e6
        print(
            f"AIS, {one.batch_shape[0]} frames, {CHAINS} × {LEVELS}, {name}: "
            f"{taken:.3f} s, {rate:.1f} M chain-levels a second"
        )
    print(f"most GPU memory: {torch.cuda.max_memory_allocated() / 2**20:,.0f} MB")


if __name__ == "__main__":
    main()
