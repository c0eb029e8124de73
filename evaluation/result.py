"""What an estimator of a partition function returns: never a bare number."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class LogPartition:
    """An importance-sampling estimate of `log Z` with its error.

    Attributes:
        log_z: estimate, `(*B,)` float64, in nats. `exp(log_z)` is unbiased for `Z`, so that `log_z`
            is low on average, and a likelihood made with it flatters.
        stderr: standard error of `log_z` by the delta method, `(*B,)`. It is itself too small when
            `ess` is a handful of chains.
        ess: effective number of chains, `(Σw)²/Σw²`, between 1 and `chains`, `(*B,)`.
        log_weights: `log w` of every chain, the base's `log Z` included, `(chains, *B)`.
    """

    log_z: Tensor
    stderr: Tensor
    ess: Tensor
    log_weights: Tensor

    @classmethod
    def from_log_weights(cls, log_weights: Tensor) -> LogPartition:
        """Combine chains: `log Ẑ = log mean exp(log w)`.

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
            log_weights=log_weights,
        )
