"""Z-forcing: a recurrent network with latents that must tell of the frames to come."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cgrnn.layers import IndependentBernoulli, IndependentGaussian
from cgrnn.models.latent import Gaussian, GaussianHead, LatentModel, Past, State, stacked
from cgrnn.models.srnn import Backward


class ZForcing(LatentModel):
    """Z-forcing: latents inferred from, and made to predict, a recurrence that runs backwards.

    Formula, with `φ` a ReLU layer: `h_n = GRU([φ_v(v_n), z_n], h_{n-1})`,
    `b_n = GRU(φ_v(v_n), b_{n+1})`, `p(z_n|h) = N(·; φ_p(h_{n-1}))`,
    `p(v_n|z, h) = layer(φ_out([z_n, h_{n-1}]))`, `q(z_n|h, b) = N(·; φ_q([h_{n-1}, b_n]))`. The
    loss adds `-auxiliary · (log p(b_n|z_n, h_{n-1}) + log p(v_{n-1}|b_n))` a frame, the first a
    Gaussian `N(·; φ_b([z_n, h_{n-1}]))`, the second of the frames' own kind. The first sends no
    gradient to `b`, which would grow easy to predict. Neither is part of the likelihood.

    Source: Goyal et al., "Z-Forcing: Training Stochastic Recurrent Networks", NIPS 2017.
    Departures: GRUs for their LSTMs; their `h_n` is fed `v_{n-1}` and `z_n` and gives `v_n`
    directly, so their prior does not see `v_{n-1}`; one weight for both auxiliary terms, and it
    stays as it is in training.

    Args:
        visible_dim: V, units of a frame.
        latent_dim: Z, latents of a frame.
        recurrent_dim: size of h, and of b.
        feature_dim: size of the layers φ.
        visible: kind of the frames, "binary" or "continuous".
        auxiliary: weight of the auxiliary cost. Sums over b are large: from 0.1 on they drown the
            bound (JSB Chorales, a minute of training: -14.4 nats a frame for -8.7 without).

    Example:
        >>> model = ZForcing(visible_dim=6, latent_dim=2, recurrent_dim=5, feature_dim=4)
        >>> model.generate(frames_to_make=3, batch=2).shape
        torch.Size([2, 3, 6])
    """

    name = "z-forcing"

    def __init__(
        self,
        visible_dim: int = 88,
        latent_dim: int = 100,
        recurrent_dim: int = 300,
        feature_dim: int = 200,
        visible: str = "binary",
        auxiliary: float = 0.0025,
    ) -> None:
        super().__init__(visible_dim, visible, feature_dim)
        self.auxiliary = auxiliary

        def features(size: int) -> nn.Sequential:
            return nn.Sequential(nn.Linear(size, feature_dim), nn.ReLU())

        self.of_frame = features(visible_dim)
        self.backward_rnn = Backward(feature_dim, recurrent_dim)
        self.to_prior = nn.Sequential(
            features(recurrent_dim), GaussianHead(feature_dim, latent_dim)
        )
        self.to_posterior = nn.Sequential(
            features(2 * recurrent_dim), GaussianHead(feature_dim, latent_dim)
        )
        self.to_context = features(latent_dim + recurrent_dim)
        self.cell = nn.GRUCell(feature_dim + latent_dim, recurrent_dim)
        self.initial = nn.Parameter(torch.zeros(recurrent_dim))
        self.to_backward = nn.Sequential(
            features(latent_dim + recurrent_dim), GaussianHead(feature_dim, recurrent_dim)
        )
        head = IndependentBernoulli if visible == "binary" else IndependentGaussian
        self.backward_layer = head(visible_dim, recurrent_dim)

    def past(
        self,
        frames: Tensor,
        lengths: Tensor | None = None,
        memory: State | None = None,
        online: bool = False,
    ) -> tuple[Past, State]:
        own = self.of_frame(frames)
        return Past(frames[..., :0], self.backward_rnn(own, lengths, online), own), ()

    def start(self, shape: tuple[int, ...]) -> State:
        return (self.initial.expand(*shape, -1),)

    def prior(self, state: State, before: Tensor) -> Gaussian:
        prior: Gaussian = self.to_prior(state[0])
        return prior

    def posterior(self, state: State, before: Tensor, seen: Tensor, prior: Gaussian) -> Gaussian:
        posterior: Gaussian = self.to_posterior(torch.cat([state[0], seen], -1))
        return posterior

    def emit(self, state: State, z: Tensor, before: Tensor) -> tuple[Tensor, State]:
        return self.to_context(torch.cat([z, state[0]], -1)), state

    def advance(self, state: State, z: Tensor, own: Tensor) -> State:
        inputs = torch.cat([own, z], -1)
        after = self.cell(inputs.flatten(0, -2), state[0].flatten(0, -2))
        return (after.view(state[0].shape),)

    def loss(
        self,
        frames: Tensor,
        lengths: Tensor,
        generator: torch.Generator | None = None,
        chains: Tensor | None = None,
    ) -> Tensor:
        """The bound with weighted divergence, and the auxiliary cost; mean over the frames."""
        past, _ = self.past(frames, lengths)
        h, z, divergences = self._path(past, generator)
        inside = self.scored(lengths, frames.shape[1])
        both = torch.cat([z, h], -1)[inside]
        fit = self.layer(self.to_context(both)).log_prob(frames[inside]).mean()
        divergence = divergences[inside].mean()
        foreseen = self.to_backward(both).log_prob(past.seen[inside].detach()).mean()
        later = inside[:, 1:]
        recalled = self.backward_layer(past.seen[:, 1:][later]).log_prob(frames[:, :-1][later])
        auxiliary = -foreseen - recalled.sum() / len(both)
        weight = self.weigh(divergence)
        self.monitored["auxiliary"] = auxiliary.detach()
        return weight * divergence - fit + self.auxiliary * auxiliary

    def bound(
        self, frames: Tensor, lengths: Tensor | None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """As of every model; the loop makes only what the next latent depends on."""
        h, z, divergences = self._path(self.past(frames, lengths)[0], generator)
        return self.to_context(torch.cat([z, h], -1)), divergences

    def _path(self, past: Past, generator: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor]:
        """One path: `h_{n-1}` and `z_n`, `(batch, frames, ·)`, and the divergences."""
        h, states, drawn, posteriors = self.start(past.own.shape[:1])[0], [], [], []
        for n, (seen, own) in enumerate(zip(past.seen.unbind(1), past.own.unbind(1), strict=True)):
            given = n < self.given_frames
            posterior: Gaussian = (
                self.to_prior(h) if given else self.to_posterior(torch.cat([h, seen], -1))
            )
            z = posterior.sample(generator)
            states.append(h)
            drawn.append(z)
            posteriors.append(posterior)
            (h,) = self.advance((h,), z, own)
        before = torch.stack(states, 1)
        divergences = stacked(posteriors).divergence(self.to_prior(before))
        return before, torch.stack(drawn, 1), divergences
