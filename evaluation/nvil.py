"""The NVIL upper bound of partition functions, and the training of proposals for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from evaluation import contract, modes
from evaluation.proposals import (
    BernoulliUnits,
    GaussianUnits,
    Proposal,
    Rows,
    Units,
    VariationalProposal,
)
from evaluation.result import LogPartition

# Frames that are drawn and scored together.
_ROWS = 1 << 13
# Training: frames a step, chains a density at the least, and their sweeps before the first step.
_STEP_ROWS, _CHAINS, _ANNEALING_SWEEPS, _MARGINAL_SWEEPS = 512, 32, 100, 20
# Sweeps at the least that look for modes which the proposal leaves out.
_SWEEPS = 1000
_LAST_ORDER, _LEARNING_RATE, _CLIP_NORM = 2.0, 0.01, 1.0


@torch.no_grad()
def log_partition(
    density: Any,
    proposal: Proposal,
    samples: int = 10_000,
    generator: torch.Generator | None = None,
    progress: Callable[[int], None] | None = None,
) -> LogPartition:
    """Bound `log Z` of every density of a batch from above.

    Formula: for any proposal `q(v, a) = q(a) q(v|a)` and any normalised `r(a|v)`,
        `w = exp(-F(v)) r(a|v) / q(v, a)`,  `log Z = log E_q[w] ≤ ½ log E_q[w²]`,
        which is estimated by `½ log mean w_i²`. The bound exceeds `log Z` by `½ log(1 + χ²)`, with
        χ² the divergence of `p(v) r(a|v)` from `q(v, a)`.

    Source: Kuleshov & Ermon, "Neural Variational Inference and Learning in Undirected Graphical
    Models", NIPS 2017. Departures from the CGRNN paper (Liu, Xie & Wang): it prints the formula
    without the square, which is `½ log Z` and no bound; its code divides `log w` by 1000 before it
    averages, which gives about the mean of `log w`, a bound from below.

    What to trust. The expectation is a bound; its estimate is low on average, by about `stderr²`
    where `ess` is large and by any amount where few squared weights carry it. `stderr` is the noise
    of the draws and holds nothing of the distance from the bound down to `log Z`. Where
    `collapsed`, the figure may be below `log Z` and its error is understated. No error tells of a
    mode where the proposal never draws: cheap chains look for such modes (`evaluation.modes`), and
    where the states that they find prove `log Z` higher, what is proven stands in the figure's
    place, with an infinite error.

    What to expect of a trained proposal. On fifty random densities of each type, of 8 units and 6
    hidden ones with weights N(0, 0.5²), the bound lies above `log Z` by 0.001 nat on average and
    0.003 at the most (RBM), 0.014 and 0.041 (binary spike-and-slab), 0.027 and 0.073 (Gaussian
    RBM), 0.117 and 0.420 (spike-and-slab by spike), 0.030 and 0.071 (spectral):
    `benchmarks/nvil_gap.py`. On the frames of a CGRNN trained on chorales (88 units, 200
    hidden ones, 1000 steps) it lies 1.3 nats above on average, 0.6 to 2.9, with 30 effective
    squared weights of 10,000: all of those have collapsed, which their result says.

    The same weights make `LogPartition.from_log_weights(bound.log_weights)`, the importance
    sampling estimate, unbiased for `Z`; its `ess` is above that of their squares.

    The batch is worked through in blocks, each with a generator of its own: memory does not grow
    with it, but for the log-weights.

    Args:
        density: energy density with batch shape `(*B,)`.
        proposal: for the densities of the flattened batch, as `train(density)` makes it.
        samples: draws for each density.
        generator: source of the draws.
        progress: called with the number of draws just made.

    Returns:
        The bound in nats, of kind "upper bound", with its standard error; `ess` is that of the
        squared weights, and `log_weights` are `log w_i`, not squared, `(samples, *B)`.

    Raises:
        ValueError: when there are no samples, the proposal is for another batch of densities, or
            the density does not declare its frames or breaks its contract (`evaluation.contract`).

    Example:
        >>> from cgrnn.layers import BernoulliRBM
        >>> from evaluation import exact
        >>> layer = BernoulliRBM(visible_dim=5, hidden_dim=4)
        >>> _ = torch.nn.init.normal_(layer.W, generator=torch.Generator().manual_seed(0))
        >>> generator = torch.Generator().manual_seed(1)
        >>> proposal = train(layer(None), steps=200, generator=generator)
        >>> bound = log_partition(layer(None), proposal, generator=generator)
        >>> gap = bound.log_z - exact.log_partition(layer(None))
        >>> bool(-4 * bound.stderr < gap), bool(gap < 0.1)
        (True, True)
    """
    contract.check(density)
    contract.frames(density, "nvil")
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    flat = density.flatten()
    batch, size = flat.batch_shape[0], max(1, _ROWS // samples)
    blocks = [slice(start, min(start + size, batch)) for start in range(0, batch, size)]
    seeds = torch.randint(
        2**62, (len(blocks),), generator=generator, device=generator.device if generator else "cpu"
    )
    log_weights = flat.visible_bias.new_empty(samples, batch, dtype=torch.float64)
    for rows, seed in zip(blocks, seeds.tolist(), strict=True):
        own = torch.Generator(log_weights.device).manual_seed(seed)
        for part in log_weights[:, rows].split(_ROWS):
            part.copy_(_log_weights(flat[rows], proposal, len(part), rows, own))
            if progress is not None:
                progress(part.numel())
    squares = LogPartition.from_log_weights(2 * log_weights)
    upper = replace(
        squares,
        log_z=0.5 * squares.log_z,
        stderr=0.5 * squares.stderr,
        kind="upper bound",
        log_weights=log_weights,
    )
    found = modes.search(flat, max(_SWEEPS, int(modes.SHARE * samples)), generator)
    if found is not None:
        upper = upper.proven(found.bound)
    return LogPartition.joined([upper], density.batch_shape)


def train(
    density: Any,
    steps: int = 1000,
    generator: torch.Generator | None = None,
    progress: Callable[[int], None] | None = None,
) -> VariationalProposal:
    """Fit one proposal to all densities of a batch.

    Formula: with frames `v` of Gibbs chains, `a ~ r(a|v)` and `w = exp(-F(v)) r(a|v) / q(v, a)`,
        each step descends `(1/γ) log mean w^γ`, averaged over the densities. Its gradient is
        `Σ_i W̃_i ∇ log w_i`, where `W̃_i` is `w_i^γ` normalised.

    For γ = 1 that is the NVIL bound: `E_q[w²] = Z E_p E_r[w]` holds the first power of the weights
    under the density where the left side holds the second under `q`, which collapses onto one draw;
    and no gradient passes through `v`. For γ = 0 it is the training of a VAE on frames of the
    density. γ rises from 0 to 2 over the first half of the steps. Beyond 1, `E_q[w³]` is made
    small: the bound loses little by it, and its estimate gets an error that can be trusted. Over
    the first tenth of the steps the divergence of `r(a|v)` from `q(a)` counts in part, from nothing
    to all of it; else some decoders of two modes never take notice of `a`.

    The chains decide which modes are proposed. A third of them begin at the base and are annealed
    along `density.annealed`, a third along `density.tempered`; a third are not annealed, and stay
    in modes that lie within the base. `W̃` corrects their proportions, but a mode that no chain
    visits is not proposed.

    Args:
        density: energy density with batch shape `(*B,)`.
        steps: steps of Adam, with 512 frames each. With more than 16 densities, a step takes 16 of
            them. 0 leaves the networks as they begin.
        generator: source of all draws.
        progress: called with the number of steps just made.

    Returns:
        A proposal for the densities of the flattened batch.

    Raises:
        ValueError: when `steps` is negative, or the density does not declare its frames or breaks
            its contract.

    Example:
        >>> from cgrnn.layers import BernoulliRBM
        >>> layer = BernoulliRBM(visible_dim=5, hidden_dim=4)
        >>> proposal = train(layer(None), steps=2, generator=torch.Generator().manual_seed(0))
        >>> v, log_ratio = proposal.sample(7, slice(0, 1))
        >>> v.shape, log_ratio.shape
        (torch.Size([7, 1, 5]), torch.Size([7, 1]))
    """
    contract.check(density)
    contract.frames(density, "nvil")
    if steps < 0:
        raise ValueError(f"steps must be at least 0, got {steps}")
    flat = density.flatten()
    frames, units = _chains(flat, generator)
    proposal = VariationalProposal(flat, units, generator)
    parameters = list(proposal.networks.parameters())
    optimiser = torch.optim.Adam(parameters, lr=_LEARNING_RATE, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, steps))
    for step in range(steps):
        rows = _some_rows(frames, generator)
        v, free_energy = _advance(flat[rows], frames, rows, generator)
        order = _LAST_ORDER * min(1.0, 2 * step / steps)
        warmth = min(1.0, 10 * step / steps)
        with torch.enable_grad():
            log_likelihood, divergence = proposal.reconstruct(v, rows, generator)
            log_weights = warmth * divergence - log_likelihood - free_energy
            share = (order * log_weights.detach()).softmax(0)
            (share * log_weights).sum(0).mean().backward()
        nn.utils.clip_grad_norm_(parameters, _CLIP_NORM)
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        if progress is not None:
            progress(1)
    proposal.networks.requires_grad_(False)
    return proposal


def _log_weights(
    density: Any, proposal: Proposal, samples: int, rows: slice, generator: torch.Generator
) -> Tensor:
    """`log w` of fresh draws for the densities of some rows, `(samples, B')`."""
    v, log_ratio = proposal.sample(samples, rows, generator)
    expected = (samples, *density.batch_shape, density.visible_dim)
    if v.shape != expected or log_ratio.shape != expected[:-1]:
        raise ValueError(
            f"proposal: draws frames {tuple(v.shape)} and log-ratios {tuple(log_ratio.shape)} "
            f"where the densities need {expected} and {expected[:-1]}: it is for another batch"
        )
    return -density.free_energy(v).double() - log_ratio.double()


@torch.no_grad()
def _chains(density: Any, generator: torch.Generator | None) -> tuple[Tensor, Units]:
    """Frames of Gibbs chains `(chains, B, V)`, and independent units with their moments."""
    batch = density.batch_shape[0]
    chains = max(_CHAINS, _STEP_ROWS // batch)
    size = max(1, _STEP_ROWS // chains)
    found = [
        _explore(density[start : start + size], chains, generator)
        for start in range(0, batch, size)
    ]
    frames, mean, variance = zip(*found, strict=True)
    kind = GaussianUnits if density.frames == "continuous" else BernoulliUnits
    return torch.cat(frames, 1), kind.of_moments(torch.cat(mean), torch.cat(variance))


def _explore(
    density: Any, chains: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Where the chains stand before training, and mean and variance of their units, `(B, V)`."""
    third = chains // 3
    paths = (
        (density.annealed, third),
        (density.tempered, third),
        (lambda beta: density.annealed(float(beta > 0)), chains - 2 * third),
    )
    starts = []
    for path, count in paths:
        v = path(0.0).sample_base((count,), generator)
        for sweep in range(1, _ANNEALING_SWEEPS + 1):
            v = path(sweep / _ANNEALING_SWEEPS).gibbs_step(v, generator)
        starts.append(v)
    v = torch.cat(starts)
    first = second = torch.zeros_like(v[0], dtype=torch.float64)
    continuous = density.frames == "continuous"
    for _ in range(_MARGINAL_SWEEPS):
        # Moments given the latents in place of those of the frames: exact where W = 0.
        latents = density.sample_latents(v, generator)
        mean = density.mean_visible(latents).double()
        variance = 1 / density.visible_precision(latents) if continuous else 0.0
        first = first + mean.mean(0) / _MARGINAL_SWEEPS
        second = second + (mean**2 + variance).mean(0) / _MARGINAL_SWEEPS
        v = density.sample_visible(latents, generator)
    return v, first.to(v), (second - first**2).to(v)


def _some_rows(frames: Tensor, generator: torch.Generator | None) -> Rows:
    """As many densities as a step takes, at random."""
    chains, batch = frames.shape[:2]
    wanted = max(1, _STEP_ROWS // chains)
    if wanted >= batch:
        return slice(None)
    return torch.randperm(batch, generator=generator, device=frames.device)[:wanted]


@torch.no_grad()
def _advance(
    density: Any, frames: Tensor, rows: Rows, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Move the chains of these rows by a sweep: where they stand, and their free energies."""
    v = density.gibbs_step(frames[:, rows], generator)
    frames[:, rows] = v
    return v, density.free_energy(v)
