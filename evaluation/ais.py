"""Annealed importance sampling of partition functions, forward and in reverse."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from evaluation import contract, modes
from evaluation.cells import Cell, run_cells
from evaluation.modes import Found
from evaluation.regions import Regions, judge, masses
from evaluation.result import LogPartition
from evaluation.schedules import Schedule
from evaluation.walks import Progress, Walk, Weighed, plan

# Chains that suffice for annealing once more from the modes; and of them those that each mode gets,
# an eighth, but so many at the least.
_ENOUGH, _PART, _LEAST = 16, 8, 4
# Numbers in the frames of chains that are held at a time.
_HELD = {"cpu": 1 << 20, "cuda": 1 << 26}


@torch.no_grad()
def log_partition(
    density: Any,
    chains: int = 100,
    levels: int = 1000,
    generator: torch.Generator | None = None,
    schedule: Schedule = "adaptive",
    collapsed: bool | None = None,
    progress: Progress | None = None,
    starts: Tensor | None = None,
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
    wrong by 2,000 nats. How the paths are combined: `LogPartition.from_groups`.

    What both miss, cheap chains from elsewhere look for, at some 3 % of the cost
    (`evaluation.modes`). The states that they find prove `log Z` from below: `bound`. Where they
    show a mode that the chains leave out, or where few weights carry the estimate, it is made anew:
    an eighth as many chains begin in each of four modes, and `Z` is put together region by region
    (`evaluation.regions`), still without bias. Where the estimate falls short of what was found
    even then, it is `missed`, its error infinite, and `log_z` at least the bound. Densities whose
    `frames` are neither binary nor continuous are not searched.

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
        progress: called with the number of chain-levels just done, of those asked for.
        starts: further frames where chains begin that look for modes, `(n, V)`, such as data.

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
    contract.check(density)
    if chains < 1:
        raise ValueError(f"chains must be at least 1, got {chains}")
    flat = density.flatten()
    walks = plan(flat, chains, levels, generator, schedule, collapsed)
    parts = []
    for rows in _parts(flat, chains):
        some = flat[rows]
        budget = int(modes.SHARE * chains * levels)
        found = modes.search(some, budget, generator, starts)
        weighed = _up(walks, some, generator, progress)
        parts.append(_put_together(some, walks, weighed, found, generator, progress))
    return LogPartition.joined(parts, density.batch_shape)


def _put_together(
    flat: Any,
    walks: list[Walk],
    weighed: list[Weighed],
    found: Found | None,
    generator: torch.Generator | None,
    progress: Progress | None,
) -> LogPartition:
    """The estimate of the paths from the base; anew with chains from the modes where those found
    what they miss."""
    groups = [one.log_weights for one in weighed]
    estimate = LogPartition.from_groups(groups, [walk.share for walk in walks])
    if found is None:
        return estimate
    found = found.with_frames(flat, torch.cat([one.frames for one in weighed]))
    chains = sum(walk.chains for walk in walks)
    if chains < _ENOUGH:
        verdict = judge(found, estimate, chains)
        return replace(estimate, stderr=verdict.stderr).proven(found.bound, verdict.missed)
    biases = modes.bases(flat, found, generator)
    around = Regions.around(flat, walks, biases)
    estimated = masses(around, walks, weighed)
    verdict = judge(found, estimate, chains, around, estimated)
    estimate = replace(estimate, stderr=verdict.stderr)
    rows = verdict.reason.nonzero()[:, 0]
    if not len(rows):
        return estimate.proven(found.bound, verdict.missed)

    few, own = flat[rows], replace(walks[-1], chains=max(_LEAST, chains // _PART))
    of_walks = [Weighed(one.log_weights[:, rows], one.frames[:, rows]) for one in weighed]
    of_modes = _from_modes(own, few, biases[:, rows], generator)
    around = Regions.around(few, walks, biases[:, rows])
    estimated = masses(around, walks, of_walks, of_modes)
    again = estimated.total(estimate.log_weights[:, rows])
    found_now = found[rows].with_frames(few, torch.cat([one.frames for one in of_modes]))
    verdict_now = judge(found_now, again, own.chains, around, estimated)
    return estimate.at(rows, replace(again, stderr=verdict_now.stderr)).proven(
        found.bound.index_copy(0, rows, found_now.bound),
        verdict.missed.index_copy(0, rows, verdict_now.missed),
    )


@torch.no_grad()
def draw(
    density: Any,
    count: int,
    levels: int = 1000,
    generator: torch.Generator | None = None,
    starts: Tensor | None = None,
) -> Tensor:
    """Draw frames that are spread over the modes as the mass is, `(count, *B, V)`.

    Formula: frames `v_i` where `count` chains of `log_partition` end, and an eighth as many from
        each mode, drawn again with probabilities in proportion to what each adds to `Ẑ`.
    They are draws of the density as the chains and their levels grow; none is alone in its mode,
    so that Gibbs sweeps from there need not cross from one to another.

    Args:
        density: energy density with batch shape `(*B,)`.
        count: draws from each density.
        levels, generator, starts: as for `log_partition`.

    Example:
        >>> from cgrnn.layers import BernoulliRBM
        >>> draw(BernoulliRBM(5, 3)(None), 7, levels=10).shape
        torch.Size([7, 5])
    """
    contract.check(density)
    flat = density.flatten()
    walks = plan(flat, count, levels, generator, "adaptive", None)
    weighed = _up(walks, flat, generator, None)
    log_weights = torch.cat(
        [
            one.log_weights + math.log(walk.share / walk.chains)
            for one, walk in zip(weighed, walks, strict=True)
        ]
    )
    frames = torch.cat([one.frames for one in weighed])
    found = modes.search(flat, int(modes.SHARE * count * levels), generator, starts)
    if found is not None:
        biases = modes.bases(flat, found.with_frames(flat, frames), generator)
        around = Regions.around(flat, walks, biases)
        own = replace(walks[-1], chains=max(_LEAST, count // _PART))
        log_weights = log_weights + around.log_shares(frames)[0]
        for number, mode in enumerate(_from_modes(own, flat, biases, generator)):
            part = mode.log_weights + around.log_shares(mode.frames)[number + 1]
            log_weights = torch.cat([log_weights, part - math.log(own.chains)])
            frames = torch.cat([frames, mode.frames])
    share = log_weights.softmax(0).nan_to_num()
    share = torch.where(share.sum(0) > 0, share, 1.0)  # of weights that have diverged, any
    chosen = torch.multinomial(share.T, count, replacement=True, generator=generator).T
    drawn = frames.gather(0, chosen[..., None].expand(-1, -1, frames.shape[-1]))
    return drawn.view(count, *density.batch_shape, -1)


@torch.no_grad()
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
    bound. `stderr` is the noise of the draws and holds nothing of how high `log Ẑ` is on average.

    Source: Burda, Grosse & Salakhutdinov 2015; Grosse, Ghahramani & Adams 2015.

    Args:
        density: energy density with batch shape `(*B,)`.
        samples: draws from each density, `(n, *B, V)`; one chain begins at each.
        levels, generator, schedule, collapsed, progress: as for `log_partition`.

    Returns:
        The estimate; its kind is "upper bound" and its `ess` that of the weights `1/w`.
    """
    contract.check(density)
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
    weighed = _down(walks, flat, of_walks, generator, progress)
    inverse = LogPartition.from_groups(
        [-one.log_weights for one in weighed], [walk.share for walk in walks]
    )
    upper = replace(
        inverse, log_z=-inverse.log_z, kind="upper bound", log_weights=-inverse.log_weights
    )
    found = modes.search(flat, int(modes.SHARE * len(samples) * levels), generator)
    if found is not None:
        upper = upper.proven(found.with_frames(flat, starts).bound)
    return LogPartition.joined([upper], density.batch_shape)


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


