"""Proposals over the frames of a batch of energy densities, for bounds on their `log Z`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from cgrnn.layers.energy import bernoulli

Rows = slice | Tensor

LATENT_DIM, HIDDEN_DIM = 8, 64
# The base's share of the draws: the least of it, and what it is before training.
LEAST_SHARE, FIRST_SHARE = 0.02, 0.05
_FIRST_LOGIT = math.log((FIRST_SHARE - LEAST_SHARE) / (1 - FIRST_SHARE))


class Proposal(Protocol):
    """A distribution `q(v, a) = q(a) q(v|a)` for each density of a batch, with an `r(a|v)`.

    This is all that `evaluation.nvil` knows of a proposal. A sequential VAE trained on the same
    music is one: `a` is its latent variable, `q(a)` its prior given the past, `q(v|a)` its decoder
    and `r(a|v)` its encoder. For a bound, `q(v, a)` must be positive wherever `exp(-F(v)) r(a|v)`
    is, and `r` must be normalised; nothing else is asked of them.
    """

    def sample(
        self, samples: int, rows: slice, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw frames and their log-ratios.

        Args:
            samples: draws for each density.
            rows: which densities of the flattened batch, `B'` of them.
            generator: source of the draws.

        Returns:
            `v` `(samples, B', V)`, and `log q(v, a) - log r(a|v)` in nats `(samples, B')`, where
            `(v, a)` is a draw from `q`.
        """
        ...


