"""The linear-Gaussian state-space model, whose likelihood is exact: a Kalman filter."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cgrnn.layers.tractable import bounded_log_deviation
from cgrnn.models.sequence import Estimate, Scores, SequenceModel

PROPOSALS = ("prior", "optimal")


class Update(NamedTuple):
    """How a frame moves a Gaussian state, whatever the frame and the state's mean.

    Attributes:
        root: L of the state's covariance before the frame, `L Lᵀ`, `(Z, Z)`.
        gain: G, with `w = G (v - C m - c)` the whitened shift of the mean by `L w`, `(Z, V)`.
        root_after: a root of the covariance after the frame, `(Z, Z)`.
        log_scale: `½ log |2π S|` of the innovations' covariance S.
    """

    root: Tensor
    gain: Tensor
    root_after: Tensor
    log_scale: Tensor


class Filtered(NamedTuple):
    """Means before and after every frame, `(batch, frames, Z)`, the roots of their covariances,
    `(frames, Z, Z)`, and `log p(v_n | v_<n)`, `(batch, frames)`."""

    mean_before: Tensor
    mean: Tensor
    root_before: Tensor
    root: Tensor
    log_prob: Tensor


class LGSSM(SequenceModel):
    """Linear-Gaussian state-space model (linear dynamical system).

    Formula: `z_1 ~ N(m, diag P)`, `z_n ~ N(A z_{n-1}, diag Q)`, `v_n ~ N(C z_n + c, diag R)`. With
    `L Lᵀ` the covariance of `z_n` given the frames before, `U = R^-½ C L` and `M = I + UᵀU`, the
    covariance after the frame is `L M⁻¹ Lᵀ` and `|S| = |R| |M|`. With `w = M⁻¹ Uᵀ R^-½ e` for the
    innovation e, `eᵀS⁻¹e = |R^-½ (e - C L w)|² + |w|²`: sums of squares alone, nothing to cancel.
    Covariances do not depend on the frames: one recursion, in double precision, serves all of a
    batch.

    Source: Kalman 1960, in the square-root form; Roweis & Ghahramani, "A Unifying Review of Linear
    Gaussian Models", 1999. Departures: learned by the gradient of the exact likelihood, not by EM.

    Args:
        visible_dim: V, units of a frame.
        latent_dim: Z, size of the state.
        visible: "continuous".

    Example:
        >>> model = LGSSM(visible_dim=6, latent_dim=2)
        >>> model.filtered(torch.zeros(3, 4, 6)).log_prob.shape
        torch.Size([3, 4])
    """

    name = "lgssm"
    kinds = ("continuous",)

    def __init__(
        self, visible_dim: int = 88, latent_dim: int = 50, visible: str = "continuous"
    ) -> None:
        super().__init__(visible_dim, visible)
        self.latent_dim = latent_dim
        self.transition = nn.Parameter(0.9 * torch.eye(latent_dim))
        self.emission = nn.Parameter(torch.randn(visible_dim, latent_dim) / math.sqrt(latent_dim))
        self.visible_mean = nn.Parameter(torch.zeros(visible_dim))
        self.initial_mean = nn.Parameter(torch.zeros(latent_dim))
        self.raw_initial = nn.Parameter(torch.zeros(latent_dim))
        self.raw_process = nn.Parameter(torch.full((latent_dim,), -1.0))
        self.raw_visible = nn.Parameter(torch.zeros(visible_dim))

    @property
    def likelihood_kind(self) -> str:
        return "exact"

    @property
    def initial_deviation(self) -> Tensor:
        """`P^½`, `(Z,)`."""
        return bounded_log_deviation(self.raw_initial).exp()

    @property
    def process_deviation(self) -> Tensor:
        """`Q^½`, `(Z,)`."""
        return bounded_log_deviation(self.raw_process).exp()

    @property
    def visible_deviation(self) -> Tensor:
        """`R^½`, `(V,)`."""
        return bounded_log_deviation(self.raw_visible).exp()

    def update(self, root: Tensor) -> Update:
        """What any frame does to a state of covariance `root rootᵀ`, `(Z, Z)`."""
        deviation, emission = self.visible_deviation.double(), self.emission.double()
        scaled = emission @ root / deviation[:, None]
        identity = torch.eye(self.latent_dim, dtype=scaled.dtype, device=scaled.device)
        factor = torch.linalg.cholesky(identity + scaled.t() @ scaled)
        gain = torch.cholesky_solve(scaled.t() / deviation, factor)
        after = torch.linalg.solve_triangular(factor, root.t(), upper=False).t()
        log_scale = deviation.log().sum() + factor.diagonal().log().sum()
        return Update(root, gain, after, log_scale + 0.5 * len(deviation) * math.log(2 * math.pi))

    def roots(self, frames: int) -> Update:
        """The updates of so many frames, stacked, in the parameters' dtype."""
        transition, noise = self.transition.double(), self.process_deviation.double()
        root, updates = self.initial_deviation.double().diag(), []
        for _ in range(frames):
            updates.append(self.update(root))
            moved = transition @ updates[-1].root_after
            root = torch.linalg.cholesky(moved @ moved.t() + noise.square().diag())
        dtype = self.transition.dtype
        return Update(*(torch.stack(parts).to(dtype) for parts in zip(*updates, strict=True)))

    def condition(self, update: Update, mean: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Mean `(*B, Z)` of the state given a frame too, and the frame's log-density `(*B,)`."""
        innovation = v - self.emit(mean)
        white = innovation @ update.gain.t()
        shift = white @ update.root.t()
        left = (innovation - shift @ self.emission.t()) / self.visible_deviation
        square = left.square().sum(-1) + white.square().sum(-1)
        return mean + shift, -0.5 * square - update.log_scale

    def emit(self, z: Tensor) -> Tensor:
        """`C z + c`."""
        return z @ self.emission.t() + self.visible_mean

    def filtered(self, frames: Tensor) -> Filtered:
        """The Kalman filter over `(batch, frames, V)`."""
        updates = self.roots(frames.shape[1])
        mean = self.initial_mean.expand(len(frames), -1)
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        for v, *update in zip(frames.unbind(1), *updates, strict=True):
            after, log_prob = self.condition(Update(*update), mean, v)
            parts.append((mean, after, log_prob))
            mean = after @ self.transition.t()
        before, means, log_probs = (torch.stack(part, 1) for part in zip(*parts, strict=True))
        return Filtered(before, means, updates.root, updates.root_after, log_probs)

    def loss(
        self,
        frames: Tensor,
        lengths: Tensor,
        generator: torch.Generator | None = None,
        chains: Tensor | None = None,
    ) -> Tensor:
        """`-log p`, mean over the frames."""
        return -self.filtered(frames).log_prob[self.scored(lengths, frames.shape[1])].mean()

    @torch.no_grad()
    def scores(
        self,
        frames: Tensor,
        lengths: Tensor,
        chosen: Tensor,
        estimate: Estimate,
        generator: torch.Generator | None = None,
    ) -> Scores:
        return Scores(self.filtered(frames).log_prob[chosen].double())

    @torch.no_grad()
    def walk(
        self,
        frames: Tensor,
        lengths: Tensor,
        paths: int,
        generator: torch.Generator | None = None,
        log_partition: Callable[[Any], Tensor] | None = None,
    ) -> LGSSMWalk:
        return LGSSMWalk(self, frames, paths, generator)

    @torch.no_grad()
    def predict(
        self, frames: Tensor, generator: torch.Generator | None = None, samples: int = 1
    ) -> Tensor:
        found = self.filtered(frames)
        return self._frames_of(found.mean_before, found.root_before, samples, generator)

    @torch.no_grad()
    def reconstruct(
        self,
        frames: Tensor,
        generator: torch.Generator | None = None,
        samples: int = 1,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Draw every frame given states of the filter, `(samples, batch, frames, V)`."""
        found = self.filtered(frames)
        return self._frames_of(found.mean, found.root, samples, generator)

    @torch.no_grad()
    def features(
        self,
        frames: Tensor,
        generator: torch.Generator | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Means of the state given the frames up to each, `(batch, frames, Z)`."""
        return self.filtered(frames).mean

    @torch.no_grad()
    def generate(
        self,
        frames_to_make: int,
        batch: int = 1,
        prime: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        made = [self._primed(frames_to_make, batch, prime)]
        mean, root = self.initial_mean.expand(batch, -1), self.initial_deviation.diag()
        primed = made[0].shape[1] > 0
        if primed:
            found = self.filtered(made[0])
            mean, root = found.mean[:, -1], found.root[-1]
        z = _noisy(mean, root, generator)
        for n in range(frames_to_make):
            if primed or n:
                z = _noisy(z @ self.transition.t(), self.process_deviation.diag(), generator)
            deviation = self.visible_deviation * math.sqrt(self.temperature)
            v = _noisy(self.emit(z), deviation.diag(), generator)
            made.append(v.unsqueeze(1))
        return torch.cat(made, 1)

    def _frames_of(
        self, mean: Tensor, root: Tensor, samples: int, generator: torch.Generator | None
    ) -> Tensor:
        z = _noisy(mean.expand(samples, *mean.shape), root, generator)
        return _noisy(self.emit(z), self.visible_deviation.diag(), generator)


def _noisy(mean: Tensor, root: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw from `N(mean, root rootᵀ)`, `(*B, Z)`."""
    noise = torch.empty_like(mean).normal_(generator=generator)
    return mean + (root @ noise.unsqueeze(-1)).squeeze(-1)


class LGSSMWalk:
    """`samplers.particles.Walk` through a linear-Gaussian model.

    Args:
        model: the model.
        frames: `(batch, frames, V)`.
        paths: K.
        generator: source of the draws.
        proposal: "prior" draws `z_n` given `z_{n-1}` (the bootstrap filter), "optimal" given the
            frame too; its weights are `p(v_n | z_{n-1})`.
    """

    def __init__(
        self,
        model: LGSSM,
        frames: Tensor,
        paths: int,
        generator: torch.Generator | None = None,
        proposal: str = "optimal",
    ) -> None:
        if proposal not in PROPOSALS:
            known = " or ".join(map(repr, PROPOSALS))
            raise ValueError(f"proposal: expected {known}, got {proposal!r}")
        self.model, self.frames, self.generator, self.number = model, frames, generator, 0
        self.proposal = proposal
        self.mean = model.initial_mean.expand(paths, len(frames), -1)
        self.deviation = model.initial_deviation

    @torch.no_grad()
    def step(self) -> Tensor:
        model, v = self.model, self.frames[:, self.number].expand(*self.mean.shape[:2], -1)
        given = self.number < model.given_frames
        if given or self.proposal == "prior":
            z = _noisy(self.mean, self.deviation.diag(), self.generator)
            scale = model.visible_deviation
            density = torch.distributions.Normal(model.emit(z), scale)
            log_weight = density.log_prob(v).sum(-1) * (not given)
        else:
            update = model.update(self.deviation.double().diag())
            update = Update(*(part.to(v.dtype) for part in update))
            mean, log_weight = model.condition(update, self.mean, v)
            z = _noisy(mean, update.root_after, self.generator)
        self.mean, self.deviation = z @ model.transition.t(), model.process_deviation
        self.number += 1
        return log_weight

    def select(self, ancestors: Tensor) -> None:
        self.mean = self.mean.gather(0, ancestors[..., None].expand(self.mean.shape))
