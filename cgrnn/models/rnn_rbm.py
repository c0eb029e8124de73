"""The RNN-RBM."""

from __future__ import annotations

from typing import Any

from cgrnn.layers import BernoulliRBM, GaussianRBM
from cgrnn.models.cgrnn import CGRNN


class RNNRBM(CGRNN):
    """RNN-RBM: a Bernoulli or Gaussian RBM whose biases follow an RNN over the frames.

    Source: Boulanger-Lewandowski, Bengio & Vincent, ICML 2012. Departures: a GRU by default where
    the paper has a tanh RNN (`cell="tanh"`); contrastive divergence with restarts. Continuous
    frames, which the paper has not, get a Gaussian RBM whose precisions follow the RNN too.

    Args: those of `CGRNN`; the transition is fed by the frames alone unless `feedback` says more.
    """

    name = "rnn-rbm"

    def __init__(
        self,
        visible_dim: int = 88,
        hidden_dim: int = 200,
        recurrent_dim: int = 300,
        feedback: str = "visible",
        **options: Any,
    ) -> None:
        super().__init__(visible_dim, hidden_dim, recurrent_dim, feedback=feedback, **options)

    @staticmethod
    def _layer(visible: str, sizes: tuple[int, int, int], construction: str) -> Any:
        return (BernoulliRBM if visible == "binary" else GaussianRBM)(*sizes)
