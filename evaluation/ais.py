"""Annealed importance sampling of partition functions, forward and in reverse."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from torch import Tensor

from evaluation.result import LogPartition
from evaluation.schedules import Schedule
from evaluation.walks import Progress, Walk, plan, seeds

# Working memory of one tensor of a group of chains that run together: they fill the processor's
# vector units and stay in its cache.
_BYTES = {"cpu": 1 << 19, "cuda": 1 << 27}


def log_partition(
    density: Any,
    chains: int = 100,
    levels: int = 1000,
    generator: torch.Generator | None = None,
    schedule: Schedule = "adaptive",
    collapsed: bool | None = None,
    progress: Progress | None = None,
) -> LogPartition:
    """Estimate `log Z` of every density of a batch by annealed importance sampling.

    Formula: with `F_k` the free energy at `beta_k` of a path of densities, `beta_0 = 0` and
        `beta_K = 1`,
        `v_0 ~ p_0`,  `log w = log Z_0 + Σ_{k=1..K} F_{k-1}(v_{k-1}) - F_k(v_{k-1})`,
        `v_k` one Gibbs sweep under `beta_k` from `v_{k-1}`,  `log Ẑ = log mean exp(log w)`.
    The weight is taken at the state drawn under `beta_{k-1}`, and only then is the state moved
    under `beta_k`; moving first biases `log Z` upwards.

    Source: Neal 2001; Salakhutdinov & Murray 2008. Departure from the CGRNN paper's code, which
    moves before it weights and averages `log w` in place of `w`.

    Half of the chains follow `density.annealed`, the other half `density.tempered`. Each weight is
    unbiased for `Z` whatever the path. One path is not enough: in a spike-and-slab RBM trained by
    plain CD, a mode of nearly full frames grows that the data never visit. It holds all of `Z`,
    every chain of the first path misses it, and they agree with each other on a figure that is
    wrong by 2,000 nats. How the paths are combined: `LogPartition.from_groups`. Where both miss a
    mode, no error and no `ess` tells of it: continuous spike-and-slab densities with weights
    N(0, 2²) have narrow ones by which the estimate was low by up to 74 nats.

    On a CPU the chains of densities that it knows are made by a compiled kernel (`samplers.fused`).
    Else the batch is worked through in groups of chains that fit the processor's cache, each with a
    generator of its own, one group a thread. Either way memory grows neither with the batch nor
    with the chains, but for the log-weights, and the numbers do not depend on the threads.

    Args:
        density: energy density with batch shape `(*B,)`.
        chains: independent chains for each density.
        levels: annealing levels, one sweep each. The bias falls with more levels.
        generator: source of the draws.
        schedule: where the levels lie: "linear", "sigmoid", or "adaptive", which measures on a
            pilot of a tenth of the chain-levels at the most where the path is hard
            (`schedules.constant_divergence`), and how far to trust each of the two paths.
        collapsed: for a spike-and-slab density over continuous frames, sweeps with the slabs
            integrated out: far fewer levels do, at a Cholesky factor of `V³/3` each. None: where
            the frame has at most 32 units, so that the factor costs little.
        progress: called with the number of chain-levels just done.

    Returns:
        The estimate with standard error, effective sample size and log-weights.

    Example:
        >>> from cgrnn.layers import BernoulliRBM
        >>> from evaluation import exact
        >>> layer = BernoulliRBM(visible_dim=5, hidden_dim=4)
        >>> _ = torch.nn.init.normal_(layer.W, generator=torch.Generator().manual_seed(0))
        >>> generator = torch.Generator().manual_seed(1)
        >>> estimate = log_partition(layer(None), chains=50, levels=200, generator=generator)
        >>> bool((estimate.log_z - exact.log_partition(layer(None))).abs() < 4 * estimate.stderr)
        True
    """
    if chains < 1:
        raise ValueError(f"chains must be at least 1, got {chains}")
    flat = density.flatten()
    walks = plan(flat, chains, levels, generator, schedule, collapsed)
    if walks[0].fused(flat):
        groups = [walk.fused_up(flat, generator, progress) for walk in walks]
    else:

        def run(cell: _Cell) -> Tensor:
            return cell.walk.up(flat[cell.densities], cell.chains, cell.generator(flat))

        groups = _run_cells(run, walks, flat, generator, progress)
    return LogPartition.from_groups(
        [group.view(-1, *density.batch_shape) for group in groups],
        [walk.share for walk in walks],
    )


def reverse_log_partition(
    density: Any,
    samples: Tensor,
    levels: int = 1000,
    generator: torch.Generator | None = None,
    schedule: Schedule = "adaptive",
    collapsed: bool | None = None,
    progress: Progress | None = None,
) -> LogPartition:
    """Estimate `log Z` from above, by annealing from draws of the density back to `beta = 0`.

    Formula: with the notation of `log_partition` and `v_{K-1}` a draw from the density itself,
        `log w = log Z_0 + Σ_{k=K..1} F_{k-1}(v_{k-1}) - F_k(v_{k-1})`, `v_{k-2}` one Gibbs sweep
        under `beta_{k-1}` from `v_{k-1}` (the sweep is its own reversal),
        `log Ẑ = -log mean exp(-log w)`.
    `1/Ẑ` is unbiased for `1/Z`, so that `log Ẑ` is high on average: with `log_partition` it
    brackets the truth. This holds for exact draws; draws of chains that have not mixed give no
    bound.

    Source: Burda, Grosse & Salakhutdinov 2015; Grosse, Ghahramani & Adams 2015.

    Args:
        density: energy density with batch shape `(*B,)`.
        samples: draws from each density, `(n, *B, V)`; one chain begins at each.
        levels, generator, schedule, collapsed, progress: as for `log_partition`.

    Returns:
        The estimate; its kind is "upper bound" and its `ess` that of the weights `1/w`.
    """
    expected = (*density.batch_shape, density.visible_dim)
    if len(samples) < 1 or samples.shape[1:] != expected:
        raise ValueError(
            f"samples: expected draws of shape (n, {', '.join(map(str, expected))}), "
            f"got {tuple(samples.shape)}"
        )
    flat = density.flatten()
    walks = plan(flat, len(samples), levels, generator, schedule, collapsed)
    starts = samples.reshape(len(samples), -1, flat.visible_dim)

    of_walks = starts.split([walk.chains for walk in walks])
    if walks[0].fused(flat):
        groups = [
            walk.fused_down(flat, v, generator, progress)
            for walk, v in zip(walks, of_walks, strict=True)
        ]
    else:

        def run(cell: _Cell) -> Tensor:
            own = of_walks[0 if cell.walk is walks[0] else 1]
            v = own[cell.first : cell.first + cell.chains, cell.densities]
            return cell.walk.down(flat[cell.densities], v, cell.generator(flat))

        groups = _run_cells(run, walks, flat, generator, progress)
    inverse = LogPartition.from_groups(
        [-group.view(-1, *density.batch_shape) for group in groups],
        [walk.share for walk in walks],
    )
    return LogPartition(
        -inverse.log_z, inverse.stderr, inverse.ess, "upper bound", -inverse.log_weights
    )


class Bracket(NamedTuple):
    """`log Z` from below and from above, each on average over its draws."""

    lower: LogPartition
    upper: LogPartition


def bracket(
    density: Any,
    samples: Tensor,
    chains: int = 100,
    levels: int = 1000,
    generator: torch.Generator | None = None,
    schedule: Schedule = "adaptive",
    collapsed: bool | None = None,
) -> Bracket:
    """Annealed importance sampling forward and in reverse.

    Args:
        density: energy density with batch shape `(*B,)`.
        samples: draws from each density, `(n, *B, V)`: exact (`evaluation.exact.sample`), or where
            long chains stand.
        chains: chains of the forward direction.
        levels, generator, schedule, collapsed: as for `log_partition`.

    Example:
        >>> from cgrnn.layers import GaussianRBM
        >>> from evaluation import exact
        >>> density, generator = GaussianRBM(5, 4)(None), torch.Generator().manual_seed(0)
        >>> samples = exact.sample(density, 50, generator)
        >>> lower, upper = bracket(density, samples, 50, 100, generator)
        >>> bool(upper.log_z - lower.log_z < 0.01), upper.kind
        (True, 'upper bound')
    """
    how: dict[str, Any] = {
        "generator": generator,
        "schedule": schedule,
        "collapsed": collapsed,
    }
    return Bracket(
        log_partition(density, chains, levels, **how),
        reverse_log_partition(density, samples, levels, **how),
    )


class _Cell(NamedTuple):
    """Chains that run together: some chains of one walk for some densities of the batch."""

    walk: Walk
    densities: slice
    first: int
    chains: int
    seed: int

    def generator(self, flat: Any) -> torch.Generator:
        return torch.Generator(flat.visible_bias.device).manual_seed(self.seed)


def _run_cells(
    run: Callable[[_Cell], Tensor],
    walks: list[Walk],
    flat: Any,
    generator: torch.Generator | None,
    progress: Progress | None,
) -> list[Tensor]:
    """Log-weights `(chains, B)` of every walk, made cell by cell, a cell a thread."""
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
        _Cell(walk, densities, first, min(rows, walk.chains - first), seed)
        for (walk, densities, first), seed in zip(
            places, seeds(len(places), generator), strict=True
        )
    ]
    results = {id(walk): bias.new_empty(walk.chains, total, dtype=torch.float64) for walk in walks}

    def fill(cell: _Cell) -> None:
        found = run(cell)
        results[id(cell.walk)][cell.first : cell.first + cell.chains, cell.densities] = found
        if progress is not None:
            progress(found.numel() * (len(cell.walk.betas) - 1))

    _in_threads(fill, cells)
    return list(results.values())


def _in_threads(fill: Callable[[_Cell], None], cells: list[_Cell]) -> None:
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
