"""Neural autoregressive densities: every unit of a frame given the units before it, one by one."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import binary_cross_entropy_with_logits

from cgrnn.layers.conditional import INITIAL_WEIGHT
from cgrnn.layers.energy import bernoulli
from cgrnn.layers.tractable import (
    TractableDensity,
    bounded_log_deviation,
    categorical,
    check_context,
    check_sizes,
    context_weight,
    gaussian,
    gaussian_log_prob,
    shifted,
)


class _Readout(torch.autograd.Function):
    """`h_d O_d` with `h_d = σ(ρ_d (c + Σ_{e<d} v_e W_e))`, for every unit `d` of the frame.

    Torch's autograd would keep the hidden units of every unit of the frame, `(V, N, H)`. Here the
    backward pass takes the units off the activations again, from the last to the first, as the
    paper does: memory is `O(N H + N V K)`, and less of it to move is also less time.

    Inputs: frames v `(N, V)`, hidden biases c `(N, H)`, weight W `(V, H)`, output weight O
    `(V, H, K)`, rescaling ρ `(V,)`. Output: `(V, N, K)`.
    """

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, v, hidden_bias, weight, output_weight, rescale
    ):
        outputs = v.new_empty(v.shape[1], v.shape[0], output_weight.shape[-1])
        a = hidden_bias.clone()
        h = torch.empty_like(a)
        for d in range(len(weight)):
            torch.mul(a, rescale[d], out=h).sigmoid_()
            torch.mm(h, output_weight[d], out=outputs[d])
            a.addcmul_(v[:, d : d + 1], weight[d])
        ctx.save_for_backward(v, a, weight, output_weight, rescale)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx, d_outputs):  # type: ignore[no-untyped-def]
        v, a_end, weight, output_weight, rescale = ctx.saved_tensors
        v_needs_it, rescale_needs_it = ctx.needs_input_grad[0], ctx.needs_input_grad[4]
        d_v, d_weight, d_output_weight, d_rescale = map(
            torch.empty_like, (v, weight, output_weight, rescale)
        )
        a, d_a = a_end.clone(), torch.zeros_like(a_end)
        h, d_h = torch.empty_like(a), torch.empty_like(a)
        for d in reversed(range(len(weight))):
            a.addcmul_(v[:, d : d + 1], weight[d], value=-1)
            # As yet d_a comes from the units after this one: the ones that have seen it.
            d_weight[d] = v[:, d] @ d_a
            if v_needs_it:
                d_v[:, d] = d_a @ weight[d]
            torch.mul(a, rescale[d], out=h).sigmoid_()
            torch.mm(h.t(), d_outputs[d], out=d_output_weight[d])
            torch.mm(d_outputs[d], output_weight[d].t(), out=d_h)
            d_h.mul_(h).addcmul_(d_h, h, value=-1)
            if rescale_needs_it:
                d_rescale[d] = (d_h * a).sum()
            d_a.addcmul_(d_h, rescale[d])
        return d_v if v_needs_it else None, d_a, d_weight, d_output_weight, d_rescale


@dataclass(frozen=True, eq=False)
class AutoregressiveDensity(TractableDensity):
    """`p(v) = Π_d p(v_d | v_<d)`, each conditional read out of hidden units that have seen `v_<d`.

    Formula:
        `a_1 = c̃`, `a_{d+1} = a_d + v_d W_d`, `h_d = σ(ρ_d a_d)`
        `p(v_d | v_<d)` has the K parameters `b̃_d + h_d O_d`

    Args:
        weight: W, row `d` what unit `d` sends to the hidden units, `(V, H)`; the last unit's goes
            nowhere.
        rescale: ρ, `(V,)`.
        output_weight: O, `(V, H, K)`.
        output_bias: b̃, `(*B, V, K)`.
        hidden_bias: c̃, `(*B, H)`.
    """

    weight: Tensor
    rescale: Tensor
    output_weight: Tensor
    output_bias: Tensor
    hidden_bias: Tensor

    @property
    def batch_shape(self) -> torch.Size:
        return self.hidden_bias.shape[:-1]

    @property
    def visible_dim(self) -> int:
        return self.weight.shape[0]

    def conditionals(self, v: Tensor) -> Tensor:
        """Parameters of `p(v_d | v_<d)`, all units of frames `(*S, *B, V)`, `(*S, *B, V, K)`."""
        self._check_frames(v)
        units, hidden, parameters = self.output_weight.shape
        read: Any = _Readout.apply
        outputs: Tensor = read(
            v.reshape(-1, units),
            self.hidden_bias.expand(*v.shape[:-1], hidden).reshape(-1, hidden),
            self.weight,
            self.output_weight,
            self.rescale,
        )
        return outputs.movedim(0, 1).reshape(*v.shape, parameters) + self.output_bias

    def log_prob(self, v: Tensor) -> Tensor:
        return self._unit_log_prob(v, self.conditionals(v)).sum(-1)

    @torch.no_grad()
    def sample(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        a = self.hidden_bias.expand(*shape, *self.hidden_bias.shape)
        units = []
        for d in range(self.visible_dim):
            outputs = torch.sigmoid(self.rescale[d] * a) @ self.output_weight[d]
            units.append(self._draw_unit(outputs + self.output_bias[..., d, :], generator))
            a = torch.addcmul(a, units[-1].unsqueeze(-1), self.weight[d])
        return torch.stack(units, -1)

    @abstractmethod
    def _unit_log_prob(self, v: Tensor, parameters: Tensor) -> Tensor:
        """`log p(v_d | v_<d)` of units `(*)` with conditionals `(*, K)`, `(*)`."""

    @abstractmethod
    def _draw_unit(self, parameters: Tensor, generator: torch.Generator | None) -> Tensor:
        """Draw units with conditionals `(*, K)`, `(*)`."""


class NADEDensity(AutoregressiveDensity):
    """NADE over a binary frame: the one parameter of a conditional is its logit.

    Formula: `p(v_d = 1 | v_<d) = σ(b̃_d + o_dᵀh_d)`, `o_d` the paper's `V_d`, and `ρ = 1`.
    Source: Larochelle & Murray, "The Neural Autoregressive Distribution Estimator", 2011.
    """

    def _unit_log_prob(self, v: Tensor, parameters: Tensor) -> Tensor:
        logits = parameters.squeeze(-1)
        return -binary_cross_entropy_with_logits(logits, v, reduction="none")

    def _draw_unit(self, parameters: Tensor, generator: torch.Generator | None) -> Tensor:
        return bernoulli(torch.sigmoid(parameters.squeeze(-1)), generator)

    def _at_temperature(self, temperature: float) -> Any:
        """The logit of every conditional over T; not `p(v)^(1/T) / Z_T`, which is no NADE."""
        return replace(
            self,
            output_weight=self.output_weight / temperature,
            output_bias=self.output_bias / temperature,
        )


class RNADEDensity(AutoregressiveDensity):
    """RNADE over a continuous frame: every conditional is a mixture of K Gaussians.

    Its `3K` parameters are the logits of the weights, the means, and the log deviations before the
    floor (`tractable.MIN_DEVIATION`), K of each.

    Formula: `p(v_d | v_<d) = Σ_k softmax(a)_k N(v_d; m_k, σ_k²)`.
    Source: Uria, Murray & Larochelle, "RNADE: The real-valued neural autoregressive
    density-estimator", 2013.
    """

    def _unit_log_prob(self, v: Tensor, parameters: Tensor) -> Tensor:
        logits, mean, raw = parameters.chunk(3, -1)
        of_component = gaussian_log_prob(v.unsqueeze(-1), mean, bounded_log_deviation(raw))
        return (logits.log_softmax(-1) + of_component).logsumexp(-1)

    def _draw_unit(self, parameters: Tensor, generator: torch.Generator | None) -> Tensor:
        logits, mean, raw = parameters.chunk(3, -1)
        component = categorical(logits, generator).unsqueeze(-1)
        mean, raw = (field.gather(-1, component).squeeze(-1) for field in (mean, raw))
        return gaussian(mean, bounded_log_deviation(raw), generator)

    def _at_temperature(self, temperature: float) -> Any:
        """Log-weights of every conditional over T, its variances, above their floor, times T; not
        `p(v)^(1/T) / Z_T`, whose conditionals are no mixtures."""

        def scaled(parameters: Tensor, wider: float = 0.0) -> Tensor:
            logits, mean, raw = parameters.chunk(3, -1)
            return torch.cat([logits / temperature, mean, raw + wider], -1)

        return replace(
            self,
            output_weight=scaled(self.output_weight),
            output_bias=scaled(self.output_bias, 0.5 * math.log(temperature)),
        )


class NADE(nn.Module):
    """NADE over a binary frame whose biases follow a context: the density of the RNN-NADE.

    `b̃ = b + U u` and `c̃ = c + U' u`; the weights are the same for all contexts. The order of the
    units is that of the frame, for piano rolls from the lowest key up. `log_prob` takes `O(V H)` a
    frame, and its gradient is not itself differentiable. There is no closed form of `E[v]`.

    Formula, shapes and source: `AutoregressiveDensity`, `NADEDensity`. For the biases:
    Boulanger-Lewandowski, Bengio & Vincent, "Modeling Temporal Dependencies in High-Dimensional
    Sequences", 2012.

    Args:
        visible_dim: V, units of a frame.
        hidden_dim: H, hidden units.
        context_dim: size of the context, 0 for an unconditional density.

    Example:
        >>> layer = NADE(visible_dim=4, hidden_dim=3, context_dim=2)
        >>> density = layer(torch.zeros(5, 7, 2))
        >>> density.batch_shape, density.log_prob(torch.zeros(6, 5, 7, 4)).shape
        (torch.Size([5, 7]), torch.Size([6, 5, 7]))
        >>> density.sample((6,)).shape
        torch.Size([6, 5, 7, 4])
    """

    def __init__(self, visible_dim: int, hidden_dim: int, context_dim: int = 0) -> None:
        super().__init__()
        check_sizes(context_dim, visible_dim=visible_dim, hidden_dim=hidden_dim)
        self.visible_dim, self.hidden_dim, self.context_dim = visible_dim, hidden_dim, context_dim
        self.W = nn.Parameter(torch.empty(visible_dim, hidden_dim))
        self.output_weight = nn.Parameter(torch.empty(visible_dim, hidden_dim))
        for weight in (self.W, self.output_weight):
            nn.init.uniform_(weight, -INITIAL_WEIGHT, INITIAL_WEIGHT)
        self.visible_bias = nn.Parameter(torch.zeros(visible_dim))
        self.hidden_bias = nn.Parameter(torch.zeros(hidden_dim))
        self.context_to_visible = context_weight(context_dim, visible_dim)
        self.context_to_hidden = context_weight(context_dim, hidden_dim)

    def forward(self, context: Tensor | None = None) -> NADEDensity:
        """The density under a context `(*B, context_dim)`, None when `context_dim` is 0."""
        check_context(context, self.context_dim)
        return NADEDensity(
            self.W,
            self.W.new_ones(self.visible_dim),
            self.output_weight.unsqueeze(-1),
            shifted(self.visible_bias, self.context_to_visible, context).unsqueeze(-1),
            shifted(self.hidden_bias, self.context_to_hidden, context),
        )


class RNADE(nn.Module):
    """RNADE over a continuous frame whose biases follow a context: the density of the RNN-RNADE.

    The context moves the hidden biases and those of all weights, means and log deviations. The
    rescaling ρ is learned; it lets the activations, sums of ever more terms, keep their scale from
    the first unit to the last. It starts at one. The means start spread evenly over (-1, 1), so
    that the components of a conditional differ: frames should have about unit deviation.
    `log_prob` takes `O(V H K)` a frame, and its gradient is not itself differentiable.

    Formula, shapes and source: `AutoregressiveDensity`, `RNADEDensity`. Departures: sigmoid units
    only, where the authors' code also has rectified ones, since bounded units keep the mean and
    deviation of every conditional bounded while a frame is drawn; deviations have a floor; the
    gradient of the means is left as it is, where theirs is multiplied by the deviation.

    Args:
        visible_dim: V, units of a frame.
        hidden_dim: H, hidden units.
        components: K, Gaussians in each conditional.
        context_dim: size of the context, 0 for an unconditional density.

    Example:
        >>> layer = RNADE(visible_dim=4, hidden_dim=3, components=2, context_dim=2)
        >>> density = layer(torch.zeros(5, 7, 2))
        >>> density.batch_shape, density.log_prob(torch.zeros(6, 5, 7, 4)).shape
        (torch.Size([5, 7]), torch.Size([6, 5, 7]))
        >>> density.sample((6,)).shape
        torch.Size([6, 5, 7, 4])
    """

    def __init__(
        self, visible_dim: int, hidden_dim: int, components: int, context_dim: int = 0
    ) -> None:
        super().__init__()
        check_sizes(
            context_dim, visible_dim=visible_dim, hidden_dim=hidden_dim, components=components
        )
        self.visible_dim, self.hidden_dim, self.context_dim = visible_dim, hidden_dim, context_dim
        self.components = components
        self.W = nn.Parameter(torch.empty(visible_dim, hidden_dim))
        self.output_weight = nn.Parameter(torch.empty(visible_dim, hidden_dim, 3 * components))
        for weight in (self.W, self.output_weight):
            nn.init.uniform_(weight, -INITIAL_WEIGHT, INITIAL_WEIGHT)
        self.rescale = nn.Parameter(torch.ones(visible_dim))
        self.output_bias = nn.Parameter(torch.zeros(visible_dim, 3 * components))
        with torch.no_grad():
            means = self.output_bias.chunk(3, -1)[1]
            means.copy_(torch.linspace(-1, 1, components + 2)[1:-1])
        self.hidden_bias = nn.Parameter(torch.zeros(hidden_dim))
        self.context_to_output = context_weight(context_dim, visible_dim * 3 * components)
        self.context_to_hidden = context_weight(context_dim, hidden_dim)

    def forward(self, context: Tensor | None = None) -> RNADEDensity:
        """The density under a context `(*B, context_dim)`, None when `context_dim` is 0."""
        check_context(context, self.context_dim)
        return RNADEDensity(
            self.W,
            self.rescale,
            self.output_weight,
            shifted(self.output_bias, self.context_to_output, context),
            shifted(self.hidden_bias, self.context_to_hidden, context),
        )
