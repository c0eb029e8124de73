"""How far annealed importance sampling is from the truth on random densities small enough for it.

Weights and biases N(0, scale²), asymmetric α, μ, Λ and Φ: ten binary or six continuous visible
units and six hidden ones, as in the tests. "plain" is textbook AIS: one path, even levels, Gibbs
sweeps; "linear" even levels on the two paths of `evaluation.ais`, "adaptive" its default. The
levels of the first two are raised by what the adaptive schedule spends on its pilot.

    python benchmarks/ais_accuracy.py --count 200 --scale 1 --chains 200 --levels 1000
    python benchmarks/ais_accuracy.py --count 200 --scale 2 --chains 500 --levels 2000
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from densities import BINARY, LAYERS, generator, random_density

from evaluation import ais, exact
from evaluation.result import LogPartition

PILOT = 1.1
MISS = 0.5


def plain(density, chains: int, levels: int, random: torch.Generator) -> LogPartition:
    before = density.annealed(0.0)
    v = before.sample_base((chains,), random)
    log_weights = before.base_log_partition().expand(chains).clone()
    for level in range(1, levels + 1):
        after = density.annealed(level / levels)
        log_weights += before.free_energy(v) - after.free_energy(v)
        v = after.gibbs_step(v, random)
        before = after
    return LogPartition.from_log_weights(log_weights)


def estimate(density, options, seed: int, schedule: str) -> LogPartition:
    levels = options.levels if schedule == "adaptive" else round(PILOT * options.levels)
    if schedule == "plain":
        return plain(density, options.chains, levels, generator(seed))
    return ais.log_partition(density, options.chains, levels, generator(seed), schedule)


def line(name: str, schedule: str, truths: list, estimates: list) -> str:
    errors = torch.stack([e.log_z for e in estimates]) - torch.stack(truths)
    stderr = torch.stack([e.stderr for e in estimates])
    flagged = torch.stack([e.collapsed for e in estimates])
    missed = errors.abs() > MISS
    return (
        f"{name:<22} {schedule:<9} {float(errors.mean()):+9.4f}"
        f" ± {float(errors.std() / len(errors) ** 0.5):.4f} {float(errors.abs().mean()):9.4f}"
        f" {float((errors.abs() < 1.96 * stderr).double().mean()):9.1%}"
        f" {float(errors.abs().max()):8.2f} {int(missed.sum()):6d}"
        f" {int((missed & ~flagged).sum()):9d} {int(flagged.sum()):8d}"
    )


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="densities of each type")
    parser.add_argument("--scale", type=float, default=1.0, help="deviation of the weights")
    parser.add_argument("--chains", type=int, default=200)
    parser.add_argument("--levels", type=int, default=1000)
    parser.add_argument("--schedules", nargs="+", default=("plain", "linear", "adaptive"))
    options = parser.parse_args()
    print(
        f"{'':<32} {'mean error':>18} {'absolute':>9} {'95 % hold':>9} {'worst':>8} "
        f"{'missed':>6} {'unflagged':>9} {'flagged':>8}"
    )
    for kind in LAYERS:
        visible = 10 if kind in BINARY else 6
        densities = [
            random_density(kind, visible, 6, seed, options.scale) for seed in range(options.count)
        ]
        truths = [exact.log_partition(density) for density in densities]
        for schedule in options.schedules:
            found = [
                estimate(density, options, seed, schedule) for seed, density in enumerate(densities)
            ]
            print(line(kind.__name__, schedule, truths, found), flush=True)


if __name__ == "__main__":
    main()
