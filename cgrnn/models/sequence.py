"""What every sequence model offers to training, evaluation and generation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from samplers.particles import Walk

SWEEPS = 200

Estimate = Callable[..., Any]
"""Gives the partition functions of a batch of energy densities, as an object with `log_z` `(B,)`
and `log_weights` `(chains, B)`; called with the density and a `generator`."""


def mask_of(lengths: Tensor, frames: int) -> Tensor:
    """True where a frame belongs to its sequence, `(batch, frames)`."""
    return torch.arange(frames, device=lengths.device) < lengths[:, None]


@dataclass(frozen=True, eq=False)
class Scores:
    """Log-likelihoods of frames in nats, each given the frames before it.

    Attributes:
        log_prob: `(n,)` float64; their sum over a sequence is its log-likelihood, or estimates or
            bounds it.
        spread: of the log-weights that partition functions were estimated with, `(n,)`; None where
            there are none.
        missed: where a state was found that proves the estimate wrong: `log_prob` is then an upper
            bound, `(n,)`; None where nothing was looked for.
    """

    log_prob: Tensor
    spread: Tensor | None = None
    missed: Tensor | None = None


def check_kind(model: type[SequenceModel], visible: str) -> None:
    """Refuse frames that a model is not for.

    Raises:
        ValueError: names the parameter and what it takes.
    """
    if visible not in model.kinds:
        known = " or ".join(map(repr, model.kinds))
        raise ValueError(f"visible: expected {known}, got {visible!r}; {model.name} has no other")


class SequenceModel(nn.Module, ABC):
    """A distribution over sequences of frames.

    Frames are `(batch, frames, V)`, padded at the end; `lengths` `(batch,)` says where. Binary
    frames hold zeros and ones, continuous frames have about zero mean and unit deviation.

    Attributes:
        visible: kind of the frames, "binary" or "continuous".
        visible_dim: V.
        layer: the frame density given a context.
        sweeps: Gibbs sweeps to draw a frame of an energy density, 200 unless set.
        temperature: at which `generate` draws frames; 1, the model's own, unless set. Latents with
            a prior of their own are drawn from it as it is.
        given_frames: how many first frames of each sequence are not scored, nor trained on: they
            are what the rest is told of (the data set says).
        kl_weight: weight of the KL divergence in the loss, which training raises to 1; None where
            there is none.
        monitored: what the last loss was made of, by name, for the log of training.
    """

    name: ClassVar[str]
    kinds: ClassVar[tuple[str, ...]]
    """Kinds of frames that the model is for."""
    layer: Any
    sweeps: int = SWEEPS
    temperature: float = 1.0
    given_frames: int = 0
    kl_weight: float | None = None

    def __init__(self, visible_dim: int, visible: str) -> None:
        super().__init__()
        check_kind(type(self), visible)
        self.visible_dim, self.visible = visible_dim, visible
        self.monitored: dict[str, Tensor] = {}

    @property
    def has_chains(self) -> bool:
        """Whether it is trained with Gibbs chains, which persistent CD can keep."""
        return False

    @property
    @abstractmethod
    def likelihood_kind(self) -> str:
        """What its likelihood is: "exact", "estimate" (by partition functions) or "lower bound"."""

    def set_marginals(self, mean: Tensor) -> None:
        """Start the biases of binary frames at the log-odds of their mean, `(V,)`."""
        with torch.no_grad():
            self.layer.visible_bias.copy_(torch.logit(mean))

    def scored(self, lengths: Tensor, frames: int) -> Tensor:
        """True where a frame is of its sequence and not given, `(batch, frames)`."""
        later = torch.arange(frames, device=lengths.device) >= self.given_frames
        return mask_of(lengths, frames) & later

    @abstractmethod
    def loss(
        self,
        frames: Tensor,
        lengths: Tensor,
        generator: torch.Generator | None = None,
        chains: Tensor | None = None,
    ) -> Tensor:
        """Training loss, mean over the frames.

        Args:
            frames: `(batch, frames, V)`.
            lengths: `(batch,)`.
            generator: source of the draws.
            chains: for persistent CD, where the chain of each frame stands, `(batch, frames, V)`;
                overwritten.
        """

    @abstractmethod
    def scores(
        self,
        frames: Tensor,
        lengths: Tensor,
        chosen: Tensor,
        estimate: Estimate,
        generator: torch.Generator | None = None,
    ) -> Scores:
        """A cheap log-likelihood of some frames, to watch training by.

        Args:
            frames: `(batch, frames, V)`.
            lengths: `(batch,)`.
            chosen: which frames to score, `(batch, frames)`; none in the padding.
            estimate: for an energy density.
            generator: source of the draws.
        """

    @abstractmethod
    def walk(
        self,
        frames: Tensor,
        lengths: Tensor,
        paths: int,
        generator: torch.Generator | None = None,
        log_partition: Callable[[Any], Tensor] | None = None,
    ) -> Walk:
        """Paths of latents through the frames, with the weights that give the likelihood.

        Args:
            frames: `(batch, frames, V)`.
            lengths: `(batch,)`.
            paths: how many for each sequence.
            generator: source of the draws.
            log_partition: gives `log Z`, `(*B,)`, of an energy density.
        """

    @abstractmethod
    def predict(
        self, frames: Tensor, generator: torch.Generator | None = None, samples: int = 1
    ) -> Tensor:
        """Draw every frame given the frames before it alone, `(samples, batch, frames, V)`."""

    @abstractmethod
    def reconstruct(
        self,
        frames: Tensor,
        generator: torch.Generator | None = None,
        samples: int = 1,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Draw every frame given latents that have seen it, `(samples, batch, frames, V)`.

        This is what the CGRNN paper's tables call prediction. It measures how well the latents
        keep a frame. Without latents of the frame it is the prediction. `lengths` tells the padding
        from frames, for models whose latents see the frames to come.
        """

    @abstractmethod
    def features(
        self,
        frames: Tensor,
        generator: torch.Generator | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """What the model makes of every frame, `(batch, frames, features)`."""

    @abstractmethod
    def generate(
        self,
        frames_to_make: int,
        batch: int = 1,
        prime: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw sequences frame by frame, `(batch, prime frames + frames_to_make, V)`.

        Args:
            frames_to_make: frames to add.
            batch: sequences to draw.
            prime: frames to go on from, `(frames, V)` or `(batch, frames, V)`; None begins anew.
            generator: source of the draws.
        """

    def _primed(self, frames_to_make: int, batch: int, prime: Tensor | None) -> Tensor:
        """The frames that a generation begins with, `(batch, prime frames, V)`, checked."""
        if frames_to_make < 1 or batch < 1:
            raise ValueError(
                f"frames_to_make and batch must be at least 1, got {frames_to_make} and {batch}"
            )
        if prime is None:
            like = next(self.parameters())
            return like.new_zeros(batch, 0, self.visible_dim)
        if prime.shape[-1] != self.visible_dim:
            raise ValueError(
                f"prime: frames of {prime.shape[-1]} units, but the model has {self.visible_dim}"
            )
        return prime.expand(batch, -1, -1)