class VariationalProposal:
    """A variational autoencoder over one frame, conditioned on the density it proposes for.

    Formula, with `c` the fields of the density that the context moves, standardised over the batch:
        `q(a)   = N(0, I)`, `a` of 8 numbers
        `q(v|a) = (1 - π(a,c)) Π_j q_j(v_j | a, c) + π(a,c) base(v)`, `π > 0.02`
        `r(a|v) = N(m(v,c), diag s(v,c)²)`
    `q_j` is Bernoulli for a binary frame and Gaussian for a continuous one, and `base` is the
    density at `beta = 0`. With it the proposal has at least the tails of the base, and reaches the
    modes that a smooth decoder cannot: a continuous spike-and-slab RBM holds the base itself, as
    the state of no active spike, around a far narrower mass.

    Networks have one layer of tanh units and a linear path past it, so that means are linear far
    from the origin. They begin at zero: `q(v|a)` at `start` and the base, `r` at `N(0, I)`.

    Args:
        density: batch shape `(B,)`.
        start: independent units close to the marginals of the density.
        generator: source of the first weights.
    """

    def __init__(
        self, density: Any, start: Units, generator: torch.Generator | None = None
    ) -> None:
        self.start, self.base = start, type(start).of_base(density)
        self.conditions = _standardised(density)
        visible, sizes = density.visible_dim, (self.conditions.shape[-1], HIDDEN_DIM)
        outputs = 1 + visible * start.parameters_each
        decoder = _Network(LATENT_DIM, *sizes, outputs, generator)
        encoder = _Network(visible, *sizes, 2 * LATENT_DIM, generator)
        self.networks = nn.ModuleList([decoder, encoder]).to(self.conditions)

    @torch.no_grad()
    def sample(
        self, samples: int, rows: slice, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `Proposal.sample`."""
        conditions = self.conditions[rows]
        a = conditions.new_empty(samples, len(conditions), LATENT_DIM).normal_(generator=generator)
        units, share_logit = self._decode(a, rows)
        uniform = torch.empty_like(share_logit).uniform_(generator=generator)
        from_base = uniform < _log_shares(share_logit)[1].exp()
        others = self.base[rows].expand(samples).sample(generator)
        v = torch.where(from_base[..., None], others, units.sample(generator))
        mean, log_std = self._encode(v, rows)
        log_r = _log_normal((a - mean) / log_std.exp(), log_std)
        log_prior = _log_normal(a, torch.zeros_like(a))
        return v, self._log_likelihood(v, units, share_logit, rows) + log_prior - log_r

    def reconstruct(
        self, v: Tensor, rows: Rows, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """The two parts of the evidence lower bound of given frames, with one draw of `a`.

        The gradient passes through `a ~ r(a|v)`.

        Args:
            v: frames, `(samples, B', V)`.
            rows: their densities, `B'` of them.
            generator: source of the draws.

        Returns:
            `log q(v|a)`, and `log r(a|v) - log q(a)`, whose mean is the divergence of `r(a|v)`
            from `q(a)`, in nats, `(samples, B')` each. `log q(v, a) - log r(a|v)` is the first less
            the second.
        """
        mean, log_std = self._encode(v, rows)
        noise = torch.empty_like(mean).normal_(generator=generator)
        a = mean + noise * log_std.exp()
        divergence = _log_normal(noise, log_std) - _log_normal(a, torch.zeros_like(a))
        return self._log_likelihood(v, *self._decode(a, rows), rows), divergence

    def _log_likelihood(self, v: Tensor, units: Units, share_logit: Tensor, rows: Rows) -> Tensor:
        """`log q(v|a)`, given what `a` is decoded to."""
        own, base = _log_shares(share_logit)
        return torch.logaddexp(own + units.log_prob(v), base + self.base[rows].log_prob(v))

    def _decode(self, a: Tensor, rows: Rows) -> tuple[Units, Tensor]:
        """The independent units of `q(v|a)`, and the logit of the base's share."""
        output = self.networks[0](a, self.conditions[rows])
        return self.start[rows].moved(output[..., 1:]), output[..., 0]

    def _encode(self, v: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of `r(a|v)`."""
        output = self.networks[1](self.start[rows].standardise(v), self.conditions[rows])
        mean, log_std = output.chunk(2, -1)
        return mean, log_std


@dataclass(frozen=True, eq=False)
class BernoulliUnits:
    """Independent binary units; the logits are `(*S, B, V)`."""

    logits: Tensor
    parameters_each = 1

    @classmethod
    def of_base(cls, density: Any) -> BernoulliUnits:
        return cls(density.visible_bias.detach())

    @classmethod
    def of_moments(cls, mean: Tensor, variance: Tensor) -> BernoulliUnits:
        return cls(torch.logit(mean, eps=1e-6))

    def __getitem__(self, rows: Rows) -> BernoulliUnits:
        return BernoulliUnits(self.logits[rows])

    def expand(self, samples: int) -> BernoulliUnits:
        return BernoulliUnits(self.logits.expand(samples, *self.logits.shape))

    def moved(self, output: Tensor) -> BernoulliUnits:
        """The units with a network's output added to their parameters."""
        return BernoulliUnits(self.logits + output)

    def standardise(self, v: Tensor) -> Tensor:
        return v - torch.sigmoid(self.logits)

    def log_prob(self, v: Tensor) -> Tensor:
        return (v * self.logits - softplus(self.logits)).sum(-1)

    def sample(self, generator: torch.Generator | None) -> Tensor:
        return bernoulli(torch.sigmoid(self.logits), generator)


@dataclass(frozen=True, eq=False)
class GaussianUnits:
    """Independent Gaussian units; means and log standard deviations are `(*S, B, V)`."""

    mean: Tensor
    log_std: Tensor
    parameters_each = 2

    @classmethod
    def of_base(cls, density: Any) -> GaussianUnits:
        precision = density.precision_diag.detach()
        return cls(density.visible_bias.detach() / precision, -0.5 * precision.log())

    @classmethod
    def of_moments(cls, mean: Tensor, variance: Tensor) -> GaussianUnits:
        return cls(mean, 0.5 * variance.log())

    def __getitem__(self, rows: Rows) -> GaussianUnits:
        return GaussianUnits(self.mean[rows], self.log_std[rows])

    def expand(self, samples: int) -> GaussianUnits:
        shape = (samples, *self.mean.shape)
        return GaussianUnits(self.mean.expand(shape), self.log_std.expand(shape))

    def moved(self, output: Tensor) -> GaussianUnits:
        """The units with a network's output, in standard deviations, added to their parameters."""
        shift, log_scale = output.chunk(2, -1)
        return GaussianUnits(self.mean + self.log_std.exp() * shift, self.log_std + log_scale)

    def standardise(self, v: Tensor) -> Tensor:
        return (v - self.mean) / self.log_std.exp()

    def log_prob(self, v: Tensor) -> Tensor:
        return _log_normal(self.standardise(v), self.log_std)

    def sample(self, generator: torch.Generator | None) -> Tensor:
        noise = self.mean.new_empty(self.mean.shape).normal_(generator=generator)
        return self.mean + noise * self.log_std.exp()


Units = BernoulliUnits | GaussianUnits


class _Network(nn.Module):
    """`tanh(x A + c C + b) M + x L + d`: a hidden layer, and a linear path past it.

    `M`, `L`, `b` and `d` begin at zero. Parameters are drawn here and not by `nn.Linear`, which
    takes no generator.
    """

    def __init__(
        self,
        inputs: int,
        conditions: int,
        hidden: int,
        outputs: int,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        device = generator.device if generator else None

        def drawn(rows: int) -> nn.Parameter:
            weight = torch.empty(rows, hidden, device=device).normal_(generator=generator)
            return nn.Parameter(weight * max(1, rows) ** -0.5)

        self.from_input, self.from_condition = drawn(inputs), drawn(conditions)
        self.hidden_bias = nn.Parameter(torch.zeros(hidden))
        self.to_output = nn.Parameter(torch.zeros(hidden, outputs))
        self.past = nn.Parameter(torch.zeros(inputs, outputs))
        self.output_bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        given = condition @ self.from_condition + self.hidden_bias
        hidden = torch.tanh(x @ self.from_input + given)
        return hidden @ self.to_output + x @ self.past + self.output_bias


def _standardised(density: Any) -> Tensor:
    """The contextual fields of a flat batch, less those that do not vary over it, `(B, C)`."""
    fields = torch.cat([getattr(density, name).detach() for name in density.contextual], -1)
    deviation = fields.std(0, correction=0)
    varies = deviation > 1e-6 * fields.abs().amax(0)
    return ((fields - fields.mean(0)) / deviation)[:, varies]


def _log_shares(logit: Tensor) -> tuple[Tensor, Tensor]:
    """`log(1 - π)` and `log π` for `π = 0.02 + 0.98 σ(logit)`, with 0.05 for a logit of 0."""
    logit, free = logit + _FIRST_LOGIT, math.log1p(-LEAST_SHARE)
    least = torch.full_like(logit, math.log(LEAST_SHARE))
    return free + logsigmoid(-logit), torch.logaddexp(least, free + logsigmoid(logit))


def _log_normal(standardised: Tensor, log_std: Tensor) -> Tensor:
    return -(0.5 * standardised**2 + log_std + 0.5 * math.log(2 * math.pi)).sum(-1)
