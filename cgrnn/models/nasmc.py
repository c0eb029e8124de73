"""Neural adaptive sequential Monte Carlo."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cgrnn.models.latent import Gaussian, Past, State, resampled
from cgrnn.models.sequence import Estimate, Scores
from cgrnn.models.vrnn import VRNN


class Sweep(NamedTuple):
    """One pass of a particle filter, each `(batch, frames)`.

    Attributes:
        evidence: `log 1/K Σ_k w_n^k`: their sum over a sequence estimates its log-likelihood, low.
        model: `Σ_k W_n^k log p(v_n, z_n^k | z_<n^k, v_<n)`, whose gradient is the model's.
        proposal: `Σ_k W_n^k log q(z_n^k | z_<n^k, v_≤n)`, whose gradient is the proposal's.
    """

    evidence: Tensor
    model: Tensor
    proposal: Tensor


class NASMC(VRNN):
    """NASMC: the model of the VRNN, with a proposal that learns to be the posterior.

    Formula: `q(z_n|v_≤n, z_<n) = N(·; φ_q([φ'_v(v_n), r_{n-1}]))`, `r_n = GRU([φ'_v(v_n), z_n],
    r_{n-1})`. One filter of K particles, resampled after every frame, gives weights
    `w_n = p(v_n, z_n|·) / q(z_n|·)` and `W_n = w_n / Σ w_n`; the gradients are
    `Σ_n Σ_k W_n^k ∇log q(z_n^k|·)`, down the inclusive divergence `KL(p(z|v) ‖ q)`, and
    `Σ_n Σ_k W_n^k ∇log p(v_n, z_n^k|·)`, up the likelihood. None passes through draws, weights or
    resampling; model and proposal share no parameter.

    Source: Gu, Ghahramani & Turner, "Neural Adaptive Sequential Monte Carlo", NIPS 2015.
    Departures: GRUs for LSTMs; a Gaussian proposal where theirs can be a mixture. Like theirs the
    weights at a frame are the filter's: no later frame corrects them.

    Args: those of `VRNN`, and
        particles: K in training and in `scores`.

    Example:
        >>> model = NASMC(visible_dim=6, latent_dim=2, recurrent_dim=5, feature_dim=4)
        >>> model.generate(frames_to_make=3, batch=2).shape
        torch.Size([2, 3, 6])
    """

    name = "nasmc"
    kl_weight = None  # there is no divergence in its loss

    def __init__(
        self,
        visible_dim: int = 88,
        latent_dim: int = 100,
        recurrent_dim: int = 300,
        feature_dim: int = 200,
        particles: int = 8,
        visible: str = "binary",
    ) -> None:
        if particles < 2:
            raise ValueError(f"particles: expected at least 2, got {particles}: one has no weight")
        super().__init__(visible_dim, latent_dim, recurrent_dim, feature_dim, visible)
        self.particles = particles
        self.proposal_features = nn.Sequential(nn.Linear(visible_dim, feature_dim), nn.ReLU())
        self.proposal_cell = nn.GRUCell(feature_dim + latent_dim, recurrent_dim)
        self.proposal_initial = nn.Parameter(torch.zeros(recurrent_dim))

    def past(
        self,
        frames: Tensor,
        lengths: Tensor | None = None,
        memory: State | None = None,
        online: bool = False,
    ) -> tuple[Past, State]:
        seen = self.proposal_features(frames)
        return Past(frames[..., :0], seen, torch.cat([self.of_frame(frames), seen], -1)), ()

    def start(self, shape: tuple[int, ...]) -> State:
        return (*super().start(shape), self.proposal_initial.expand(*shape, -1))

    def posterior(self, state: State, before: Tensor, seen: Tensor, prior: Gaussian) -> Gaussian:
        proposal: Gaussian = self.to_posterior(torch.cat([seen, state[1]], -1))
        return proposal

    def emit(self, state: State, z: Tensor, before: Tensor) -> tuple[Tensor, State]:
        context, (recurrent, of_latent) = super().emit(state, z, before)
        return context, (recurrent, state[1], of_latent)

    def advance(self, state: State, z: Tensor, own: Tensor) -> State:
        recurrent, proposing, of_latent = state
        of_frame, seen = own.chunk(2, -1)
        inputs = torch.cat([seen, z], -1)
        after = self.proposal_cell(inputs.flatten(0, -2), proposing.flatten(0, -2))
        (model_after,) = super().advance((recurrent, of_latent), z, of_frame)
        return model_after, after.view(proposing.shape)

    def loss(
        self,
        frames: Tensor,
        lengths: Tensor,
        generator: torch.Generator | None = None,
        chains: Tensor | None = None,
    ) -> Tensor:
        """The negative estimate of the filter, with the gradients of model and proposal."""
        inside = self.scored(lengths, frames.shape[1])
        sweep = self.sweep(frames, generator)
        teaching = -(sweep.model + sweep.proposal)[inside].mean()
        return teaching - teaching.detach() - sweep.evidence[inside].mean()

    @torch.no_grad()
    def scores(
        self,
        frames: Tensor,
        lengths: Tensor,
        chosen: Tensor,
        estimate: Estimate,
        generator: torch.Generator | None = None,
    ) -> Scores:
        """By the filter of training, of as many particles."""
        return Scores(self.sweep(frames, generator).evidence[chosen].double())

    def sweep(self, frames: Tensor, generator: torch.Generator | None = None) -> Sweep:
        """Filter frames `(batch, frames, V)`."""
        past, _ = self.past(frames)
        shape = self.particles, len(frames)
        state, found = self.start(shape), []
        for n, (v, *parts) in enumerate(
            zip(frames.unbind(1), *(part.unbind(1) for part in past), strict=True)
        ):
            before, seen, own = (part.expand(*shape, -1) for part in parts)
            prior, proposal = self.sources(n, state, before, seen)
            z = proposal.sample(generator).detach()
            context, emitted = self.emit(state, z, before)
            fit = self.layer(context).log_prob(v.expand(*shape, -1)) * (n >= self.given_frames)
            log_p, log_q = fit + prior.log_prob(z), proposal.log_prob(z)
            log_weight = (log_p - log_q).detach()
            weight = log_weight.softmax(0)
            evidence = log_weight.logsumexp(0) - math.log(self.particles)
            found.append((evidence, (weight * log_p).sum(0), (weight * log_q).sum(0)))
            state = resampled(self.advance(emitted, z, own), weight, generator)
        return Sweep(*(torch.stack(part, 1) for part in zip(*found, strict=True)))
