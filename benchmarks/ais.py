"""Annealed importance sampling at the published setting, against the time of the published code.

One sequence of 240 frames of 128 keys, 250 hidden units, 100 chains × 100 levels: the TensorFlow
code took 17.1 s and 0.73 GB on two quiet cores. Run `python benchmarks/ais.py` on a quiet machine.
"""

from __future__ import annotations

import resource
import time
from functools import partial

import torch

from cgrnn.arithmetic import use_fast_products
from cgrnn.layers import BinarySpikeSlabRBM, GaussianSpikeSlabRBM
from evaluation import ais

PUBLISHED = {"binary": 17.1, "continuous": 12.0}
SETTINGS = {
    "binary": (BinarySpikeSlabRBM, 240, 128),
    "continuous": (GaussianSpikeSlabRBM, 147, 150),
}
RUNS = 3


def density(kind: str, sequences: int = 1):
    layer_class, frames, visible = SETTINGS[kind]
    generator = torch.Generator().manual_seed(0)
    layer = layer_class(visible, 250, context_dim=8).requires_grad_(False)
    layer.W.normal_(std=0.1, generator=generator)
    return layer(torch.randn(sequences * frames, 8, generator=generator))


def fastest(task) -> float:
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        task()
        times.append(time.perf_counter() - start)
    return min(times)


def peak() -> float:
    """Most memory that the process held so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    use_fast_products()
    matrix = torch.randn(1024, 1024)
    product = min(fastest(lambda: matrix @ matrix) for _ in range(20))
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"sgemm 1024³ {1000 * product:.1f} ms")
    print(f"process before: {peak():.0f} MB")
    for kind, published in PUBLISHED.items():
        one = density(kind)
        for schedule in ("linear", "adaptive"):
            took = fastest(partial(ais.log_partition, one, 100, 100, schedule=schedule))
            rate = one.batch_shape[0] * 1e4 / took / 1e6
            print(
                f"{kind} {one.batch_shape[0]} frames, 100 × 100, {schedule}: {took:.2f} s, "
                f"{published / took:.1f} × the published code's {published} s; "
                f"{rate:.2f} M chain-levels a second; peak {peak():.0f} MB"
            )
    ais.log_partition(density("binary", sequences=8), 100, 20)
    print(f"binary, eight sequences at once: peak {peak():.0f} MB")


if __name__ == "__main__":
    main()
