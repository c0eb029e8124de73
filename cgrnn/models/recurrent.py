"""Sequence models that are a frame density driven by a recurrent transition.

`p(v_1..N) = Π_n p(v_n | u_{n-1})`, with `u_n = RNN(v_n, h_n⊙s_n, u_{n-1})`. Models of this kind
differ in the density in the slot and in what the transition is fed; each is a file beside this one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cgrnn.layers import EnergyDensity, feedback
from cgrnn.layers.conditional import ConditionalRBM, LatentDrive
from cgrnn.models.pieces import mean_in_pieces
from cgrnn.models.sequence import Estimate, Scores, SequenceModel
from cgrnn.transition import State, Transition
from samplers import contrastive_loss, draw

FEEDBACKS = ("visible", "latent", "full")
LATENTS = ("mean", "sample")
ASTRAY_FRAMES = 16  # densities that are looked at


@dataclass(frozen=True, eq=False)
class FrameLikelihood:
    """Log-likelihood in nats of every frame given the frames before it.

    Attributes:
        log_prob: `(frames,)` float64: those of all sequences end to end, without padding.
        kind: "exact", "estimate" or "lower bound".
    """

    log_prob: Tensor
    kind: str


class RecurrentModel(SequenceModel):
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
    """

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
        super().__init__(layer.visible_dim, visible)
        for parameter, value, known in (
            ("feedback", feedback, FEEDBACKS),
            ("latents", latents, LATENTS),
        ):
            if value not in known:
                raise ValueError(f"{parameter}: expected one of {', '.join(known)}, got {value!r}")
        self.layer: Any = layer
        self.transition = transition
        self.feedback, self.latents = feedback, latents
        self.cd_steps, self.restarts = cd_steps, restarts
        self.dropout = nn.Dropout(dropout)

    @property
    def has_latents(self) -> bool:
        return isinstance(self.layer, ConditionalRBM)

    @property
    def has_chains(self) -> bool:
        return self.has_latents

    @property
    def likelihood_kind(self) -> str:
        """What `log_likelihood` is, taking `log Z` for exact where one is needed."""
        if not self.has_latents:
            return "exact"
        return "lower bound" if self._samples_feedback else "estimate"

    @property
    def _samples_feedback(self) -> bool:
        return self.feedback != "visible" and self.latents == "sample"

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
        """`-log p`, or its contrastive divergence."""
        contexts = self.contexts(frames, generator)[0]
        # By time, as contexts lie in memory.
        frame, sequence = self.scored(lengths, frames.shape[1]).T.nonzero(as_tuple=True)

        def loss(context: Tensor, places: tuple[Tensor, ...]) -> Tensor:
            v = frames[places]
            density = self.layer(self.dropout(context))
            if not isinstance(density, EnergyDensity):
                return -density.log_prob(v)
            standing = None if chains is None else chains[places]
            divergence = contrastive_loss(
                density, v, self.cd_steps, generator, standing, self.restarts
            )
            if chains is not None and standing is not None:
                chains[places] = standing
            return divergence

        return mean_in_pieces(loss, contexts, (sequence, frame), self.layer.parameters())

    @torch.no_grad()
    def scores(
        self,
        frames: Tensor,
        lengths: Tensor,
        chosen: Tensor,
        estimate: Estimate,
        generator: torch.Generator | None = None,
    ) -> Scores:
        density = self.layer(self.contexts(frames, generator)[0][chosen])
        if not isinstance(density, EnergyDensity):
            return Scores(density.log_prob(frames[chosen]).double())
        found = estimate(density, generator=generator)
        log_prob = -density.free_energy(frames[chosen]).double() - found.log_z
        return Scores(log_prob, found.log_weights.std(0), getattr(found, "missed", None))

    @torch.no_grad()
    def astray(
        self,
        frames: Tensor,
        lengths: Tensor,
        draw: Callable[..., Tensor],
        generator: torch.Generator | None = None,
    ) -> float:
        """Share of the model's mass on frames that are larger than any of the data.

        A frame's size is the sum of its squares, the number of notes where it is binary; larger is
        half as large again. A mode that chains from the data never visit shows itself here.

        Args:
            frames, lengths: the data.
            draw: gives frames `(n, *B, V)` of a density that are spread over its modes as the mass
                is, such as `evaluation.ais.draw`; called with a `generator`.
            generator: source of the draws.
        """
        inside = self.scored(lengths, frames.shape[1])
        size = frames[inside].square().sum(-1)
        chosen = torch.linspace(0, len(size) - 1, min(len(size), ASTRAY_FRAMES)).long()
        context = self.contexts(frames, generator)[0][inside][chosen.to(frames.device)]
        drawn = draw(self.layer(context), generator=generator).square().sum(-1)
        return float((drawn > 1.5 * size.max()).double().mean())

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
        mask = self.scored(lengths, frames.shape[1])
        density = self.layer(self.contexts(frames, generator)[0][mask])
        log_prob = self.frame_log_prob(density, frames[mask], log_partition)
        return FrameLikelihood(log_prob, self.likelihood_kind)

    @staticmethod
    def frame_log_prob(
        density: Any, v: Tensor, log_partition: Callable[[EnergyDensity], Tensor] | None
    ) -> Tensor:
        """`log p(v)` in nats, `(*B,)` float64.

        Raises:
            ValueError: when the density needs a partition function and none is given.
        """
        if not isinstance(density, EnergyDensity):
            log_prob: Tensor = density.log_prob(v)
            return log_prob.double()
        if log_partition is None:
            raise ValueError(
                "log_partition: this model's frames have a partition function; "
                "pass evaluation.exact.log_partition or one from evaluation.ais"
            )
        return -density.free_energy(v).double() - log_partition(density)

    def walk(
        self,
        frames: Tensor,
        lengths: Tensor,
        paths: int,
        generator: torch.Generator | None = None,
        log_partition: Callable[[EnergyDensity], Tensor] | None = None,
    ) -> _FilterWalk:
        """Paths of the latents that are fed back, drawn from `p(h_n, s_n | v_n, u_{n-1})`.

        Each weight is `p(v_n | u_{n-1})`. With feedback that is not drawn all paths are one.
        """
        return _FilterWalk(self, frames, paths, generator, log_partition)

    @torch.no_grad()
    def predict(
        self, frames: Tensor, generator: torch.Generator | None = None, samples: int = 1
    ) -> Tensor:
        """Draw every frame given the frames before it alone, `(samples, batch, frames, V)`.

        Chains start from independent units: they never see the frame they predict.
        """
        return self._sample(self.density(frames, generator), (samples,), generator)

    @torch.no_grad()
    def reconstruct(
        self,
        frames: Tensor,
        generator: torch.Generator | None = None,
        samples: int = 1,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Draw every frame after one Gibbs sweep that starts at it, `(samples, batch, frames, V)`.

        This is what the CGRNN paper's tables call prediction. A density without latents has no
        such sweep, and its reconstruction is its prediction.
        """
        density = self.density(frames, generator)
        if not isinstance(density, EnergyDensity):
            return self._sample(density, (samples,), generator)
        return density.gibbs_step(frames.expand(samples, *frames.shape), generator)

    @torch.no_grad()
    def features(
        self,
        frames: Tensor,
        generator: torch.Generator | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
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
        frames = self._primed(frames_to_make, batch, prime)
        state, made = self.transition.initial_state(batch), [frames]
        if frames.shape[1]:
            _, state = self.contexts(frames, generator, state)
        for _ in range(frames_to_make):
            density = self.layer(self.transition.context(state)).at_temperature(self.temperature)
            v = self._sample(density, (), generator).unsqueeze(1)
            made.append(v)
            _, state = self.contexts(v, generator, state)
        return torch.cat(made, dim=1)

    def _drive(self, frames: Tensor, generator: torch.Generator | None) -> LatentDrive | None:
        if self.feedback == "visible":
            return None
        feedback.check(self.layer)  # here, too: a layer may have a drive of its own
        by_time = frames.transpose(0, 1).contiguous()
        drive: LatentDrive = self.layer.drive(by_time, self._samples_feedback, generator)
        return drive

    def _sample(
        self, density: Any, shape: tuple[int, ...], generator: torch.Generator | None
    ) -> Tensor:
        if isinstance(density, EnergyDensity):
            return draw(density, shape, self.sweeps, generator)
        draws: Tensor = density.sample(shape, generator)
        return draws


class _FilterWalk:
    """`samplers.particles.Walk` through a recurrent model: its state is `u`."""

    def __init__(
        self,
        model: RecurrentModel,
        frames: Tensor,
        paths: int,
        generator: torch.Generator | None,
        log_partition: Callable[[EnergyDensity], Tensor] | None,
    ) -> None:
        self.model, self.frames, self.paths, self.number = model, frames, paths, 0
        self.generator, self.log_partition = generator, log_partition
        self.state = model.transition.initial_state(paths * len(frames))

    def step(self) -> Tensor:
        v = self.frames[:, self.number].repeat(self.paths, 1)
        context = self.model.transition.context(self.state)
        log_prob = v.new_zeros(len(v), dtype=torch.float64)
        if self.number >= self.model.given_frames:
            log_prob = self.model.frame_log_prob(self.model.layer(context), v, self.log_partition)
        _, self.state = self.model.contexts(v.unsqueeze(1), self.generator, self.state)
        self.number += 1
        return log_prob.view(self.paths, -1)

    def select(self, ancestors: Tensor) -> None:
        batch = ancestors.shape[1]
        index = (ancestors * batch + torch.arange(batch, device=ancestors.device)).flatten()
        self.state = tuple(part[:, index] for part in self.state)
