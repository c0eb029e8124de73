"""The variational recurrent neural network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cgrnn.models.latent import Gaussian, GaussianHead, LatentModel, Past, State


class VRNN(LatentModel):
    """VRNN: latents whose prior, posterior and frames all follow one recurrent state.

    Formula, with `φ` two ReLU layers: `p(z_n|h) = N(·; φ_prior(h_{n-1}))`,
    `p(v_n|z, h) = layer(φ_out([φ_z(z_n), h_{n-1}]))`, `h_n = GRU([φ_v(v_n), φ_z(z_n)], h_{n-1})`,
    `q(z_n|v_n, h) = N(·; φ_q([φ_v(v_n), h_{n-1}]))`.

    Source: Chung et al., "A Recurrent Latent Variable Model for Sequential Data", NIPS 2015.
    Departures: a GRU for their LSTM; one ReLU layer in each φ.

    Args:
        visible_dim: V, units of a frame.
        latent_dim: Z, latents of a frame.
        recurrent_dim: size of the state h.
        feature_dim: size of the layers φ.
        visible: kind of the frames, "binary" or "continuous".

    Example:
        >>> model = VRNN(visible_dim=6, latent_dim=2, recurrent_dim=5, feature_dim=4)
        >>> model.generate(frames_to_make=3, batch=2).shape
        torch.Size([2, 3, 6])
    """

    name = "vrnn"

    def __init__(
        self,
        visible_dim: int = 88,
        latent_dim: int = 100,
        recurrent_dim: int = 300,
        feature_dim: int = 200,
        visible: str = "binary",
    ) -> None:
        super().__init__(visible_dim, visible, feature_dim)

        def features(size: int) -> nn.Sequential:
            return nn.Sequential(nn.Linear(size, feature_dim), nn.ReLU())

        self.of_frame, self.of_latent = features(visible_dim), features(latent_dim)
        self.to_prior = nn.Sequential(
            features(recurrent_dim), GaussianHead(feature_dim, latent_dim)
        )
        self.to_posterior = nn.Sequential(
            features(feature_dim + recurrent_dim), GaussianHead(feature_dim, latent_dim)
        )
        self.to_context = features(feature_dim + recurrent_dim)
        self.cell = nn.GRUCell(2 * feature_dim, recurrent_dim)
        self.initial = nn.Parameter(torch.zeros(recurrent_dim))

    def past(
        self,
        frames: Tensor,
        lengths: Tensor | None = None,
        memory: State | None = None,
        online: bool = False,
    ) -> tuple[Past, State]:
        own = self.of_frame(frames)
        return Past(frames[..., :0], own, own), ()

    def start(self, shape: tuple[int, ...]) -> State:
        return (self.initial.expand(*shape, -1),)

    def prior(self, state: State, before: Tensor) -> Gaussian:
        prior: Gaussian = self.to_prior(state[0])
        return prior

    def posterior(self, state: State, before: Tensor, seen: Tensor, prior: Gaussian) -> Gaussian:
        posterior: Gaussian = self.to_posterior(torch.cat([seen, state[0]], -1))
        return posterior

    def emit(self, state: State, z: Tensor, before: Tensor) -> tuple[Tensor, State]:
        of_latent = self.of_latent(z)
        return self.to_context(torch.cat([of_latent, state[0]], -1)), (state[0], of_latent)

    def advance(self, state: State, z: Tensor, own: Tensor) -> State:
        recurrent, of_latent = state
        inputs = torch.cat([own, of_latent], -1)
        after = self.cell(inputs.flatten(0, -2), recurrent.flatten(0, -2))
        return (after.view(recurrent.shape),)
