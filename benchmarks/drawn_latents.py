"""Is the error that `evaluate` says of a model with drawn latents that of repetitions?

Random CGRNNs over 8 or 12 binary units, small enough for an exact `log Z`. "truth" is the mean of
the bound over many draws of the latents, enumerated; "bias" how far the mean over the seeds lies
from it, beside the error of both; "spread" is over the seeds, "said" the root of the mean square of
the errors said, and "of one draw" what a single draw of the latents leaves.

    python benchmarks/drawn_latents.py --seeds 40
"""

from __future__ import annotations

import argparse
import math
from typing import NamedTuple

import numpy as np
import torch

from cgrnn.batches import Batches
from cgrnn.models import CGRNN
from evaluation import exact, likelihood


class Case(NamedTuple):
    visible: int
    scale: float
    lengths: list[int]
    target: float


CASES = {
    "20 sequences of 20": Case(8, 0.6, [20] * 20, 0.03),
    "40 sequences of 60": Case(12, 0.5, [60] * 40, 0.03),
    "few, uneven": Case(10, 0.5, [200, 10, 80, 40], 0.05),
    "one sequence": Case(8, 0.6, [200], 0.05),
    "beyond the most draws": Case(8, 0.6, [20] * 20, 0.005),
}
CHAINS, LEVELS = 10, 200  # for densities so small


def made(case: Case) -> tuple[CGRNN, Batches]:
    torch.manual_seed(0)
    model = CGRNN(case.visible, 5, 8, latents="sample").eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=case.scale)
    frames = np.random.default_rng(0).random((sum(case.lengths), case.visible)) < 0.4
    lengths = np.array(case.lengths)
    return model, Batches(frames.astype(np.float32), lengths, batch_size=16)


def enumerated(model: CGRNN, batches: Batches, draws: int) -> torch.Tensor:
    """The mean per frame under each of many draws, `(draws,)`."""
    generator = torch.Generator().manual_seed(12345)

    def mean() -> torch.Tensor:
        scores = [
            model.log_likelihood(b.frames, b.lengths, exact.log_partition, generator).log_prob
            for b in batches
        ]
        return torch.cat(scores).mean()

    return torch.stack([mean() for _ in range(draws)])


def line(name: str, case: Case, seeds: int, draws: int) -> str:
    model, batches = made(case)
    truth = enumerated(model, batches, draws)
    found = [
        likelihood.evaluate(
            model, batches, CHAINS, LEVELS, case.target, torch.Generator().manual_seed(seed)
        )
        for seed in range(seeds)
    ]
    figure = np.array([one.per_frame for one in found])
    said = math.sqrt(np.mean([one.stderr**2 for one in found]))
    error = math.hypot(figure.std(ddof=1) / seeds**0.5, float(truth.std()) / draws**0.5)
    made_draws = np.mean([one.draws or 0 for one in found])
    return (
        f"{name:<22} {case.target:7.3f} {made_draws:6.1f} {float(truth.std()):12.4f} "
        f"{float(truth.mean()):9.4f} {figure.mean() - float(truth.mean()):+8.4f} ± {error:.4f} "
        f"{figure.std(ddof=1):8.4f} {said:8.4f} {figure.std(ddof=1) / said:6.2f}"
    )


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--draws", type=int, default=200, help="draws of the latents for the truth")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    options = parser.parse_args()
    print(
        f"{'':<22} {'target':>7} {'draws':>6} {'of one draw':>12} {'truth':>9} "
        f"{'bias':>17} {'spread':>8} {'said':>8} {'ratio':>6}"
    )
    for name in options.cases:
        print(line(name, CASES[name], options.seeds, options.draws), flush=True)


if __name__ == "__main__":
    main()
