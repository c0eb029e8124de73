"""Partition functions put together region by region, so that no mode counts for another.

With independent bases `p_0, p_1, …` around the modes of a density (`evaluation.modes`; the first is
that of the paths from the density's own base) a frame belongs to region `m` with the share
`r_m(v) = p_m(v) / Σ_k p_k(v)`. Shares sum to 1, so that `Z = Σ_m Z_m` with
`Z_m = ∫ exp(-F(v)) r_m(v) dv`; and chains of annealed importance sampling from *any* base estimate
each of them without bias, by `w r_m(v)` at the state that was weighed last. A mode is estimated by
chains that begin in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from evaluation.modes import Found
from evaluation.result import ERRORS_ALLOWED, LogPartition
from evaluation.walks import Walk, Weighed

# Chains from elsewhere count for a mode only where those that begin in it fall short of them.
_ELSEWHERE = 1e-9
# So few effective ones of them, and so far above, do not count at all.
_FEW, _BY_CHANCE, _AWAY = 10.0, 5.0, 1e4
_COUNTS = 0.05  # share of `Z` from which on a region's tail matters
# Nats beside the standard errors by which what was found may exceed what was estimated.
_ALLOWED = 0.01


class Regions(NamedTuple):
    """The partition of unity of a flat batch: normalised bases `p_k`, and which region each is of.

    Attributes:
        bases: densities without couplings: those of the paths first, then those of the modes.
        own: how many belong to the paths; they make up region 0.
    """

    bases: list[Any]
    own: int

    @classmethod
    def around(cls, density: Any, walks: Sequence[Walk], biases: Tensor) -> Regions:
        """The regions of the paths' own bases and of modes with `biases` `(M, B, V)`."""
        of_paths = [walk.at(density, 0) for walk in walks]
        return cls([*of_paths, *(walks[-1].at(density, 0, bias) for bias in biases)], len(of_paths))

    def log_shares(self, frames: Tensor) -> Tensor:
        """`log r_m` of frames `(n, B, V)` in each region, `(1 + M, n, B)` float64."""
        log_prob = torch.stack([_log_prob(base, frames) for base in self.bases])
        log_prob = log_prob - log_prob.logsumexp(0)
        return torch.cat([log_prob[: self.own].logsumexp(0)[None], log_prob[self.own :]])


def _log_prob(base: Any, frames: Tensor) -> Tensor:
    """`log p` of frames under a density without couplings. Its latents add a constant to the free
    energy, which one frame tells."""
    silent = torch.zeros_like(base.visible_bias)
    constant = base.free_energy(silent) - base._visible_energy(silent) + base.base_log_partition()
    return -(base._visible_energy(frames) + constant).double()


class Masses(NamedTuple):
    """`log Z_m` of every region, with errors, effective weights and tails, `(1 + M, B)` each."""

    log_z: Tensor
    stderr: Tensor
    ess: Tensor
    tail: Tensor

    def total(self, log_weights: Tensor) -> LogPartition:
        """`log Σ_m Z_m`. Errors are added as if the regions were independent, which errs on the
        safe side: a chain that is in one region is not in another."""
        log_z = self.log_z.logsumexp(0)
        part = (self.log_z - log_z).exp()
        error = (part * self.stderr).nan_to_num(nan=math.inf, posinf=math.inf)
        return LogPartition(
            log_z,
            error.norm(dim=0),
            1 / (part**2 / self.ess).sum(0),
            "estimate",
            log_weights,
            tail=self.tail.masked_fill(part < _COUNTS, 0.0).amax(0),
        )


def masses(
    regions: Regions,
    walks: Sequence[Walk],
    weighed: Sequence[Weighed],
    of_modes: Sequence[Weighed] = (),
) -> Masses:
    """Estimate every region.

    Args:
        regions: of the batch.
        walks: the paths from the density's own base.
        weighed: their chains.
        of_modes: chains that begin in each mode, if there are any.
    """
    # Regions stand behind the chains, as if they were densities of the batch.
    groups = [(one.log_weights + regions.log_shares(one.frames)).transpose(0, 1) for one in weighed]
    shares = [walk.share for walk in walks]
    found = LogPartition.from_groups(groups, shares)
    parts = [getattr(found, name) for name in Masses._fields]
    if of_modes:
        near = torch.stack(
            [
                one.log_weights + regions.log_shares(one.frames)[number]
                for number, one in enumerate(of_modes, start=1)
            ],
            1,
        )
        elsewhere = [_unless_by_chance(group[:, 1:], near) for group in groups]
        weight = [1.0, *(_ELSEWHERE * share for share in shares)]
        own = LogPartition.from_groups([near, *elsewhere], weight)
        parts = [
            torch.cat([part[:1], getattr(own, name)])
            for part, name in zip(parts, Masses._fields, strict=True)
        ]
    return Masses(*parts)


def _unless_by_chance(group: Tensor, near: Tensor) -> Tensor:
    """Log-weights of chains from elsewhere, put out of the reckoning where few of them lie above
    those of a mode's own by no more than chance may put them: an unbiased estimate is `x` times too
    high with a probability of up to `1/x`."""
    few, own = LogPartition.from_log_weights(group), LogPartition.from_log_weights(near)
    by_chance = (few.ess < _FEW) & (few.log_z < own.log_z + _BY_CHANCE)
    return torch.where(by_chance, group - _AWAY, group)


class Verdict(NamedTuple):
    """What the states that were found say of an estimate.

    Attributes:
        stderr: its error, with what chance leaves out of so few chains.
        reason: where it is worth annealing from the modes: too few weights carry the estimate, or
            states were found that it leaves out.
        missed: where the states prove the estimate wrong, or its error too small.
    """

    stderr: Tensor
    reason: Tensor
    missed: Tensor


def judge(
    found: Found,
    estimate: LogPartition,
    chains: int,
    regions: Regions | None = None,
    estimated: Masses | None = None,
) -> Verdict:
    """Hold an estimate against the states of a search, in all and region by region.

    With a share `q` of `Z` found where no chain stands, `log Ẑ` falls short by `-log(1 - q)`. By
    chance `n` chains leave out of a share `q` what has the deviation `√(q (1 - q) / n)`.

    Region by region only where states are frames: one of the hidden units is of no one region.

    Args:
        found: the states.
        estimate: of the whole.
        chains: that could have visited a mode.
        regions: of the batch.
        estimated: the regions' masses.
    """
    shortage = found.bound - estimate.log_z
    if found.exactly and regions is not None and estimated is not None:
        within = (found.log_mass + regions.log_shares(found.states)).logsumexp(1)
        least = torch.maximum(within, estimated.log_z).logsumexp(0)
        shortage = torch.maximum(shortage, least - estimate.log_z)
    shortage = shortage.clamp(min=0.0)
    share = -torch.expm1(-shortage)
    stderr = (estimate.stderr**2 + share * (1 - share) / chains).sqrt()
    return Verdict(
        stderr,
        ~(shortage <= ERRORS_ALLOWED * estimate.stderr + _ALLOWED) | estimate.collapsed,
        ~(shortage <= ERRORS_ALLOWED * stderr + _ALLOWED),
    )
