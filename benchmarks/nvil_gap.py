"""How far the NVIL bound lies above `log Z` on random densities small enough to be exact.

Weights and biases N(0, scale²), asymmetric α, μ, Λ and Φ, eight visible units and six hidden ones,
as in the tests; a proposal for each density by the default training of `evaluation.nvil`.

    python benchmarks/nvil_gap.py --count 50
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from densities import LAYERS, generator, random_density

from evaluation import exact, nvil


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50, help="densities of each type")
    parser.add_argument("--scale", type=float, default=0.5, help="deviation of the weights")
    parser.add_argument("--samples", type=int, default=10_000)
    options = parser.parse_args()
    print(f"{'nats above log Z':<22} {'mean':>7} {'median':>7} {'most':>7} {'least':>7} "
          f"{'stderr':>7} {'collapsed':>9}")  # fmt: skip
    for kind in LAYERS:
        gaps, errors, collapsed = [], [], 0
        for seed in range(options.count):
            density, random = random_density(kind, 8, 6, seed, options.scale), generator(seed)
            proposal = nvil.train(density, generator=random)
            bound = nvil.log_partition(density, proposal, options.samples, random)
            gaps.append(bound.log_z - exact.log_partition(density))
            errors.append(bound.stderr)
            collapsed += int(bound.collapsed)
        gap = torch.stack(gaps)
        print(
            f"{kind.__name__:<22} {float(gap.mean()):7.3f} {float(gap.median()):7.3f} "
            f"{float(gap.max()):7.3f} {float(gap.min()):7.3f} "
            f"{float(torch.stack(errors).mean()):7.4f} {collapsed:9d}",
            flush=True,
        )


if __name__ == "__main__":
    main()
