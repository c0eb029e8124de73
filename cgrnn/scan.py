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

from cgrnn import scan_cpu, scan_cuda
from cgrnn.arithmetic import product_dtype
from cgrnn.layers.conditional import LatentDrive
from cgrnn.scan_cpu import transposed

State = tuple[Tensor, ...]
"""State of the recurrence: `(u,)`, and for an LSTM `(u, c)`, each `(batch, R)`."""


class GRU:
    """`r, z = σ(·)`, `n = tanh(a_n + r y_n)`, `u' = n + z (u - n)`, with `y = W_hh u + b_hh`."""

    gates, kept = 3, 1

    @staticmethod
    def forward(gate: Tensor, kept: Tensor, state: State, recurrent: Tensor) -> State:
        """Turn `gate`, the input's share of `a`, into gates; return the next state."""
        (u,) = state
        size = u.shape[-1]
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
    def to_recurrent(gate: Tensor, kept: Tensor, units: int) -> list[Tensor]:
        """Gradients of `y`, those of one unit after the other along the dimension `units`."""
        return [gate.narrow(units, 0, 2 * kept.shape[units]), kept]


class LSTM:
    """`i, f, o = σ(·)`, `g = tanh(·)`, `c' = f c + i g`, `u' = o tanh(c')`; keeps `c`."""

    gates, kept = 4, 1

    @staticmethod
    def forward(gate: Tensor, kept: Tensor, state: State, recurrent: Tensor) -> State:
        _, memory = state
        kept.copy_(memory)
        entry, forget, cell, leave = gate.add_(recurrent).chunk(4, -1)
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
    def to_recurrent(gate: Tensor, kept: Tensor, units: int) -> list[Tensor]:
        return [gate]


class Tanh:
    """`u' = tanh(a + W_hh u + b_hh)`."""

    gates, kept = 1, 0

    @staticmethod
    def forward(gate: Tensor, kept: Tensor, state: State, recurrent: Tensor) -> State:
        return (gate.add_(recurrent).tanh_().clone(),)

    @staticmethod
    def backward(gate: Tensor, kept: Tensor, u: Tensor, grad: State) -> State:
        gate.copy_(grad[0] * (1 - gate * gate))
        return (torch.zeros_like(grad[0]),)

    @staticmethod
    def to_recurrent(gate: Tensor, kept: Tensor, units: int) -> list[Tensor]:
        return [gate]


