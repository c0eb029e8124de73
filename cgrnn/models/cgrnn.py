"""The Chain Graphical Recurrent Neural Network, and the RNN-ssRBM, which lacks its feedback."""

from __future__ import annotations

from typing import Any

from cgrnn.layers import BinarySpikeSlabRBM, GaussianSpikeSlabRBM
from cgrnn.models.recurrent import RecurrentModel
from cgrnn.models.sequence import check_kind
from cgrnn.transition import Transition


class CGRNN(RecurrentModel):
    """Chain Graphical Recurrent Neural Network: a spike-and-slab RBM driven by a transition that
    the frame and the latents feed.

    Source: Liu, Xie & Wang, "Energy-Based Recurrent Model for Stochastic Modeling of Music".
    Departures: the latents are fed back as their expectation by default, which makes the
    likelihood exact but for `log Z`, and measured better (see the README); the paper draws them
    (`latents="sample"`), and no gradient passes through the draw of a spike. `u_0` is learned.
    Over continuous frames the density exists for any parameters (`GaussianSpikeSlabRBM`), where
    the paper's (`Φ = 0`, free couplings) in general does not.

    Args:
        visible_dim: V, units of a frame.
        hidden_dim: H, spike-and-slab units.
        recurrent_dim: R, size of `u`.
        mlp_dims: sizes of the ReLU layers between `v` and the recurrence.
        visible: kind of the frames, "binary" or "continuous".
        feedback: what drives the transition: "visible", "latent" or "full".
        latents: "mean" or "sample".
        cell: "gru", "lstm" or "tanh".
        dropout: probability of dropping features of `v` and of the context, in training.
        cd_steps: Gibbs sweeps of contrastive divergence.
        restarts: share of the chains that begin at noise; without them the model grows a mode that
            the data never visit (`samplers.contrastive_loss`). The paper has none.
        construction: of continuous densities, "by spike" or "spectral".

    Example:
        >>> model = CGRNN(visible_dim=6, hidden_dim=4, recurrent_dim=5)
        >>> model.generate(frames_to_make=3, batch=2).shape
        torch.Size([2, 3, 6])
    """

    name = "cgrnn"
    kinds = ("binary", "continuous")

    def __init__(
        self,
        visible_dim: int = 88,
        hidden_dim: int = 200,
        recurrent_dim: int = 300,
        mlp_dims: tuple[int, ...] = (),
        visible: str = "binary",
        feedback: str = "full",
        latents: str = "mean",
        cell: str = "gru",
        dropout: float = 0.2,
        cd_steps: int = 5,
        restarts: float = 0.1,
        construction: str = "by spike",
    ) -> None:
        check_kind(type(self), visible)
        super().__init__(
            self._layer(visible, (visible_dim, hidden_dim, recurrent_dim), construction),
            Transition(
                visible_dim,
                0 if feedback == "visible" else hidden_dim,
                recurrent_dim,
                tuple(mlp_dims),
                cell,
                feeds_visible=feedback != "latent",
                dropout=dropout,
            ),
            visible,
            feedback,
            latents,
            dropout,
            cd_steps,
            restarts,
        )

    @staticmethod
    def _layer(visible: str, sizes: tuple[int, int, int], construction: str) -> Any:
        if visible == "binary":
            return BinarySpikeSlabRBM(*sizes)
        return GaussianSpikeSlabRBM(*sizes, construction=construction)


class RNNSSRBM(CGRNN):
    """RNN-ssRBM: a spike-and-slab RBM whose biases follow an RNN over the frames.

    It is `CGRNN` with the frames alone fed to the transition, and named apart because the paper
    compares the two.

    Source: Liu, Xie & Wang, §4. Departures: those of `CGRNN`.

    Args: those of `CGRNN`.
    """

    name = "rnn-ssrbm"

    def __init__(
        self,
        visible_dim: int = 88,
        hidden_dim: int = 200,
        recurrent_dim: int = 300,
        feedback: str = "visible",
        **options: Any,
    ) -> None:
        super().__init__(visible_dim, hidden_dim, recurrent_dim, feedback=feedback, **options)
