"""Sequence models that are a frame density driven by a recurrent transition.

`p(v_1..N) = Π_n p(v_n | u_{n-1})`, with `u_n = RNN(v_n, h_n⊙s_n, u_{n-1})`. Models of this kind
differ in the density in the slot and in what the transition is fed; each is a file beside this one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cgrnn.layers import EnergyDensity
from cgrnn.layers.conditional import ConditionalRBM, LatentDrive
from cgrnn.transition import State, Transition
from samplers import contrastive_loss, draw

FEEDBACKS = ("visible", "latent", "full")
LATENTS = ("mean", "sample")
SWEEPS = 200


def check_kind(model: type[RecurrentModel], visible: str) -> None:
    """Refuse frames that a model is not for.

    Raises:
        ValueError: names the parameter and what it takes.
    """
    if visible not in model.kinds:
        known = " or ".join(map(repr, model.kinds))
        raise ValueError(f"visible: expected {known}, got {visible!r}; {model.name} has no other")


def mask_of(lengths: Tensor, frames: int) -> Tensor:
    """True where a frame belongs to its sequence, `(batch, frames)`."""
    return torch.arange(frames, device=lengths.device) < lengths[:, None]


@dataclass(frozen=True, eq=False)
class FrameLikelihood:
    """Log-likelihood in nats of every frame given the frames before it.

    Attributes:
        log_prob: `(frames,)` float64: those of all sequences end to end, without padding.
        kind: "exact", "estimate" or "lower bound".
    """

    log_prob: Tensor
    kind: str


class RecurrentModel(nn.Module):
    """A frame density driven by a recurrent transition.

    Args:
        layer: the frame density given the context `u_{n-1}`.
        transition: the recurrence.
        visible: kind of the frames, "binary", or "continuous" with about unit deviation.
        feedback: what drives the transition: "visible", "latent" or "full" (both).
        latents: how latents are fed back: "mean" as their expectation `E[h⊙s | v_n, u_{n-1}]`,
            "sample" as a draw.
        dropout: probability with which the density's context is dropped in training.
        cd_steps: k of contrastive divergence, for an energy density.
        restarts: share of its chains that begin at noise (`samplers.contrastive_loss`).

    Attributes:
        sweeps: Gibbs sweeps to draw a frame of an energy density, 200 unless set.

    Shapes:
        Frames are `(batch, frames, V)`, padded at the end; `lengths` `(batch,)` says where.
    """

    name: ClassVar[str]
    kinds: ClassVar[tuple[str, ...]]
    """Kinds of frames that the model is for."""
    sweeps: int = SWEEPS

    def __init__(
        self,
        layer: Any,
        transition: Transition,
        visible: str = "binary",
        feedback: str = "visible",
        latents: str = "mean",
        dropout: float = 0.0,
        cd_steps: int = 1,
        restarts: float = 0.0,
    ) -> None:
        super().__init__()
        for parameter, value, known in (
            ("feedback", feedback, FEEDBACKS),
            ("latents", latents, LATENTS),
        ):
            if value not in known:
                raise ValueError(f"{parameter}: expected one of {', '.join(known)}, got {value!r}")
        self.layer: Any = layer
        self.transition, self.visible = transition, visible
        self.feedback, self.latents = feedback, latents
        self.cd_steps, self.restarts = cd_steps, restarts
        self.dropout = nn.Dropout(dropout)

    @property
    def visible_dim(self) -> int:
        return int(self.layer.visible_dim)

    @property
    def has_latents(self) -> bool:
        return isinstance(self.layer, ConditionalRBM)

    @property
    def likelihood_kind(self) -> str:
        """What `log_likelihood` is, taking `log Z` for exact where one is needed."""
        if not self.has_latents:
            return "exact"
        return "lower bound" if self._samples_feedback else "estimate"

    @property
    def _samples_feedback(self) -> bool:
        return self.feedback != "visible" and self.latents == "sample"

    def set_marginals(self, mean: Tensor) -> None:
        """Start the visible biases of binary frames at the log-odds of their mean, `(V,)`."""
        with torch.no_grad():
            self.layer.visible_bias.copy_(torch.logit(mean))

    def contexts(
        self, frames: Tensor, generator: torch.Generator | None = None, state: State | None = None
    ) -> tuple[Tensor, State]:
        """Contexts `u_0 … u_{N-1}` of the frames, `(batch, frames, R)`, and the last state."""
        return self.transition(frames, self._drive(frames, generator), state)

    def density(self, frames: Tensor, generator: torch.Generator | None = None) -> Any:
        """`p(v_n | u_{n-1})` for every frame: a density with batch shape `(batch, frames)`."""
        return self.layer(self.contexts(frames, generator)[0])

    def loss(
        self,
        frames: Tensor,
        lengths: Tensor,
        generator: torch.Generator | None = None,
        chains: Tensor | None = None,
    ) -> Tensor:
        """Training loss, mean over the frames: `-log p`, or its contrastive divergence.

        Args:
            frames: `(batch, frames, V)`.
            lengths: `(batch,)`.
            generator: source of the draws.
            chains: for persistent CD, where the chain of each frame stands, `(batch, frames, V)`;
                overwritten.
        """
        contexts = self.dropout(self.contexts(frames, generator)[0])
        mask = mask_of(lengths, frames.shape[1])
        density, v = self.layer(contexts[mask]), frames[mask]
        if not isinstance(density, EnergyDensity):
            return -density.log_prob(v).mean()
        standing = None if chains is None else chains[mask]
        loss = contrastive_loss(
            density, v, self.cd_steps, generator, standing, self.restarts
        ).mean()
        if chains is not None and standing is not None:
            chains[mask] = standing
        return loss

    @torch.no_grad()
    def log_likelihood(
        self,
        frames: Tensor,
        lengths: Tensor,
        log_partition: Callable[[EnergyDensity], Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> FrameLikelihood:
        """`log p(v_n | u_{n-1})` of every frame, in nats.

        With expected latents, or visible feedback, the sum over frames is the sequence's
        log-likelihood. With sampled latents its expectation is a lower bound (the paper's Eq. 2).

        Args:
            frames: `(batch, frames, V)`.
            lengths: `(batch,)`.
            log_partition: gives `log Z`, `(*B,)`, of an energy density: `evaluation.exact` or
                `lambda density: evaluation.ais.log_partition(density).log_z`.
            generator: source of the draws of sampled latents.

        Raises:
            ValueError: when the density needs a partition function and none is given.
        """
        mask = mask_of(lengths, frames.shape[1])
        density = self.layer(self.contexts(frames, generator)[0][mask])
        if not isinstance(density, EnergyDensity):
            return FrameLikelihood(density.log_prob(frames[mask]).double(), "exact")
        if log_partition is None:
            raise ValueError(
                "log_partition: this model's frames have a partition function; "
                "pass evaluation.exact.log_partition or one from evaluation.ais"
            )
        log_prob = -density.free_energy(frames[mask]).double() - log_partition(density)
        return FrameLikelihood(log_prob, self.likelihood_kind)

    @torch.no_grad()
    def predict(
        self, frames: Tensor, generator: torch.Generator | None = None, samples: int = 1
    ) -> Tensor:
        """Draw every frame given the frames before it alone, `(samples, batch, frames, V)`.

        The chains start from independent units: they never see the frame they predict.
        """
        return self._sample(self.density(frames, generator), (samples,), generator)

    @torch.no_grad()
    def reconstruct(
        self, frames: Tensor, generator: torch.Generator | None = None, samples: int = 1
    ) -> Tensor:
        """Draw every frame after one Gibbs sweep that starts at it, `(samples, batch, frames, V)`.

        This is what the CGRNN paper's tables call prediction. It has seen the frame: it measures
        how well the latents keep it. A density without latents has no such sweep, and its
        reconstruction is its prediction.
        """
        density = self.density(frames, generator)
        if not isinstance(density, EnergyDensity):
            return self._sample(density, (samples,), generator)
        return density.gibbs_step(frames.expand(samples, *frames.shape), generator)

    @torch.no_grad()
    def features(self, frames: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Hidden activations: `E[h⊙s | v_n, u_{n-1}]` (`E[h | …]` for an RBM), or `u_n` without
        latents, `(batch, frames, H or R)`."""
        contexts, state = self.contexts(frames, generator)
        if self.has_latents:
            features: Tensor = self.layer(contexts).activation(frames)
            return features
        return torch.cat([contexts[:, 1:], self.transition.context(state).unsqueeze(1)], dim=1)

    @torch.no_grad()
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
        if frames_to_make < 1 or batch < 1:
            raise ValueError(
                f"frames_to_make and batch must be at least 1, got {frames_to_make} and {batch}"
            )
        state, made = self.transition.initial_state(batch), []
        if prime is not None:
            if prime.shape[-1] != self.visible_dim:
                raise ValueError(
                    f"prime: frames of {prime.shape[-1]} units, but the model has "
                    f"{self.visible_dim}"
                )
            made.append(prime.expand(batch, -1, -1))
            _, state = self.contexts(made[0], generator, state)
        for _ in range(frames_to_make):
            density = self.layer(self.transition.context(state))
            v = self._sample(density, (), generator).unsqueeze(1)
            made.append(v)
            _, state = self.contexts(v, generator, state)
        return torch.cat(made, dim=1)

    def _drive(self, frames: Tensor, generator: torch.Generator | None) -> LatentDrive | None:
        if self.feedback == "visible":
            return None
        drive: LatentDrive = self.layer.drive(frames, self._samples_feedback, generator)
        return drive

    def _sample(
        self, density: Any, shape: tuple[int, ...], generator: torch.Generator | None
    ) -> Tensor:
        if isinstance(density, EnergyDensity):
            return draw(density, shape, self.sweeps, generator)
        draws: Tensor = density.sample(shape, generator)
        return draws