class Weights(NamedTuple):
    """What the loop multiplies by at every step, all of the dtype that products are made in.

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
    """What the forward loop leaves to the backward loop, time first, of the weights' dtype.

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
    state: State,
    tape: Tape,
) -> State:
    """Fill the tape over time; return the last state, which keeps the dtype that it has.

    Args:
        cell: `GRU`, `LSTM` or `Tanh`.
        weights: of the cell and of the spikes.
        logits, slabs, uniforms: as in `LatentDrive`, `(N, B, H)` with any strides; `uniforms` None
            for expected spikes.
        state: before the first frame.
        tape: contiguous, with `gates` and `contexts[0]` as `Tape` says.
    """
    gates, kept, contexts, spikes, latents = tape
    if scan_cuda.usable(cell, weights, tape, uniforms is not None):
        scan_cuda.forward_loop(weights, logits, slabs, uniforms, tape)
        return (contexts[-1],)
    if scan_cpu.usable(cell, tape):
        return scan_cpu.forward_loop(weights, logits, slabs, uniforms, state, tape)
    for n in range(len(gates)):
        u = contexts[n]
        spike = (u @ weights.spike.t()).add(logits[n]).sigmoid_()
        if uniforms is not None:
            torch.lt(uniforms[n], spike, out=spike)
        spikes[n] = spike
        latent = torch.mul(spike, slabs[n], out=latents[n])
        recurrent = torch.addmm(weights.bias, u, weights.recurrent.t())
        values, keeps = gates[n].to(spike.dtype), kept[n].to(spike.dtype)
        values += latent @ weights.latent.t()
        state = cell.forward(values, keeps, state, recurrent)
        contexts[n + 1] = state[0]
        if values.dtype != gates.dtype:
            gates[n], kept[n] = values, keeps
    return state


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
        d_memory: gradients of what the last state holds beside `u_N`.
        d_latents: `(N, B, H)`, filled where `d_logits` is given; drawn latents are left to one
            product after the loop.
        d_logits: `(N, B, H)` for expected spikes, whose gradient goes back to the context; None for
            drawn ones, which carry none.
    """
    if scan_cuda.usable(cell, weights, tape, d_logits is None):
        return (
            scan_cuda.backward_loop(cell, weights, slabs, tape, d_contexts, d_latents, d_logits),
        )
    if scan_cpu.usable(cell, tape):
        return scan_cpu.backward_loop(weights, slabs, tape, d_contexts, d_latents, d_logits)
    gates, kept, contexts, spikes, _ = tape
    dtype = slabs.dtype
    grad: State = (torch.zeros_like(contexts[0], dtype=dtype), *d_memory)
    for n in reversed(range(len(gates))):
        grad = (grad[0] + d_contexts[n], *grad[1:])
        values, keeps = gates[n].to(dtype), kept[n].to(dtype)
        du, *rest = cell.backward(values, keeps, contexts[n], grad)
        if values.dtype != gates.dtype:
            gates[n], kept[n] = values, keeps
        parts = cell.to_recurrent(gates[n], kept[n], 1)
        rows = weights.recurrent.split([part.shape[1] for part in parts])
        for part, weight in zip(parts, rows, strict=True):
            du += part @ weight
        if d_logits is not None:
            torch.mm(gates[n], weights.latent, out=d_latents[n])
            slope = spikes[n] * (1 - spikes[n])
            torch.mul(slope * slabs[n], d_latents[n], out=d_logits[n])
            du += d_logits[n] @ weights.spike
        grad = (du, *rest)
    return grad


class LatentScan(torch.autograd.Function):
    """Contexts before every frame of a recurrence fed by frames and by its own latents.

    Inputs, time first: `features` `(N, B, I)` or None; `drive` its logits, slabs and uniforms (or
    None); the weights of the cell as torch names them, the columns of `weight_ih` for the features
    before those for the latents; U₂; and the state before the first frame. No gradient passes
    through a drawn spike. Outputs: `u_0 … u_{N-1}` and the last state.

    Where products are rounded (`cgrnn.arithmetic`), what enters them and what is kept for the
    backward pass is bfloat16; the state, and all within a step, stays float32.
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
        dtype = product_dtype(logits)
        weight_ih, bias_ih, weight_hh, bias_hh, u2 = (
            weight.to(dtype) for weight in (weight_ih, bias_ih, weight_hh, bias_hh, u2)
        )
        frames, batch, hidden = logits.shape
        size = weight_hh.shape[1]
        split = weight_ih.shape[1] - hidden
        gates = weight_ih.new_empty(frames, batch, cell.gates * size)
        if features is None:
            gates.copy_(bias_ih)
        else:
            features = features.to(dtype)
            torch.addmm(
                bias_ih,
                features.reshape(-1, split),
                weight_ih[:, :split].t(),
                out=gates.view(-1, cell.gates * size),
            )
        tape = Tape(
            gates,
            gates.new_empty(frames, batch, cell.kept * size),
            gates.new_empty(frames + 1, batch, size),
            gates.new_empty(frames, batch, hidden),
            gates.new_empty(frames, batch, hidden),
        )
        tape.contexts[0] = state[0]
        weights = Weights(weight_ih[:, split:].contiguous(), weight_hh, bias_hh, u2)
        last = forward_loop(cell, weights, logits, slabs, uniforms, state, tape)
        ctx.cell, ctx.sampled, ctx.done = cell, uniforms is not None, False
        ctx.save_for_backward(features, slabs, weight_ih, *weights, *tape)
        return (tape.contexts[:-1], *(part.clone() for part in last))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        if ctx.done:
            raise RuntimeError("LatentScan overwrites what it keeps: call backward once a forward")
        ctx.done = True
        features, slabs, weight_ih, *rest = ctx.saved_tensors
        cell, weights, tape = ctx.cell, Weights(*rest[:4]), Tape(*rest[4:])
        gates, kept, contexts, spikes, latents = tape
        d_latents = torch.empty_like(latents)
        d_logits = None if ctx.sampled else torch.empty_like(latents)
        d_contexts = torch.cat([grads[0][1:], grads[1].unsqueeze(0).to(grads[0].dtype)])
        du, *rest = backward_loop(
            cell, weights, slabs, tape, d_contexts, grads[2:], d_latents, d_logits
        )
        flat, past = gates.flatten(0, 1), contexts[:-1].flatten(0, 1)
        if d_logits is None:
            torch.mm(flat, weights.latent, out=d_latents.flatten(0, 1))
        split = weight_ih.shape[1] - latents.shape[-1]
        d_features, d_weight_ih = None, torch.empty_like(weight_ih)
        turned = transposed(flat)
        if features is not None:
            d_weight_ih[:, :split] = turned @ features.reshape(-1, split)
            if ctx.needs_input_grad[1]:
                d_features = (flat @ weight_ih[:, :split]).view(features.shape)
        d_weight_ih[:, split:] = turned @ latents.flatten(0, 1)
        parts = cell.to_recurrent(turned, transposed(kept.flatten(0, 1)), 0)
        d_weight_hh = torch.cat([part @ past for part in parts])
        d_bias_hh = torch.cat([part.sum(1) for part in parts])
        d_u2 = None if d_logits is None else transposed(d_logits.flatten(0, 1)) @ past
        return (
            None,
            d_features,
            d_logits,
            d_latents.mul_(spikes),
            None,
            d_weight_ih,
            turned.sum(1),
            d_weight_hh,
            d_bias_hh,
            d_u2,
            du + grads[0][0],
            *rest,
        )


def scan(
    cell: Any, rnn: Any, features: Tensor | None, drive: LatentDrive, state: State
) -> tuple[Tensor, State]:
    """Run `LatentScan` with the weights of a torch recurrent module.

    Args:
        cell: `GRU`, `LSTM` or `Tanh`.
        rnn: module of one layer whose parameters are used.
        features: `(N, B, I)`, or None where the frames do not feed the recurrence.
        drive: time first, `(N, B, H)`.
        state: before the first frame.

    Returns:
        Contexts `u_0 … u_{N-1}`, `(N, B, R)`, and the state after the last frame.
    """
    contexts, *last = LatentScan.apply(
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
    return contexts, tuple(last)