def _parts(flat: Any, chains: int) -> list[slice]:
    """Densities that are worked on together, so that what their chains hold stays small."""
    total, device = flat.batch_shape[0], flat.visible_bias.device.type
    size = max(1, _HELD.get(device, _HELD["cpu"]) // (chains * flat.visible_dim))
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]


def _up(
    walks: list[Walk],
    flat: Any,
    generator: torch.Generator | None,
    progress: Progress | None,
    bases: Tensor | None = None,
) -> list[Weighed]:
    """All chains of every walk, from the density's own bases or from given ones `(B, V)`."""
    if walks[0].fused(flat):
        return [walk.fused_up(flat, generator, progress, bases) for walk in walks]

    def run(cell: Cell) -> Weighed:
        own = None if bases is None else bases[cell.densities]
        return cell.walk.up(flat[cell.densities], cell.chains, cell.generator(flat), own)

    return run_cells(run, walks, flat, generator, progress)


def _from_modes(
    walk: Walk, flat: Any, biases: Tensor, generator: torch.Generator | None
) -> list[Weighed]:
    """Chains that begin around each of the modes with biases `(M, B, V)`, all side by side."""
    count = flat.batch_shape[0]
    numbers = torch.arange(count, device=biases.device).repeat(len(biases))
    [every] = _up([walk], flat[numbers], generator, None, biases.flatten(0, 1))
    parts = every.log_weights.split(count, 1), every.frames.split(count, 1)
    return [Weighed(*part) for part in zip(*parts, strict=True)]


def _down(
    walks: list[Walk],
    flat: Any,
    starts: Sequence[Tensor],
    generator: torch.Generator | None,
    progress: Progress | None,
) -> list[Weighed]:
    """Chains from draws of the densities back to their bases."""
    if walks[0].fused(flat):
        return [
            walk.fused_down(flat, v, generator, progress)
            for walk, v in zip(walks, starts, strict=True)
        ]

    def run(cell: Cell) -> Weighed:
        own = starts[0 if cell.walk is walks[0] else 1]
        v = own[cell.first : cell.first + cell.chains, cell.densities]
        return cell.walk.down(flat[cell.densities], v, cell.generator(flat))

    return run_cells(run, walks, flat, generator, progress)
