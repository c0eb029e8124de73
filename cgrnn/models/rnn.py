"""Recurrent networks whose frame density is normalised: their likelihood is exact."""

from __future__ import annotations

from typing import Any, ClassVar

from cgrnn.layers import NADE, RNADE, GaussianMixture, IndependentBernoulli, IndependentGaussian
from cgrnn.models.recurrent import RecurrentModel
from cgrnn.models.sequence import check_kind
from cgrnn.transition import Transition


class RNN(RecurrentModel):
    """Plain RNN: units of a frame independent given the past, Bernoulli or Gaussian.

    Source: RNN-I and RNN-II of Liu, Xie & Wang, one and two layers of 500. Departures: Gaussian
    units have deviations of their own, which follow the past; `u_0` is learned.

    Args:
        visible_dim: V, units of a frame.
        recurrent_dim: R, size of `u`.
        mlp_dims: sizes of the ReLU layers between `v` and the recurrence.
        visible: kind of the frames, "binary" or "continuous".
        cell: "gru", "lstm" or "tanh".
        layers: recurrent layers, one upon the other.
        dropout: probability of dropping features of `v`, what passes from layer to layer, and the
            context, in training.

    Example:
        >>> import torch
        >>> model = RNN(visible_dim=6, recurrent_dim=5)
        >>> likelihood = model.log_likelihood(torch.zeros(1, 4, 6), torch.tensor([4]))
        >>> likelihood.kind, likelihood.log_prob.shape
        ('exact', torch.Size([4]))
    """

    name = "rnn"
    kinds: ClassVar[tuple[str, ...]] = ("binary", "continuous")

    def __init__(
        self,
        visible_dim: int = 88,
        recurrent_dim: int = 300,
        mlp_dims: tuple[int, ...] = (),
        visible: str = "binary",
        cell: str = "gru",
        layers: int = 1,
        dropout: float = 0.2,
        **density: Any,
    ) -> None:
        check_kind(type(self), visible)
        super().__init__(
            self._layer(visible, visible_dim, recurrent_dim, **density),
            Transition(
                visible_dim, 0, recurrent_dim, tuple(mlp_dims), cell, layers=layers, dropout=dropout
            ),
            visible,
            dropout=dropout,
        )

    @staticmethod
    def _layer(visible: str, visible_dim: int, context_dim: int, **density: int) -> Any:
        head = IndependentBernoulli if visible == "binary" else IndependentGaussian
        return head(visible_dim, context_dim)


class RNNGMM(RNN):
    """RNN-GMM: a mixture of diagonal Gaussians over a continuous frame, given the past.

    Source: the mixture density network (Bishop 1994) on a recurrent network, as Boulanger-
    Lewandowski, Bengio & Vincent and Liu, Xie & Wang compare with. Departures: those of
    `cgrnn.layers.GaussianMixture`.

    Args: those of `RNN`, and
        components: Gaussians in the mixture.
    """

    name = "rnn-gmm"
    kinds = ("continuous",)

    def __init__(
        self,
        visible_dim: int = 88,
        recurrent_dim: int = 300,
        components: int = 10,
        visible: str = "continuous",
        **options: Any,
    ) -> None:
        super().__init__(
            visible_dim, recurrent_dim, visible=visible, components=components, **options
        )

    @staticmethod
    def _layer(visible: str, visible_dim: int, context_dim: int, **density: int) -> Any:
        return GaussianMixture(visible_dim, density["components"], context_dim)


class RNNNADE(RNN):
    """RNN-NADE: the units of a binary frame one after the other, each given the past and those
    before it.

    Source: Boulanger-Lewandowski, Bengio & Vincent, ICML 2012. Departures: a GRU by default where
    the paper has a tanh RNN trained with Hessian-free optimisation.

    Args: those of `RNN`, and
        hidden_dim: H, hidden units of the NADE.
    """

    name = "rnn-nade"
    kinds = ("binary",)

    def __init__(
        self,
        visible_dim: int = 88,
        recurrent_dim: int = 300,
        hidden_dim: int = 200,
        visible: str = "binary",
        **options: Any,
    ) -> None:
        super().__init__(
            visible_dim, recurrent_dim, visible=visible, hidden_dim=hidden_dim, **options
        )

    @staticmethod
    def _layer(visible: str, visible_dim: int, context_dim: int, **density: int) -> Any:
        return NADE(visible_dim, density["hidden_dim"], context_dim)


class RNNRNADE(RNN):
    """RNN-RNADE: the units of a continuous frame one after the other, each a mixture of Gaussians
    given the past and those before it.

    Source: the RNADE of Uria, Murray & Larochelle, NIPS 2013, driven as the NADE of `RNNNADE`.
    Departures: those of `cgrnn.layers.RNADE`.

    Args: those of `RNN`, and
        hidden_dim: H, hidden units of the RNADE.
        components: Gaussians for each unit.
    """

    name = "rnn-rnade"
    kinds = ("continuous",)

    def __init__(
        self,
        visible_dim: int = 88,
        recurrent_dim: int = 300,
        hidden_dim: int = 50,
        components: int = 5,
        visible: str = "continuous",
        **options: Any,
    ) -> None:
        super().__init__(
            visible_dim,
            recurrent_dim,
            visible=visible,
            hidden_dim=hidden_dim,
            components=components,
            **options,
        )

    @staticmethod
    def _layer(visible: str, visible_dim: int, context_dim: int, **density: int) -> Any:
        return RNADE(visible_dim, density["hidden_dim"], density["components"], context_dim)
