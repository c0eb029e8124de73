"""The stochastic recurrent neural network, and the backward recurrence of its inference."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from cgrnn.models.latent import Gaussian, GaussianHead, LatentModel, Past, State
from cgrnn.transition import Transition

INFERENCES = ("smoothing", "filtering")
LEAK = 1 / 3


class Backward(nn.Module):
    """`b_n = GRU(x_n, b_{n+1})`, from the last frame of each sequence to its first.

    Args:
        features: size of x.
        recurrent_dim: size of b.
    """

    def __init__(self, features: int, recurrent_dim: int) -> None:
        super().__init__()
        self.rnn = nn.GRU(features, recurrent_dim)
        self.initial = nn.Parameter(torch.zeros(recurrent_dim))

    def forward(self, x: Tensor, lengths: Tensor | None = None, online: bool = False) -> Tensor:
        """`b_n`, `(batch, frames, ·)`.

        Args:
            x: `(batch, frames, ·)`.
            lengths: `(batch,)`, where the sequences end; None for no padding.
            online: begin anew at each frame, as if it were the last.
        """
        if online:
            return self._run(x.flatten(0, 1).unsqueeze(1)).view(*x.shape[:2], -1)
        if lengths is None:
            return self._run(x.flip(1)).flip(1)
        order = _reversal(lengths, x.shape[1])
        b = self._run(x.gather(1, order.expand_as(x)))
        return b.gather(1, order.expand_as(b))

    def _run(self, x: Tensor) -> Tensor:
        state = self.initial.expand(1, len(x), -1).contiguous()
        b: Tensor = self.rnn(x.transpose(0, 1), state)[0]
        return b.transpose(0, 1)


def _reversal(lengths: Tensor, frames: int) -> Tensor:
    """Indices `(batch, frames, 1)` that turn sequences round and leave their padding behind them.

    They are their own inverse.
    """
    place = torch.arange(frames, device=lengths.device).expand(len(lengths), -1)
    last = lengths[:, None] - 1
    return torch.where(place <= last, last - place, place).unsqueeze(-1)


class SRNN(LatentModel):
    """SRNN: a chain of latents above a deterministic recurrence over the frames.

    Formula, with `φ` a layer of leaky units cut at ±clip, and `x = φ(φ(v))`:
    `d_n = GRU(x_{n-1}, d_{n-1})`, `p(z_n|z, d) = N(·; φ_p([z_{n-1}, d_n]))`,
    `p(v_n|z, d) = layer(φ_out([z_n, d_n]))`, `q(z_n|z, v) = N(·; φ_q([z_{n-1}, a_n]))`, where
    `a_n = GRU([d_n, x_n], a_{n+1})` to smooth and `a_n = φ([d_n, x_n])` to filter. `residual` adds
    the prior's mean to the posterior's.

    The paper's SRNN (smooth), (filt), (smooth+res_q) and (filt+res_q) are its combinations.

    Source: Fraccaro et al., "Sequential Neural Models with Stochastic Layers", NIPS 2016; the
    layers before the recurrences, and the leak of a third, are those of its published code.
    Departures: mean and deviation of a Gaussian share their hidden layer; `d_1`, `z_0` and the
    last `a` are learned, not zero; deviations by a softplus.

    Args:
        visible_dim: V, units of a frame.
        latent_dim: Z, latents of a frame.
        recurrent_dim: size of d, and of a.
        mlp_dim: size of the layers φ.
        visible: kind of the frames, "binary" or "continuous".
        inference: "smoothing", by all frames, or "filtering", by those up to the latent.
        residual: let the posterior correct the prior's mean.
        clip: bound of the leaky units.

    Example:
        >>> model = SRNN(visible_dim=6, latent_dim=2, recurrent_dim=5, mlp_dim=4)
        >>> model.generate(frames_to_make=3, batch=2).shape
        torch.Size([2, 3, 6])
    """

    name = "srnn"

    def __init__(
        self,
        visible_dim: int = 88,
        latent_dim: int = 100,
        recurrent_dim: int = 300,
        mlp_dim: int = 500,
        visible: str = "binary",
        inference: str = "smoothing",
        residual: bool = True,
        clip: float = 3.0,
    ) -> None:
        super().__init__(visible_dim, visible, mlp_dim)
        if inference not in INFERENCES:
            known = ", ".join(INFERENCES)
            raise ValueError(f"inference: expected one of {known}, got {inference!r}")
        self.residual, self.clip = residual, clip
        self.of_frame = nn.ModuleList(
            [nn.Linear(visible_dim, mlp_dim), nn.Linear(mlp_dim, mlp_dim)]
        )
        self.transition = Transition(mlp_dim, 0, recurrent_dim)
        both = recurrent_dim + mlp_dim
        self.to_a: nn.Module = (
            Backward(both, recurrent_dim)
            if inference == "smoothing"
            else nn.Linear(both, recurrent_dim)
        )
        # Halves of the hidden layers: what frames alone decide is made for all frames at once.
        self.d_to_prior = nn.Linear(recurrent_dim, mlp_dim)
        self.d_to_context = nn.Linear(recurrent_dim, mlp_dim)
        self.a_to_posterior = nn.Linear(recurrent_dim, mlp_dim)
        self.z_to_prior = nn.Linear(latent_dim, mlp_dim, bias=False)
        self.z_to_context = nn.Linear(latent_dim, mlp_dim, bias=False)
        self.z_to_posterior = nn.Linear(latent_dim, mlp_dim, bias=False)
        self.prior_head = GaussianHead(mlp_dim, latent_dim)
        self.posterior_head = GaussianHead(mlp_dim, latent_dim)
        self.initial = nn.Parameter(torch.zeros(latent_dim))

    def _units(self, x: Tensor) -> Tensor:
        return leaky_relu(x, LEAK).clamp(-self.clip, self.clip)

    def past(
        self,
        frames: Tensor,
        lengths: Tensor | None = None,
        memory: State | None = None,
        online: bool = False,
    ) -> tuple[Past, State]:
        x = frames
        for layer in self.of_frame:
            x = self._units(layer(x))
        d, memory = self.transition(x, None, memory)
        both = torch.cat([d, x], -1)
        if isinstance(self.to_a, Backward):
            a = self.to_a(both, lengths, online)
        else:
            a = self._units(self.to_a(both))
        before = torch.cat([self.d_to_prior(d), self.d_to_context(d)], -1)
        return Past(before, self.a_to_posterior(a), frames[..., :0]), memory

    def start(self, shape: tuple[int, ...]) -> State:
        return (self.initial.expand(*shape, -1),)

    def prior(self, state: State, before: Tensor) -> Gaussian:
        of_d, _ = before.chunk(2, -1)
        prior: Gaussian = self.prior_head(self._units(of_d + self.z_to_prior(state[0])))
        return prior

    def posterior(self, state: State, before: Tensor, seen: Tensor, prior: Gaussian) -> Gaussian:
        hidden = self._units(seen + self.z_to_posterior(state[0]))
        posterior: Gaussian = self.posterior_head(hidden)
        if self.residual:
            return posterior._replace(mean=prior.mean + posterior.mean)
        return posterior

    def emit(self, state: State, z: Tensor, before: Tensor) -> tuple[Tensor, State]:
        _, of_d = before.chunk(2, -1)
        return self._units(of_d + self.z_to_context(z)), (z,)

    def advance(self, state: State, z: Tensor, own: Tensor) -> State:
        return state
