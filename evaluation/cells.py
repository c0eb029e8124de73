"""Chains of annealed importance sampling in groups that fit the cache, a group a thread.

For densities that the compiled kernel does not know, and for GPUs.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch

from evaluation.walks import Progress, Walk, Weighed, seeds

# Working memory of one tensor of a group of chains that run together: they fill the processor's
# vector units and stay in its cache.
_BYTES = {"cpu": 1 << 19, "cuda": 1 << 27}


class Cell(NamedTuple):
    """Chains that run together: some chains of one walk for some densities of the batch."""

    walk: Walk
    densities: slice
    first: int
    chains: int
    seed: int

    def generator(self, flat: Any) -> torch.Generator:
        return torch.Generator(flat.visible_bias.device).manual_seed(self.seed)


def run_cells(
    run: Callable[[Cell], Weighed],
    walks: list[Walk],
    flat: Any,
    generator: torch.Generator | None,
    progress: Progress | None,
) -> list[Weighed]:
    """All chains of every walk, made cell by cell."""
    total, bias = flat.batch_shape[0], flat.visible_bias
    widest = max(flat.visible_dim, flat.hidden_dim) * bias.element_size()
    if walks[0].collapsed:
        widest = max(widest, 8 * flat.visible_dim**2)  # a double-precision factor for every chain
    rows = max(1, _BYTES.get(bias.device.type, _BYTES["cpu"]) // widest)
    places = [
        (walk, slice(start, start + max(1, rows // walk.chains)), first)
        for walk in walks
        for start in range(0, total, max(1, rows // walk.chains))
        for first in range(0, walk.chains, rows)
    ]
    cells = [
        Cell(walk, densities, first, min(rows, walk.chains - first), seed)
        for (walk, densities, first), seed in zip(
            places, seeds(len(places), generator), strict=True
        )
    ]
    results = {
        id(walk): Weighed(
            bias.new_empty(walk.chains, total, dtype=torch.float64),
            bias.new_empty(walk.chains, total, flat.visible_dim),
        )
        for walk in walks
    }

    def fill(cell: Cell) -> None:
        found, whole = run(cell), results[id(cell.walk)]
        own = slice(cell.first, cell.first + cell.chains)
        whole.log_weights[own, cell.densities] = found.log_weights
        whole.frames[own, cell.densities] = found.frames
        if progress is not None:
            progress(found.log_weights.numel() * (len(cell.walk.betas) - 1))

    _in_threads(fill, cells)
    return list(results.values())


def _in_threads(fill: Callable[[Cell], None], cells: list[Cell]) -> None:
    """Fill the cells side by side, each on one core: drawing random numbers uses only one."""
    cores = torch.get_num_threads()
    if len(cells) < 2 or cores < 2:
        for cell in cells:
            fill(cell)
        return
    with ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            list(pool.map(fill, cells))
        finally:
            torch.set_num_threads(cores)
