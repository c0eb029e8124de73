"""What an estimator of a partition function returns: never a bare number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from evaluation import tails

Kind = Literal["exact", "estimate", "lower bound", "upper bound"]

ERRORS_ALLOWED = 3.0
ROUNDING = 1e-3  # nats that free energies in single precision may be off


@dataclass(frozen=True, eq=False)
class LogPartition:
    """`log Z` of a batch of densities, with its error and its side.

    Attributes:
        log_z: in nats, `(*B,)` float64.
        stderr: standard error of `log_z` by the delta method, `(*B,)`. It is itself too small when
            `ess` is a handful, and infinite for one weight.
        ess: effective number of weights, `(Σw)²/Σw²`, between 1 and their number, `(*B,)`.
        kind: "exact"; "estimate"; or "lower bound" and "upper bound", which hold on average over
            the draws. The exponential of an AIS estimate is unbiased for `Z`, so that `log_z` is
            low on average, and a likelihood made with it flatters.
        log_weights: what was averaged, one row a chain or a sample, `(n, *B)`.
        bound: what proves the estimate from below, `(*B,)`: `log Z` is at least that, whatever was
            estimated (`evaluation.modes`); None where nothing was looked for. An estimate below it
            is not given as it is: `log_z` is then the bound itself and its error infinite.
        missed: where states were found that the estimate does not account for, `(*B,)`.
        tail: shape of the Pareto law of the largest weights, `(*B,)` (`evaluation.tails`): the
            larger of those of the groups that count. From 1 on a mean of weights says nothing.
    """

    log_z: Tensor
    stderr: Tensor
    ess: Tensor
    kind: Kind
    log_weights: Tensor
    bound: Tensor | None = None
    missed: Tensor | None = None
    tail: Tensor | None = None

    @property
    def collapsed(self) -> Tensor:
        """Where neither the estimate nor its error is to be trusted, `(*B,)`: too few weights carry
        it, their tail is too heavy, or it has `missed` something. Too few are fewer than a
        twentieth of them and than ten, or a quarter of forty."""
        count = len(self.log_weights)
        few = self.ess < max(0.05 * count, min(10.0, 0.25 * count))
        if self.tail is not None:
            few = few | (self.tail > tails.HEAVY)
        return few if self.missed is None else few | self.missed

    def proven(self, bound: Tensor, missed: Tensor | None = None) -> LogPartition:
        """The same beside a proven lower bound, which it gives way to where it lies below.

        Example:
            >>> estimate = LogPartition.from_log_weights(torch.tensor([[0.0, 0.0], [0.0, 0.0]]))
            >>> proven = estimate.proven(torch.tensor([-1.0, 2.0]))
            >>> proven.log_z, proven.stderr, proven.collapsed
            (tensor([0., 2.]), tensor([0., inf]), tensor([False,  True]))
        """
        below = ~(self.log_z >= bound - ERRORS_ALLOWED * self.stderr - ROUNDING)
        missed = below if missed is None else below | missed
        return replace(
            self,
            log_z=torch.where(below, bound, self.log_z),
            stderr=self.stderr.masked_fill(missed, math.inf),
            bound=bound,
            missed=missed,
        )

    def at(self, rows: Tensor, other: LogPartition) -> LogPartition:
        """Another estimate of some rows of a flat batch in place of these."""
        return replace(
            self,
            log_z=self.log_z.index_copy(0, rows, other.log_z),
            stderr=self.stderr.index_copy(0, rows, other.stderr),
            ess=self.ess.index_copy(0, rows, other.ess),
            tail=None
            if self.tail is None or other.tail is None
            else self.tail.index_copy(0, rows, other.tail),
        )

    @classmethod
    def joined(cls, parts: Sequence[LogPartition], shape: torch.Size) -> LogPartition:
        """The estimates of parts of a flat batch as one, in the batch shape given."""

        def whole(of_parts: Sequence[Tensor | None]) -> Tensor | None:
            known = [part for part in of_parts if part is not None]
            return torch.cat(known, -1).view(shape) if known else None

        log_weights = torch.cat([part.log_weights for part in parts], 1)
        return cls(
            torch.cat([part.log_z for part in parts]).view(shape),
            torch.cat([part.stderr for part in parts]).view(shape),
            torch.cat([part.ess for part in parts]).view(shape),
            parts[0].kind,
            log_weights.view(-1, *shape),
            whole([part.bound for part in parts]),
            whole([part.missed for part in parts]),
            whole([part.tail for part in parts]),
        )

    @classmethod
    def from_log_weights(cls, log_weights: Tensor, kind: Kind = "estimate") -> LogPartition:
        """Combine unbiased weights: `log Ẑ = log mean exp(log w)`.

        Example:
            >>> estimate = LogPartition.from_log_weights(torch.tensor([1.0, 3.0]).log())
            >>> estimate.log_z.exp(), estimate.ess  # mean 2; (1+3)²/(1+9)
            (tensor(2.), tensor(1.6000))
        """
        return cls.from_groups([log_weights], [1.0], kind)

    @classmethod
    def from_groups(
        cls, groups: Sequence[Tensor], shares: Sequence[float], kind: Kind = "estimate"
    ) -> LogPartition:
        """Combine groups of unbiased weights that were drawn in different ways.

        Formula: `Ẑ = Σ_g c_g Ẑ_g` with the shares `c_g`, unbiased for any shares that do not depend
            on the weights. But where one group lies below the highest by more than three standard
            errors of their difference, it is left out. An unbiased estimate of a positive number
            is seldom far too high (more than `x` times with probability below `1/x`) and often far
            too low: the low group has missed a mode. (For this, `n` weights are not trusted to give
            an error below `1/√n`: that of a few may look small by chance.)

        Args:
            groups: log-weights, `(n_g, *B)` each.
            shares: `c_g`, summing to 1.
            kind: side of the result.

        Example:
            >>> found, missed = torch.tensor([5.0, 5.1]), torch.tensor([0.0, 0.1])
            >>> LogPartition.from_groups([found, missed], [0.5, 0.5]).log_z
            tensor(5.0512)
        """
        if min(len(group) for group in groups) < 2:  # too few to be compared
            groups, shares = [torch.cat(list(groups))], [1.0]
        log_z = torch.stack([group.logsumexp(0) - math.log(len(group)) for group in groups])
        ess = torch.stack([_effective(group) for group in groups])
        counts = log_z.new_tensor([len(group) for group in groups])
        counts = counts.view(-1, *[1] * (log_z.dim() - 1))
        variance = (counts / ess - 1.0).clamp(min=0.0) / (counts - 1)
        variance = variance.nan_to_num(nan=math.inf)  # a single weight has no error
        best = log_z.argmax(0, keepdim=True)
        doubt = torch.maximum(variance, 1 / counts)
        error = (doubt + doubt.gather(0, best)).sqrt()
        missed = log_z.amax(0) - log_z > ERRORS_ALLOWED * error
        share = log_z.new_tensor(shares).view_as(counts).masked_fill(missed, 0.0)
        share = share / share.sum(0)
        part = log_z + share.log()
        total = part.logsumexp(0)
        part = (part - total).exp()
        return cls(
            log_z=total,
            stderr=(part**2 * variance).sum(0).sqrt(),
            ess=1.0 / (part**2 / ess).sum(0),
            kind=kind,
            log_weights=torch.cat(list(groups)),
            tail=torch.stack([tails.tail_index(group) for group in groups])
            .masked_fill(missed, 0.0)
            .amax(0),
        )


def _effective(log_weights: Tensor) -> Tensor:
    """`(Σw)²/Σw²` over the first dimension."""
    share = (log_weights - log_weights.logsumexp(0)).exp()
    return 1.0 / (share**2).sum(0)
