"""The stochastic recurrent network."""

from __future__ import annotations

import torch
from torch import Tensor

from cgrnn.models.latent import Gaussian, GaussianHead, LatentModel, Past, State, standard_like
from cgrnn.transition import Transition


class STORN(LatentModel):
    """STORN: a recurrence driven by noise, and another that recognises the noise.

    Formula: `p(z_n) = N(0, I)`, `h_n = GRU([v_{n-1}, z_n], h_{n-1})`, `p(v_n|z, v) = layer(h_n)`,
    `q(z_n|v_≤n) = N(·; r_n)`, `r_n = GRU(v_n, r_{n-1})`, with `v_0 = 0`.

    Source: Bayer & Osendorfer, "Learning Stochastic Recurrent Networks", 2014. Departures: GRUs
    for their plain recurrences; the states before the first frame are learned.

    Args:
        visible_dim: V, units of a frame.
        latent_dim: Z, latents of a frame.
        recurrent_dim: size of h, and of r.
        visible: kind of the frames, "binary" or "continuous".

    Example:
        >>> model = STORN(visible_dim=6, latent_dim=2, recurrent_dim=5)
        >>> model.generate(frames_to_make=3, batch=2).shape
        torch.Size([2, 3, 6])
    """

    name = "storn"

    def __init__(
        self,
        visible_dim: int = 88,
        latent_dim: int = 100,
        recurrent_dim: int = 300,
        visible: str = "binary",
    ) -> None:
        super().__init__(visible_dim, visible, recurrent_dim)
        self.latent_dim = latent_dim
        self.recognition = Transition(visible_dim, 0, recurrent_dim)
        self.transition = Transition(visible_dim + latent_dim, 0, recurrent_dim)
        self.to_posterior = GaussianHead(recurrent_dim, latent_dim)

    def past(
        self,
        frames: Tensor,
        lengths: Tensor | None = None,
        memory: State | None = None,
        online: bool = False,
    ) -> tuple[Past, State]:
        if memory is None:
            memory = (*self.recognition.initial_state(len(frames)), torch.zeros_like(frames[:, 0]))
        *recognised, last = memory
        seen, after = _states(self.recognition, frames, tuple(recognised))
        before = torch.cat([last.unsqueeze(1), frames[:, :-1]], 1)
        return Past(before, seen, frames[..., :0]), (*after, frames[:, -1])

    def start(self, shape: tuple[int, ...]) -> State:
        return (self.transition.initial[0, 0].expand(*shape, -1),)

    def prior(self, state: State, before: Tensor) -> Gaussian:
        return standard_like(before.new_empty(*before.shape[:-1], self.latent_dim))

    def posterior(self, state: State, before: Tensor, seen: Tensor, prior: Gaussian) -> Gaussian:
        posterior: Gaussian = self.to_posterior(seen)
        return posterior

    def emit(self, state: State, z: Tensor, before: Tensor) -> tuple[Tensor, State]:
        inputs = torch.cat([before, z], -1).flatten(0, -2).unsqueeze(1)
        h, _ = _states(self.transition, inputs, (state[0].flatten(0, -2).unsqueeze(0),))
        context = h.view(state[0].shape)
        return context, (context,)

    def advance(self, state: State, z: Tensor, own: Tensor) -> State:
        return state

    def bound(
        self, frames: Tensor, lengths: Tensor | None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """As of every model, but without a loop: no latent depends on an earlier one."""
        past, _ = self.past(frames, lengths)
        found: Gaussian = self.to_posterior(past.seen)
        prior = standard_like(found.mean)
        given = (torch.arange(frames.shape[1], device=frames.device) < self.given_frames)[:, None]
        posterior = Gaussian(
            torch.where(given, prior.mean, found.mean),
            torch.where(given, prior.deviation, found.deviation),
        )
        # Frame by frame, so that the draws do not depend on how many frames follow.
        noise = [
            torch.empty_like(mean).normal_(generator=generator) for mean in posterior.mean.unbind(1)
        ]
        z = torch.addcmul(posterior.mean, posterior.deviation, torch.stack(noise, 1))
        contexts, _ = _states(self.transition, torch.cat([past.before, z], -1))
        return contexts, posterior.divergence(prior)


def _states(
    transition: Transition, inputs: Tensor, state: State | None = None
) -> tuple[Tensor, State]:
    """States after every input, `(batch, frames, R)`, and the last as a recurrence goes on."""
    contexts, after = transition(inputs, None, state)
    return torch.cat([contexts[:, 1:], transition.context(after).unsqueeze(1)], 1), after
