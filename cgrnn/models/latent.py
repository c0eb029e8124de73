"""What the sequence models with Gaussian latents share: the bound, the paths, the draws.

`p(v, z) = Π_n p(z_n | z_<n, v_<n) p(v_n | z_≤n, v_<n)`, with an inference network
`q(z | v) = Π_n q(z_n | z_<n, v)` trained beside it. A model says how its state, prior, posterior
and frame density follow from one another; everything else is here.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from cgrnn.layers import IndependentBernoulli, IndependentGaussian
from cgrnn.models.sequence import Estimate, Scores, SequenceModel

State = tuple[Tensor, ...]
"""What a path carries from frame to frame, each `(*B, ·)`."""

MIN_DEVIATION = 1e-3
FILTER_PATHS = 20  # that predictions are drawn from: how many are asked for does not change them
LOG_2_PI = math.log(2 * math.pi)


class Gaussian(NamedTuple):
    """Independent Gaussians, `(*B, Z)`."""

    mean: Tensor
    deviation: Tensor

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw, with a gradient to mean and deviation."""
        noise = torch.empty_like(self.mean).normal_(generator=generator)
        return torch.addcmul(self.mean, self.deviation, noise)

    def log_prob(self, z: Tensor) -> Tensor:
        """`(*B,)`."""
        standard = (z - self.mean) / self.deviation
        return (-0.5 * standard.square() - self.deviation.log() - 0.5 * LOG_2_PI).sum(-1)

    def divergence(self, other: Gaussian) -> Tensor:
        """`KL(self ‖ other)` in nats, `(*B,)`."""
        ratio = self.deviation / other.deviation
        shift = (self.mean - other.mean) / other.deviation
        return (0.5 * (ratio.square() + shift.square() - 1) - ratio.log()).sum(-1)


def standard_like(mean: Tensor) -> Gaussian:
    """`N(0, I)` of a shape."""
    return Gaussian(torch.zeros_like(mean), torch.ones_like(mean))


class GaussianHead(nn.Module):
    """Mean and deviation affine in a feature; deviations are positive by a softplus.

    Args:
        features: size of what it is given.
        latent_dim: Z.
    """

    def __init__(self, features: int, latent_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 2 * latent_dim)

    def forward(self, features: Tensor) -> Gaussian:
        mean, raw = self.linear(features).chunk(2, -1)
        return Gaussian(mean, softplus(raw) + MIN_DEVIATION)


class Past(NamedTuple):
    """All that frames alone decide, for every frame of a batch.

    Attributes:
        before: what the frames before it tell, `(batch, frames, ·)`; 0 wide where a model keeps
            that in its state.
        seen: what the posterior is given, `(batch, frames, ·)`.
        own: what the state is driven by after the frame, `(batch, frames, ·)`.
    """

    before: Tensor
    seen: Tensor
    own: Tensor


