"""The temporal sigmoid belief network: binary latents, learned by the score function."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from cgrnn.layers.energy import bernoulli
from cgrnn.models.latent import LatentModel, Past, State
from cgrnn.models.sequence import mask_of

MEMORY = 0.95  # of the running mean and variance


class Bernoulli(NamedTuple):
    """Independent binary latents, `(*B, H)`."""

    logits: Tensor

    @property
    def mean(self) -> Tensor:
        return torch.sigmoid(self.logits)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw; no gradient passes through a draw."""
        return bernoulli(self.mean, generator)

    def log_prob(self, h: Tensor) -> Tensor:
        """`(*B,)`."""
        return (h * self.logits + logsigmoid(-self.logits)).sum(-1)

    def divergence(self, other: Bernoulli) -> Tensor:
        """`KL(self ‖ other)` in nats, `(*B,)`."""
        shift = self.mean * (self.logits - other.logits)
        return (shift + logsigmoid(-self.logits) - logsigmoid(-other.logits)).sum(-1)


class TSBN(LatentModel):
    """TSBN: binary latents given the latents and the frame before, one layer.

    Formula: `p(h_n) = σ(W₁ h_{n-1} + W₃ v_{n-1} + b)`, `p(v_n) = layer([h_n, v_{n-1}])`,
    `q(h_n) = σ(U₁ h_{n-1} + U₂ v_n + U₃ v_{n-1} + d)`, with `h_0 = v_0 = 0`.

    The gradient of q is `E_q[Σ_n ∇log q(h_n) Σ_{m≥n} (l_m - β_m)] - E_q[Σ_n ∇KL_n]` (NVIL), with
    `l_m = log p(v_m|h_m, v_{m-1}) - KL_m` what frame m earns: a draw answers for what comes after
    it, and not for what was before. The baselines `β_m = b(v_m, v_{m-1}) + c`, a network and a
    running mean, tell of no latent and so leave the gradient unbiased; the whole of it is divided
    by the running deviation of what the baselines leave, where that is above one.

    Source: Gan, Li, Henao, Carlson & Carin, "Deep Temporal Sigmoid Belief Networks", NIPS 2015;
    the estimator: Mnih & Gregor, ICML 2014. Departures: divergences between neighbouring frames'
    latents in closed form, not by the draw; the sum over the frames to come, where a frame's own
    signal alone would be biased; baselines of single frames, summed.

    Args:
        visible_dim: V, units of a frame.
        latent_dim: H, latents of a frame.
        baseline_dim: size of the baseline's hidden layer.
        visible: kind of the frames, "binary" or "continuous".

    Example:
        >>> model = TSBN(visible_dim=6, latent_dim=2)
        >>> model.generate(frames_to_make=3, batch=2).shape
        torch.Size([2, 3, 6])
    """

    name = "tsbn"
    mean_signal: Tensor
    deviation: Tensor

    def __init__(
        self,
        visible_dim: int = 88,
        latent_dim: int = 100,
        baseline_dim: int = 100,
        visible: str = "binary",
    ) -> None:
        super().__init__(visible_dim, visible, latent_dim + visible_dim)
        self.latent_dim = latent_dim
        self.to_prior = nn.Linear(latent_dim + visible_dim, latent_dim)
        self.to_posterior = nn.Linear(latent_dim + 2 * visible_dim, latent_dim)
        self.baseline = nn.Sequential(
            nn.Linear(2 * visible_dim, baseline_dim), nn.Tanh(), nn.Linear(baseline_dim, 1)
        )
        self.register_buffer("mean_signal", torch.zeros(()))
        self.register_buffer("deviation", torch.ones(()))

    def past(
        self,
        frames: Tensor,
        lengths: Tensor | None = None,
        memory: State | None = None,
        online: bool = False,
    ) -> tuple[Past, State]:
        (last,) = (torch.zeros_like(frames[:, 0]),) if memory is None else memory
        before = torch.cat([last.unsqueeze(1), frames[:, :-1]], 1)
        return Past(before, torch.cat([frames, before], -1), frames[..., :0]), (frames[:, -1],)

    def start(self, shape: tuple[int, ...]) -> State:
        return (self.to_prior.weight.new_zeros(*shape, self.latent_dim),)

    def prior(self, state: State, before: Tensor) -> Any:
        return Bernoulli(self.to_prior(torch.cat([state[0], before], -1)))

    def posterior(self, state: State, before: Tensor, seen: Tensor, prior: Any) -> Any:
        return Bernoulli(self.to_posterior(torch.cat([state[0], seen], -1)))

    def emit(self, state: State, z: Tensor, before: Tensor) -> tuple[Tensor, State]:
        return torch.cat([z, before], -1), (z,)

    def advance(self, state: State, z: Tensor, own: Tensor) -> State:
        return state

    def loss(
        self,
        frames: Tensor,
        lengths: Tensor,
        generator: torch.Generator | None = None,
        chains: Tensor | None = None,
    ) -> Tensor:
        """The negative bound of one path, and with its gradient that of the baseline's error."""
        inside = self.scored(lengths, frames.shape[1])
        rate = 1 / self.deviation.clamp(min=1.0)
        contexts, divergences, log_q = self._path(frames, generator, rate)
        fit = frames.new_zeros(inside.shape)
        fit[inside] = self.layer(contexts[inside]).log_prob(frames[inside])
        divergence = torch.where(inside, divergences, 0.0)
        signal = fit - self.weigh(divergence.sum() / inside.sum()) * divergence
        baseline = self.baseline(self.past(frames)[0].seen).squeeze(-1) + self.mean_signal
        surprise = torch.where(inside, signal.detach() - baseline, 0.0)
        # log_q carries the gradient of the draws alone: its value is no part of the loss.
        later = surprise.detach().flip(1).cumsum(1).flip(1)
        score = log_q * later
        teaching = (
            surprise.square() - torch.where(mask_of(lengths, frames.shape[1]), score, 0.0)
        ).sum()
        if self.training:
            self._remember(signal.detach()[inside], later[inside])
        return (teaching - teaching.detach() - signal.sum()) / inside.sum()

    def bound(
        self, frames: Tensor, lengths: Tensor | None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        contexts, divergences, _ = self._path(frames, generator)
        return contexts, divergences

    def _path(
        self, frames: Tensor, generator: torch.Generator | None, rate: Tensor | float = 1.0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Contexts, divergences, and `log q` of the path; the posterior's gradient times `rate`."""
        past, _ = self.past(frames)
        state, found = self.start(frames.shape[:1]), []
        for n, (before, seen) in enumerate(
            zip(past.before.unbind(1), past.seen.unbind(1), strict=True)
        ):
            prior = posterior = self.prior(state, before)
            if n >= self.given_frames:
                logits = self.posterior(state, before, seen, prior).logits
                posterior = Bernoulli(logits.detach() + rate * (logits - logits.detach()))
            h = posterior.sample(generator)
            context, state = self.emit(state, h, before)
            found.append((context, posterior.divergence(prior), posterior.log_prob(h)))
        contexts, divergences, log_q = (torch.stack(part, 1) for part in zip(*found, strict=True))
        return contexts, divergences, log_q

    @torch.no_grad()
    def _remember(self, signal: Tensor, left: Tensor) -> None:
        self.mean_signal.lerp_(signal.mean(), 1 - MEMORY)
        self.deviation.lerp_(left.square().mean().sqrt(), 1 - MEMORY)
