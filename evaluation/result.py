"""What an estimator of a partition function returns: never a bare number."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Kind = Literal["exact", "estimate", "lower bound", "upper bound"]


@dataclass(frozen=True, eq=False)
class LogPartition:
    """`log Z` of a batch of densities, with its error and its side.

    Attributes:
        log_z: in nats, `(*B,)` float64.
        stderr: standard error of `log_z` by the delta method, `(*B,)`. It is itself too small when
            `ess` is a handful.
        ess: effective number of weights, `(Σw)²/Σw²`, between 1 and their number, `(*B,)`.
        kind: "exact"; "estimate"; or "lower bound" and "upper bound", which hold on average over
            the draws. The exponential of an AIS estimate is unbiased for `Z`, so that `log_z` is
            low on average, and a likelihood made with it flatters.
        log_weights: what was averaged, one row a chain or a sample, `(n, *B)`.
    """

    log_z: Tensor
    stderr: Tensor
    ess: Tensor
    kind: Kind
    log_weights: Tensor

    @classmethod
    def from_log_weights(cls, log_weights: Tensor, kind: Kind = "estimate") -> LogPartition:
        """Combine unbiased weights: `log Ẑ = log mean exp(log w)`.

        Example:
            >>> import torch
            >>> estimate = LogPartition.from_log_weights(torch.tensor([1.0, 3.0]).log())
            >>> estimate.log_z.exp(), estimate.ess  # mean 2; (1+3)²/(1+9)
            (tensor(2.), tensor(1.6000))
        """
        chains = log_weights.shape[0]
        total = log_weights.logsumexp(0)
        share = (log_weights - total).exp()
        ess = 1.0 / (share**2).sum(0)
        relative_variance = (chains / ess - 1.0).clamp(min=0.0)
        return cls(
            log_z=total - math.log(chains),
            stderr=(relative_variance / max(chains - 1, 1)).sqrt(),
            ess=ess,
            kind=kind,
            log_weights=log_weights,
        )
