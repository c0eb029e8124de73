"""The loop over time of a recurrence that its own latents feed, with a backward of its own.

Torch's autograd would keep a dozen tensors a step and add a full-size weight gradient at each. Here
the forward pass keeps what each cell needs in place of its pre-activations, the backward pass
overwrites that with gradients, and the weights' gradients are a few large products at the end.
`tests/test_transition.py` holds it to the same loop written plainly.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from cgrnn.layers.conditional import LatentDrive

State = tuple[Tensor, ...]
"""State of the recurrence: `(u,)`, and for an LSTM `(u, c)`, each `(batch, R)`."""


class GRU:
    """`r, z = σ(·)`, `n = tanh(a_n + r y_n)`, `u' = n + z (u - n)`, with `y = W_hh u + b_hh`."""

    gates, kept = 3, 1

    @staticmethod
    def forward(gate: Tensor, kept: Tensor, state: State, weight: Tensor, bias: Tensor) -> State:
        (u,) = state
        size = u.shape[-1]
        recurrent = torch.addmm(bias, u, weight.t())
        opening = gate[:, : 2 * size].add_(recurrent[:, : 2 * size]).sigmoid_()
        kept.copy_(recurrent[:, 2 * size :])
        candidate = gate[:, 2 * size :].addcmul_(opening[:, :size], kept).tanh_()
        return (torch.lerp(candidate, u, opening[:, size:]),)

    @staticmethod
    def backward(gate: Tensor, kept: Tensor, u: Tensor, grad: State) -> State:
        """Turn `gate` and `kept` into gradients of `a` and of `y_n`; return those of the state."""
        (du,) = grad
        reset, update, candidate = gate.chunk(3, -1)
        direct = du * update
        d_update = (u - candidate).mul_(direct).mul_(1 - update)
        d_candidate = (du - direct).mul_(1 - candidate * candidate)
        d_reset = (kept * d_candidate).mul_(reset).mul_(1 - reset)
        torch.mul(d_candidate, reset, out=kept)
        reset.copy_(d_reset)
        update.copy_(d_update)
        candidate.copy_(d_candidate)
        return (direct,)

    @staticmethod
    def to_recurrent(gate: Tensor, kept: Tensor) -> list[tuple[slice, Tensor]]:
        """Gradients of `y` by the rows of `W_hh` that they belong to."""
        size = kept.shape[-1]
        return [(slice(0, 2 * size), gate[..., : 2 * size]), (slice(2 * size, None), kept)]


class LSTM:
    """`i, f, o = σ(·)`, `g = tanh(·)`, `c' = f c + i g`, `u' = o tanh(c')`; keeps `c`."""

    gates, kept = 4, 1

    @staticmethod
    def forward(gate: Tensor, kept: Tensor, state: State, weight: Tensor, bias: Tensor) -> State:
        u, memory = state
        kept.copy_(memory)
        entry, forget, cell, leave = gate.add_(bias).addmm_(u, weight.t()).chunk(4, -1)
        for opening in (entry, forget, leave):
            opening.sigmoid_()
        memory = torch.addcmul(forget * memory, entry, cell.tanh_())
        return leave * memory.tanh(), memory

    @staticmethod
    def backward(gate: Tensor, kept: Tensor, u: Tensor, grad: State) -> State:
        du, dc = grad
        entry, forget, cell, leave = gate.chunk(4, -1)
        squashed = torch.addcmul(forget * kept, entry, cell).tanh_()
        dc = dc + du * leave * (1 - squashed * squashed)
        d_leave = du * squashed * leave * (1 - leave)
        d_entry, d_cell = dc * cell * entry * (1 - entry), dc * entry * (1 - cell * cell)
        to_memory, d_forget = dc * forget, dc * kept * forget * (1 - forget)
        for part, value in zip(
            (entry, forget, cell, leave), (d_entry, d_forget, d_cell, d_leave), strict=True
        ):
            part.copy_(value)
        return torch.zeros_like(du), to_memory

    @staticmethod
    def to_recurrent(gate: Tensor, kept: Tensor) -> list[tuple[slice, Tensor]]:
        return [(slice(None), gate)]


class Tanh:
    """`u' = tanh(a + W_hh u + b_hh)`."""

    gates, kept = 1, 0

    @staticmethod
    def forward(gate: Tensor, kept: Tensor, state: State, weight: Tensor, bias: Tensor) -> State:
        return (gate.add_(bias).addmm_(state[0], weight.t()).tanh_().clone(),)

    @staticmethod
    def backward(gate: Tensor, kept: Tensor, u: Tensor, grad: State) -> State:
        gate.copy_(grad[0] * (1 - gate * gate))
        return (torch.zeros_like(grad[0]),)

    @staticmethod
    def to_recurrent(gate: Tensor, kept: Tensor) -> list[tuple[slice, Tensor]]:
        return [(slice(None), gate)]


class Weights(NamedTuple):
    """What the loop multiplies by at every step.

    Attributes:
        latent: the columns of `weight_ih` for the latents, `(G, H)` with `G = gates · R`.
        recurrent: `weight_hh`, `(G, R)`.
        bias: `bias_hh`, `(G,)`.
        spike: U₂, `(H, R)`.
    """

    latent: Tensor
    recurrent: Tensor
    bias: Tensor
    spike: Tensor


class Tape(NamedTuple):
    """What the forward loop leaves to the backward loop, time first.

    Attributes:
        gates: `(N, B, G)`: before, the share of the features and `bias_ih`; after the forward loop
            the values of the gates; after the backward loop the gradients of pre-activations `a`.
        kept: `(N, B, kept · R)`: what the cell keeps; afterwards gradients, as the cell says.
        contexts: `(N + 1, B, R)`: `u_0 … u_N`; the first is there before.
        spikes, latents: `(N, B, H)`.
    """

    gates: Tensor
    kept: Tensor
    contexts: Tensor
    spikes: Tensor
    latents: Tensor


def forward_loop(
    cell: Any,
    weights: Weights,
    logits: Tensor,
    slabs: Tensor,
    uniforms: Tensor | None,
    memory: State,
    tape: Tape,
) -> State:
    """Fill the tape over time; return what else than `u` the last state holds.

    Args:
        cell: `GRU`, `LSTM` or `Tanh`.
        weights: of the cell and of the spikes.
        logits, slabs, uniforms: as in `LatentDrive`, `(N, B, H)`; `uniforms` None for expected
            spikes.
        memory: the state before the first frame without its `u`.
        tape: contiguous, with `gates` and `contexts[0]` as `Tape` says.
    """
    gates, kept, contexts, spikes, latents = tape
    for n in range(len(gates)):
        torch.addmm(logits[n], contexts[n], weights.spike.t(), out=spikes[n]).sigmoid_()
        if uniforms is not None:
            torch.lt(uniforms[n], spikes[n], out=spikes[n])
        torch.mul(spikes[n], slabs[n], out=latents[n])
        gates[n].addmm_(latents[n], weights.latent.t())
        state = (contexts[n], *memory)
        u, *rest = cell.forward(gates[n], kept[n], state, weights.recurrent, weights.bias)
        contexts[n + 1], memory = u, tuple(rest)
    return memory


def backward_loop(
    cell: Any,
    weights: Weights,
    slabs: Tensor,
    tape: Tape,
    d_contexts: Tensor,
    d_memory: State,
    d_latents: Tensor,
    d_logits: Tensor | None,
) -> State:
    """Turn the tape's gates into gradients, fill `d_logits`, return those of the first state.

    Args:
        cell, weights, slabs, tape: those of the forward loop.
        d_contexts: gradients of `u_1 … u_N` from outside, `(N, B, R)`.
        d_memory: gradients of what the forward loop returned.
        d_latents: `(N, B, H)`, filled where `d_logits` is given; drawn latents are left to one
            product after the loop.
        d_logits: `(N, B, H)` for expected spikes, whose gradient goes back to the context; None for
            drawn ones, which carry none.
    """
    gates, kept, contexts, spikes, _ = tape
    grad: State = (torch.zeros_like(contexts[0]), *d_memory)
    for n in reversed(range(len(gates))):
        grad = (grad[0] + d_contexts[n], *grad[1:])
        du, *rest = cell.backward(gates[n], kept[n], contexts[n], grad)
        for rows, part in cell.to_recurrent(gates[n], kept[n]):
            du = du.addmm_(part, weights.recurrent[rows])
        if d_logits is not None:
            torch.mm(gates[n], weights.latent, out=d_latents[n])
            slope = spikes[n] * (1 - spikes[n])
            torch.mul(slope.mul_(slabs[n]), d_latents[n], out=d_logits[n])
            du = du.addmm_(d_logits[n], weights.spike)
        grad = (du, *rest)
    return grad


class LatentScan(torch.autograd.Function):
    """Contexts after every frame of a recurrence fed by frames and by its own latents.

    Inputs, time first: `features` `(N, B, I)` or None; `drive` its logits, slabs and uniforms (or
    None); the weights of the cell as torch names them, the columns of `weight_ih` for the features
    before those for the latents; U₂; and the state before the first frame. No gradient passes
    through a drawn spike.
    """

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx,
        cell,
        features,
        logits,
        slabs,
        uniforms,
        weight_ih,
        bias_ih,
        weight_hh,
        bias_hh,
        u2,
        *state,
    ):
        frames, batch, hidden = logits.shape
        size = weight_hh.shape[1]
        split = weight_ih.shape[1] - hidden
        gates = logits.new_empty(frames, batch, cell.gates * size)
        if features is None:
            gates.copy_(bias_ih)
        else:
            torch.addmm(
                bias_ih,
                features.reshape(-1, split),
                weight_ih[:, :split].t(),
                out=gates.view(-1, cell.gates * size),
            )
        tape = Tape(
            gates,
            logits.new_empty(frames, batch, cell.kept * size),
            logits.new_empty(frames + 1, batch, size),
            *logits.new_empty(2, frames, batch, hidden),
        )
        tape.contexts[0] = state[0]
        weights = Weights(weight_ih[:, split:], weight_hh, bias_hh, u2)
        memory = forward_loop(cell, weights, logits, slabs, uniforms, state[1:], tape)
        ctx.cell, ctx.split, ctx.sampled = cell, split, uniforms is not None
        ctx.has_features, ctx.done = features is not None, False
        ctx.save_for_backward(
            features if features is not None else gates.new_empty(0),
            slabs,
            weight_ih,
            weight_hh,
            bias_hh,
            u2,
            *tape,
        )
        return (tape.contexts[1:], *(part.clone() for part in memory))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        if ctx.done:
            raise RuntimeError("LatentScan overwrites what it keeps: call backward once a forward")
        ctx.done = True
        features, slabs, weight_ih, weight_hh, bias_hh, u2, *rest = ctx.saved_tensors
        cell, split, tape = ctx.cell, ctx.split, Tape(*rest)
        gates, kept, contexts, spikes, latents = tape
        weights = Weights(weight_ih[:, split:], weight_hh, bias_hh, u2)
        d_latents = torch.empty_like(latents)
        d_logits = None if ctx.sampled else torch.empty_like(latents)
        grad = backward_loop(cell, weights, slabs, tape, grads[0], grads[1:], d_latents, d_logits)
        flat, past = gates.flatten(0, 1), contexts[:-1].flatten(0, 1)
        if d_logits is None:
            torch.mm(flat, weights.latent, out=d_latents.flatten(0, 1))
        d_features, d_weight_ih = None, torch.empty_like(weight_ih)
        if ctx.has_features:
            d_weight_ih[:, :split] = flat.t() @ features.reshape(-1, split)
            if ctx.needs_input_grad[1]:
                d_features = (flat @ weight_ih[:, :split]).view(features.shape)
        d_weight_ih[:, split:] = flat.t() @ latents.flatten(0, 1)
        parts = [part.flatten(0, 1) for _, part in cell.to_recurrent(gates, kept)]
        d_weight_hh = torch.cat([part.t() @ past for part in parts])
        d_bias_hh = torch.cat([part.sum(0) for part in parts])
        d_u2 = None if d_logits is None else d_logits.flatten(0, 1).t() @ past
        return (
            None,
            d_features,
            d_logits,
            d_latents.mul_(spikes),
            None,
            d_weight_ih,
            flat.sum(0),
            d_weight_hh,
            d_bias_hh,
            d_u2,
            *grad,
        )


def scan(
    cell: Any, rnn: Any, features: Tensor | None, drive: LatentDrive, state: State
) -> tuple[Tensor, State]:
    """Run `LatentScan` with the weights of a torch recurrent module.

    Args:
        cell: `GRU`, `LSTM` or `Tanh`.
        rnn: module of one layer whose parameters are used.
        features: `(N, B, I)`, or None where the frames do not feed the recurrence.
        drive: time first, as `ConditionalRBM.drive` gives it, `(N, B, H)`.
        state: before the first frame.

    Returns:
        Contexts `u_1 … u_N`, `(N, B, R)`, and the state after the last frame.
    """
    contexts, *memory = LatentScan.apply(
        cell,
        features,
        drive.logits,
        drive.slabs,
        drive.uniforms,
        rnn.weight_ih_l0,
        rnn.bias_ih_l0,
        rnn.weight_hh_l0,
        rnn.bias_hh_l0,
        drive.weight,
        *state,
    )
    return contexts, (contexts[-1], *memory)
