"""A search for confident wrong figures: estimates of log Z on random densities that can be exact.

Easy families have weights and biases N(0, 1) and N(0, 2²). Hard ones N(0, 3²) and N(0, 4²);
"frustrated" couplings ±(2 to 4) with biases that balance them; "small alpha" slab precisions down
to 0.01 (for densities without slabs, weights N(0, 2²) and biases N(0, 4²) in their place). Up to
14 binary or 8 continuous units, 3 to 7 hidden ones.

A miss is an estimate off by more than four of its standard errors. It is worst where nothing flags
it (`LogPartition.collapsed`). A false alarm is a flag on an estimate within four standard errors
and a tenth of a nat of the truth. Seconds are of the processor, for the estimates alone.

    python benchmarks/misses.py --count 40 -o misses.csv
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from densities import BINARY, LAYERS, SPIKE_SLAB, generator, random_density, random_layer

from evaluation import ais, exact

EASY = ("N(0, 1)", "N(0, 2²)")
HARD = ("N(0, 3²)", "N(0, 4²)", "frustrated", "small alpha")
SCALES = {"N(0, 1)": 1.0, "N(0, 2²)": 2.0, "N(0, 3²)": 3.0, "N(0, 4²)": 4.0}
ERRORS, NEAR = 4.0, 0.1


@dataclass
class Found:
    """What came of one density, in nats."""

    kind: str
    family: str
    seed: int
    truth: float
    error: float
    stderr: float
    flagged: bool
    seconds: float

    @property
    def missed(self) -> bool:
        return not abs(self.error) <= ERRORS * max(self.stderr, 1e-6)

    @property
    def false_alarm(self) -> bool:
        return self.flagged and abs(self.error) <= NEAR and not self.missed


def density(kind: type, family: str, seed: int) -> Any:
    random = generator(seed + 77_000)
    most = 14 if kind in BINARY else 8
    visible = int(torch.randint(4, most + 1, (), generator=random))
    hidden = int(torch.randint(3, 8, (), generator=random))
    if family in SCALES:
        return random_density(kind, visible, hidden, seed, SCALES[family])
    layer = random_layer(kind, visible, hidden, seed, 1.0 if family == "frustrated" else 2.0)
    with torch.no_grad():
        if family == "frustrated":
            sign = torch.randint(0, 2, layer.W.shape, generator=random) * 2.0 - 1.0
            layer.W.copy_(sign * (2 + 2 * torch.rand(layer.W.shape, generator=random)))
            for bias, dim in ((layer.visible_bias, 1), (layer.hidden_bias, 0)):
                bias.normal_(std=0.3, generator=random).sub_(layer.W.sum(dim) / 2)
        elif kind in SPIKE_SLAB:
            layer.W.mul_(0.5)
            low = math.log(0.01)
            layer.log_alpha.uniform_(low, 0.0, generator=random)
        else:
            layer.visible_bias.mul_(2.0)
    return layer(None)


def estimate(kind: type, family: str, seed: int, chains: int, levels: int) -> Found:
    one = density(kind, family, seed)
    truth = float(exact.log_partition(one))
    start = time.process_time()
    found = ais.log_partition(one, chains, levels, generator(seed + 1))
    seconds = time.process_time() - start
    return Found(
        kind.__name__,
        family,
        seed,
        truth,
        float(found.log_z) - truth,
        float(found.stderr),
        bool(found.collapsed),
        seconds,
    )


def line(name: str, found: list[Found]) -> str:
    missed = [one for one in found if one.missed]
    unflagged = [one for one in missed if not one.flagged]
    alarms = [one for one in found if one.false_alarm]
    count = len(found)
    return (
        f"{name:<38} {count:6d} {len(missed):6d} {len(unflagged):9d} {len(unflagged) / count:7.1%}"
        f" {sum(one.flagged for one in found):8d} {len(alarms):7d} {len(alarms) / count:7.1%}"
        f" {sum(one.seconds for one in found) / count:9.4f}"
    )


def table(found: list[Found]) -> Iterable[str]:
    yield (
        f"{'':<38} {'count':>6} {'missed':>6} {'unflagged':>9} {'':>7} {'flagged':>8} "
        f"{'alarms':>7} {'':>7} {'s each':>9}"
    )
    for family in (*EASY, *HARD):
        for kind in LAYERS:
            cell = [one for one in found if (one.kind, one.family) == (kind.__name__, family)]
            if cell:
                yield line(f"{kind.__name__}, {family}", cell)
    for name, families in (("easy", EASY), ("hard", HARD)):
        cell = [one for one in found if one.family in families]
        if cell:
            yield line(name, cell)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=40, help="densities of each kind and family")
    parser.add_argument("--first", type=int, default=0, help="seed of the first")
    parser.add_argument("--chains", type=int, default=100)
    parser.add_argument("--levels", type=int, default=1000)
    parser.add_argument("--families", nargs="+", default=[*EASY, *HARD])
    parser.add_argument("--kinds", nargs="+", default=[kind.__name__ for kind in LAYERS])
    parser.add_argument("-o", "--output", help="CSV file of all densities")
    options = parser.parse_args()
    estimate(LAYERS[0], EASY[0], 0, 10, 10)  # compiles what is compiled
    found = [
        estimate(kind, family, seed, options.chains, options.levels)
        for family in options.families
        for kind in LAYERS
        if kind.__name__ in options.kinds
        for seed in range(options.first, options.first + options.count)
    ]
    print("\n".join(table(found)))
    if options.output:
        with open(options.output, "w", newline="") as file:
            rows = [one.__dict__ | {"missed": one.missed} for one in found]
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