class LatentModel(SequenceModel):
    """A sequence model with Gaussian latents, trained on the evidence lower bound.

    The loss is `E_q[-log p(v|z)] + kl_weight · KL(q ‖ p)` a frame, the divergences in closed form.

    Args:
        visible_dim: V, units of a frame.
        visible: kind of the frames, "binary" or "continuous".
        context_dim: size of what the frame density is given.
    """

    kinds = ("binary", "continuous")
    kl_weight: float | None = 1.0

    def __init__(self, visible_dim: int, visible: str, context_dim: int) -> None:
        super().__init__(visible_dim, visible)
        head = IndependentBernoulli if visible == "binary" else IndependentGaussian
        self.layer = head(visible_dim, context_dim)

    @property
    def likelihood_kind(self) -> str:
        return "lower bound"

    @abstractmethod
    def past(
        self,
        frames: Tensor,
        lengths: Tensor | None = None,
        memory: State | None = None,
        online: bool = False,
    ) -> tuple[Past, State]:
        """What frames alone decide, and the memory with which later frames go on.

        Args:
            frames: `(batch, frames, V)`.
            lengths: `(batch,)`, what follows being padding that must not be seen; None for none.
            memory: where earlier frames ended; None at the start of a sequence.
            online: let `seen` at a frame tell of no later one, as when they are not yet there.
        """

    @abstractmethod
    def start(self, shape: tuple[int, ...]) -> State:
        """State before the first frame, of a batch shape."""

    @abstractmethod
    def prior(self, state: State, before: Tensor) -> Gaussian:
        """`p(z_n | z_<n, v_<n)`."""

    @abstractmethod
    def posterior(self, state: State, before: Tensor, seen: Tensor, prior: Gaussian) -> Gaussian:
        """`q(z_n | z_<n, v)`."""

    @abstractmethod
    def emit(self, state: State, z: Tensor, before: Tensor) -> tuple[Tensor, State]:
        """What the frame density is given, and the state with `z_n` in it."""

    @abstractmethod
    def advance(self, state: State, z: Tensor, own: Tensor) -> State:
        """The state after the frame, from the one that `emit` gave."""

    def loss(
        self,
        frames: Tensor,
        lengths: Tensor,
        generator: torch.Generator | None = None,
        chains: Tensor | None = None,
    ) -> Tensor:
        """`E_q[-log p(v|z)] + kl_weight · KL(q ‖ p)`, mean over the frames."""
        inside = self.scored(lengths, frames.shape[1])
        contexts, divergences = self.bound(frames, lengths, generator)
        fit = self.layer(contexts[inside]).log_prob(frames[inside]).mean()
        divergence = divergences[inside].mean()
        weight = self.weigh(divergence)
        return weight * divergence - fit

    def weigh(self, divergence: Tensor) -> Tensor:
        """The weight of a mean divergence in the loss; both are noted."""
        weight = divergence.new_tensor(1.0 if self.kl_weight is None else self.kl_weight)
        self.monitored = {"kl": divergence.detach(), "kl_weight": weight}
        return weight

    def sources(
        self, number: int, state: State, before: Tensor, seen: Tensor
    ) -> tuple[Gaussian, Gaussian]:
        """The prior of the latents of a frame, and what they are drawn from, having seen it.

        That is the posterior; the prior at frames that are given, since no likelihood pays there.
        """
        prior = self.prior(state, before)
        if number < self.given_frames:
            return prior, prior
        return prior, self.posterior(state, before, seen, prior)

    def bound(
        self, frames: Tensor, lengths: Tensor | None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """One path drawn from the posterior: contexts `(batch, frames, ·)` of the frame density,
        and the divergence of each frame's posterior from its prior, `(batch, frames)`."""
        past, _ = self.past(frames, lengths)
        state, contexts, priors, posteriors = self.start(frames.shape[:1]), [], [], []
        for n, (before, seen, own) in enumerate(
            zip(*(part.unbind(1) for part in past), strict=True)
        ):
            prior, posterior = self.sources(n, state, before, seen)
            z = posterior.sample(generator)
            context, state = self.emit(state, z, before)
            state = self.advance(state, z, own)
            contexts.append(context)
            priors.append(prior)
            posteriors.append(posterior)
        return torch.stack(contexts, 1), stacked(posteriors).divergence(stacked(priors))

    @torch.no_grad()
    def scores(
        self,
        frames: Tensor,
        lengths: Tensor,
        chosen: Tensor,
        estimate: Estimate,
        generator: torch.Generator | None = None,
    ) -> Scores:
        contexts, divergences = self.bound(frames, lengths, generator)
        fit = self.layer(contexts[chosen]).log_prob(frames[chosen])
        return Scores((fit - divergences[chosen]).double())

    @torch.no_grad()
    def walk(
        self,
        frames: Tensor,
        lengths: Tensor,
        paths: int,
        generator: torch.Generator | None = None,
        log_partition: Callable[[Any], Tensor] | None = None,
    ) -> LatentWalk:
        return LatentWalk(self, frames, lengths, paths, generator)

    @torch.no_grad()
    def predict(
        self,
        frames: Tensor,
        generator: torch.Generator | None = None,
        samples: int = 1,
    ) -> Tensor:
        """Draw every frame given the frames before it alone, `(samples, batch, frames, V)`.

        Each sample is a particle of a filter, of 20 at the least, whose proposals see no later
        frame; its latent at the frame is drawn from the prior.
        """
        paths = max(samples, FILTER_PATHS)
        walk = LatentWalk(self, frames, None, paths, generator, online=True)
        drawn = []
        for _ in range(frames.shape[1]):
            drawn.append(walk.predict()[:samples])
            walk.filter_step()
        return torch.stack(drawn, 2)

    @torch.no_grad()
    def reconstruct(
        self,
        frames: Tensor,
        generator: torch.Generator | None = None,
        samples: int = 1,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Draw every frame given latents of the posterior, `(samples, batch, frames, V)`."""
        drawn = []
        for _ in range(samples):
            contexts, _ = self.bound(frames, lengths, generator)
            drawn.append(self.layer(contexts).sample((), generator))
        return torch.stack(drawn)

    @torch.no_grad()
    def features(
        self,
        frames: Tensor,
        generator: torch.Generator | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Means of the posterior, each given draws of the earlier latents, `(batch, frames, Z)`."""
        past, _ = self.past(frames, lengths)
        state, means = self.start(frames.shape[:1]), []
        for n, (before, seen, own) in enumerate(
            zip(*(part.unbind(1) for part in past), strict=True)
        ):
            _, posterior = self.sources(n, state, before, seen)
            z = posterior.sample(generator)
            state = self.advance(self.emit(state, z, before)[1], z, own)
            means.append(posterior.mean)
        return torch.stack(means, 1)

    @torch.no_grad()
    def generate(
        self,
        frames_to_make: int,
        batch: int = 1,
        prime: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        made = [self._primed(frames_to_make, batch, prime)]
        state, memory = self.start((batch,)), None
        if made[0].shape[1]:
            past, memory = self.past(made[0], online=True)
            for n, (before, seen, own) in enumerate(
                zip(*(part.unbind(1) for part in past), strict=True)
            ):
                z = self.sources(n, state, before, seen)[1].sample(generator)
                state = self.advance(self.emit(state, z, before)[1], z, own)
        for _ in range(frames_to_make):
            # What comes before a frame does not depend on the frame: a blank one stands for it.
            blank = made[0].new_zeros(batch, 1, self.visible_dim)
            before = self.past(blank, None, memory, online=True)[0].before[:, 0]
            z = self.prior(state, before).sample(generator)
            context, state = self.emit(state, z, before)
            v = self.layer(context).at_temperature(self.temperature).sample((), generator)
            past, memory = self.past(v.unsqueeze(1), None, memory, online=True)
            state = self.advance(state, z, past.own[:, 0])
            made.append(v.unsqueeze(1))
        return torch.cat(made, 1)


def stacked(parts: list[Gaussian]) -> Gaussian:
    """Those of the frames in turn, `(batch, frames, Z)`."""
    return Gaussian(*(torch.stack(fields, 1) for fields in zip(*parts, strict=True)))


def selected(state: State, ancestors: Tensor) -> State:
    """The state of paths that go on from others' places, `(paths, batch)`."""
    return tuple(part.gather(0, ancestors[..., None].expand(part.shape)) for part in state)


def resampled(state: State, weight: Tensor, generator: torch.Generator | None) -> State:
    """Let every path go on from one drawn by the weights, `(paths, batch)`."""
    drawn = torch.multinomial(weight.t(), len(weight), True, generator=generator)
    return selected(state, drawn.t())


class LatentWalk:
    """`samplers.particles.Walk` through a model with Gaussian latents.

    Args:
        model: the model.
        frames: `(batch, frames, V)`.
        lengths: `(batch,)`, or None where nothing is padding.
        paths: K.
        generator: source of the draws.
        online: propose without sight of later frames.
    """

    def __init__(
        self,
        model: LatentModel,
        frames: Tensor,
        lengths: Tensor | None,
        paths: int,
        generator: torch.Generator | None,
        online: bool = False,
    ) -> None:
        self.model, self.frames, self.generator, self.number = model, frames, generator, 0
        self.past, _ = model.past(frames, lengths, online=online)
        self.shape = paths, len(frames)
        self.state = model.start(self.shape)

    def _at(self, part: Tensor) -> Tensor:
        return part[:, self.number].expand(*self.shape, -1)

    @torch.no_grad()
    def step(self) -> Tensor:
        before, seen, own = map(self._at, self.past)
        prior, posterior = self.model.sources(self.number, self.state, before, seen)
        z = posterior.sample(self.generator)
        context, state = self.model.emit(self.state, z, before)
        fit = self.model.layer(context).log_prob(self._at(self.frames))
        self.state = self.model.advance(state, z, own)
        self.number += 1
        scored = self.number > self.model.given_frames
        return fit * scored + prior.log_prob(z) - posterior.log_prob(z)

    def select(self, ancestors: Tensor) -> None:
        self.state = selected(self.state, ancestors)

    def predict(self) -> Tensor:
        """Draw the next frame of each path, `(paths, batch, V)`, without going on."""
        before = self._at(self.past.before)
        z = self.model.prior(self.state, before).sample(self.generator)
        context, _ = self.model.emit(self.state, z, before)
        return self.model.layer(context).sample((), self.generator)

    def filter_step(self) -> None:
        """Go on, and resample the paths by how well they explain the frame."""
        weight = self.step().softmax(0)
        self.state = resampled(self.state, weight, self.generator)
