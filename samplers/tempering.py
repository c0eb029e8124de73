"""Parallel tempering (replica exchange) over the frames of an energy density."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

DensityPath = Callable[[float], Any]

EVEN = tuple(k / 10 for k in range(11))
PILOTS = 8
RESOLVED = 0.01  # refusals rarer than this are the noise of a pilot, and not worth a replica


@dataclass(frozen=True)
class Replicas:
    """State of parallel tempering: one frame at each `beta`, for every chain.

    Attributes:
        betas: the ladder, rising to 1, the target. `K` values.
        frames: where the replicas stand, hottest first, `(K, *S, *B, V)`.
        from_base: whether the replica stood at the hottest end later than at the target,
            `(K, *S, *B)` booleans.
        rounds: rounds made so far.
    """

    betas: tuple[float, ...]
    frames: Tensor
    from_base: Tensor
    rounds: int = 0

    def __post_init__(self) -> None:
        rising = all(low < high for low, high in zip(self.betas, self.betas[1:], strict=False))
        if len(self.betas) < 2 or not rising or self.betas[0] < 0 or self.betas[-1] != 1:
            raise ValueError(f"betas must rise from 0 or more to 1, got {self.betas}")
        if len(self.frames) != len(self.betas):
            raise ValueError(f"{len(self.betas)} betas but frames of {len(self.frames)} replicas")


@dataclass(frozen=True)
class Tempered:
    """What a run of parallel tempering leaves.

    Attributes:
        replicas: the state, from which a further run goes on.
        acceptance: mean probability that a swap of neighbours `k` and `k+1` is accepted,
            `(K-1, *B)`.
        round_trips: times that a replica arrived at the target that had come from the hottest end
            since it was last there, `(*S, *B)`. Each brings a frame that owes nothing to those
            before it if `betas[0] = 0`.
        trace: what was recorded of the target's frames after each round, `(rounds, ...)`.
    """

    replicas: Replicas
    acceptance: Tensor
    round_trips: Tensor
    trace: Tensor | None

    @property
    def frames(self) -> Tensor:
        """Frames of the target, `(*S, *B, V)`."""
        return self.replicas.frames[-1]

    @property
    def barrier(self) -> Tensor:
        """Communication barrier `Σ_k (1 - acceptance_k)`, `(*B,)`.

        It hardly depends on the ladder where most swaps are accepted, and is too low where few
        are. Round trips cost least by about `2 barrier + 1` replicas on a tuned ladder.
        """
        return (1 - self.acceptance).sum(0)


@torch.no_grad()
def start(
    path: DensityPath,
    shape: tuple[int, ...],
    betas: Sequence[float] = EVEN,
    generator: torch.Generator | None = None,
) -> Replicas:
    """Replicas that start from exact draws at `beta = 0`, at every `beta` their own.

    Args:
        path: densities by `beta`, such as `density.annealed`.
        shape: sample dimensions; each sample is a chain of its own.
        betas: the ladder.
        generator: source of the draws.

    Raises:
        ValueError: when the betas do not rise to 1.
    """
    frames = path(0.0).sample_base((len(betas), *shape), generator)
    from_base = torch.zeros(frames.shape[:-1], dtype=torch.bool, device=frames.device)
    from_base[0] = True
    return Replicas(tuple(betas), frames, from_base)


@torch.no_grad()
def step(
    ladder: Sequence[Any], replicas: Replicas, generator: torch.Generator | None = None
) -> tuple[Replicas, Tensor, Tensor]:
    """One round: swaps between every other pair of neighbours, then a Gibbs sweep of each replica.

    Even rounds offer swaps to the pairs (0, 1), (2, 3), …, odd ones to (1, 2), (3, 4), …. At
    `beta = 0` a sweep is an independent draw.

    Args:
        ladder: the densities of `replicas.betas`. `project` must be the same for all, as it is
            along `annealed` and `tempered`.
        replicas: where the replicas stand.
        generator: source of the draws.

    Returns:
        The replicas after the round, the probabilities with which the swaps offered were accepted
        `(pairs offered, *S, *B)`, and whether a replica from the hottest end arrived at the target
        `(*S, *B)`.
    """
    frames, from_base = list(replicas.frames), list(replicas.from_base)
    projected = [ladder[0].project(v) for v in frames]
    acceptance = []
    for low in range(replicas.rounds % 2, len(ladder) - 1, 2):
        pair = slice(low, low + 2)
        log_ratio = swap_log_ratio(ladder[pair], frames[pair], projected[pair])
        acceptance.append(log_ratio.clamp(max=0).exp())
        swap = torch.empty_like(log_ratio).uniform_(generator=generator) < acceptance[-1]
        from_base[pair] = _exchange(swap, *from_base[pair])
        frames[pair] = _exchange(swap[..., None], *frames[pair])
        projected[pair] = _exchange(swap[..., None], *projected[pair])
    arrived, from_base[-1] = from_base[-1], torch.zeros_like(from_base[-1])
    from_base[0] = torch.ones_like(from_base[0])
    moved = [
        density.gibbs_step(v, generator, products)
        for density, v, products in zip(ladder, frames, projected, strict=True)
    ]
    after = Replicas(
        replicas.betas, torch.stack(moved), torch.stack(from_base), replicas.rounds + 1
    )
    none = replicas.frames.new_empty(0, *arrived.shape)
    offered = torch.stack(acceptance) if acceptance else none
    return after, offered, arrived


@torch.no_grad()
def parallel_tempering(
    path: DensityPath,
    replicas: Replicas,
    rounds: int,
    generator: torch.Generator | None = None,
    record: Callable[[Tensor], Tensor] | None = None,
) -> Tempered:
    """Sample frames of `path(1)` by replicas at a ladder of `beta` that swap places.

    Formula: after a Gibbs sweep of each replica under `p_k ∝ exp(-F_k)`, neighbours `i`, `j` swap
    with probability
        `min(1, exp(F_i(v_i) + F_j(v_j) - F_i(v_j) - F_j(v_i)))`,
    which leaves the product of all `p_k` invariant. Hot replicas cross between modes and hand them
    down; a chain at the target alone would stay in one.

    Source: Swendsen & Wang 1986, Geyer 1991; swaps alternate between even and odd pairs, in place
    of pairs at random, as in Syed, Bouchard-Côté, Deligiannidis & Doucet 2022; for RBMs:
    Desjardins, Courville, Bengio, Vincent & Delalleau 2010.

    Without round trips nothing is gained over Gibbs sampling. With many of them, a mode can still
    be missed that no replica meets: `annealed` keeps the biases, and where they hide a mode until
    `beta` is near 1 all swaps may be accepted and every diagnostic look well. `tempered`, which
    shrinks b̃_v too, meets it, at the price of a higher barrier.

    Args:
        path: densities by `beta`, such as `density.annealed`.
        replicas: where to begin, from `start`, `tune` or a run before.
        rounds: rounds to make, one sweep of each replica in each; at least 2.
        generator: source of the draws.
        record: a function of the target's frames `(*S, *B, V)` to be kept after each round, such as
            `density.free_energy`; with one sample dimension `samplers.diagnose` takes its trace.

    Returns:
        The replicas, how the swaps went, and the trace.

    Raises:
        ValueError: when there are fewer than 2 rounds: even and odd pairs take turns.

    Example:
        >>> from cgrnn.layers import BernoulliRBM
        >>> density, generator = BernoulliRBM(5, 3)(None), torch.Generator().manual_seed(0)
        >>> replicas = start(density.annealed, (100,), betas=(0.0, 0.5, 1.0), generator=generator)
        >>> run = parallel_tempering(density.annealed, replicas, 50, generator)
        >>> run.frames.shape, run.acceptance.shape, bool((run.round_trips > 10).all())
        (torch.Size([100, 5]), torch.Size([2]), True)
    """
    if rounds < 2:
        raise ValueError(f"rounds must be at least 2, for the even and the odd pairs, got {rounds}")
    ladder = [path(beta) for beta in replicas.betas]
    batch_shape = ladder[-1].batch_shape
    accepted = [replicas.frames.new_zeros(batch_shape) for _ in ladder[1:]]
    offers = [0] * len(accepted)
    round_trips = torch.zeros_like(replicas.from_base[0], dtype=torch.long)
    recorded = []
    for _ in range(rounds):
        first = replicas.rounds % 2
        replicas, offered, arrived = step(ladder, replicas, generator)
        for low, acceptance in zip(range(first, len(accepted), 2), offered, strict=True):
            accepted[low] += acceptance.reshape(-1, *batch_shape).mean(0)
            offers[low] += 1
        round_trips += arrived
        if record is not None:
            recorded.append(record(replicas.frames[-1]))
    return Tempered(
        replicas,
        torch.stack([total / count for total, count in zip(accepted, offers, strict=True)]),
        round_trips,
        torch.stack(recorded) if recorded else None,
    )


def tune(
    path: DensityPath, replicas: Replicas, rounds: int, generator: torch.Generator | None = None
) -> Replicas:
    """Space the betas so that all swaps are refused equally often, and warm the replicas up.

    In eight pilot runs the refusals, summed along the ladder, tell how much of the barrier lies
    below each `beta`; the betas then move to where equal shares of it lie between them. One ladder
    serves the batch, by the mean refusal. How many replicas are enough: `Tempered.barrier`.

    Source: Syed, Bouchard-Côté, Deligiannidis & Doucet 2022, §5, with linear interpolation.

    Args:
        path: densities by `beta`.
        replicas: where to begin, from `start`.
        rounds: rounds in all, at least 16.
        generator: source of the draws.

    Returns:
        The replicas where they stand, with the new betas.

    Example:
        >>> from cgrnn.layers import BernoulliRBM
        >>> layer, generator = BernoulliRBM(5, 3), torch.Generator().manual_seed(0)
        >>> density = layer.requires_grad_(False)(None)
        >>> _ = layer.W.normal_(generator=generator)
        >>> replicas = start(density.annealed, (100,), (0.0, 0.98, 1.0), generator)
        >>> tuned = tune(density.annealed, replicas, 200, generator)
        >>> run = parallel_tempering(density.annealed, tuned, 100, generator)
        >>> bool(run.acceptance.diff().abs() < 0.1)
        True
    """
    for _ in range(PILOTS):
        run = parallel_tempering(path, replicas, rounds // PILOTS, generator)
        refused = 1 - run.acceptance.double().reshape(len(run.acceptance), -1).mean(1)
        share = np.append(0.0, refused.clamp(min=RESOLVED).cumsum(0).cpu().numpy())
        even = np.linspace(0.0, share[-1], len(share))
        inner = np.interp(even, share, replicas.betas)[1:-1].tolist()
        replicas = replace(run.replicas, betas=(replicas.betas[0], *inner, 1.0))
    return replicas


def swap_log_ratio(
    densities: Sequence[Any], frames: Sequence[Tensor], projected: Sequence[Any]
) -> Tensor:
    """`F_i(v_i) + F_j(v_j) - F_i(v_j) - F_j(v_i)`, log odds of the swap's Metropolis rule."""
    (p, q), (v, w), (pv, pw) = densities, frames, projected
    stay = p.free_energy(v, pv) + q.free_energy(w, pw)
    swapped = p.free_energy(w, pw) + q.free_energy(v, pv)
    return stay - swapped


def _exchange(swap: Tensor, a: Any, b: Any) -> tuple[Any, Any]:
    """`(b, a)` where the swap is made, `(a, b)` elsewhere; of tensors or of tuples of them."""
    if isinstance(a, tuple):
        exchanged = [_exchange(swap, x, y) for x, y in zip(a, b, strict=True)]
        return tuple(x for x, _ in exchanged), tuple(y for _, y in exchanged)
    return torch.where(swap, b, a), torch.where(swap, a, b)
