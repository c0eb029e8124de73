# mypy: allow-untyped-defs, allow-incomplete-defs
"""Triton kernels for a step of the scan with a GRU: products, activations and draws in one pass.

A program works on a tile of `BB` sequences by `BU` units. Tensors come as addresses in a table in
device memory and the frame as a count there, so that a captured CUDA graph serves any tensors and
any number of frames. Importing this module imports Triton.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Of frames and sequences, and of frames done; then addresses, as in `Weights` and `Tape`.
SLOTS = (
    *("frames", "batch", "done", "latent", "recurrent", "bias", "spike"),
    *("gates", "kept", "contexts", "spikes", "latents", "logits", "slabs", "uniforms"),
    *("d_contexts", "d_state", "d_latents", "d_logits"),
)
FRAMES, BATCH, DONE, LATENT, RECURRENT, BIAS, SPIKE = map(tl.constexpr, range(7))
GATES, KEPT, CONTEXTS, SPIKES, LATENTS, LOGITS, SLABS, UNIFORMS = map(tl.constexpr, range(7, 15))
D_CONTEXTS, D_STATE, D_LATENTS, D_LOGITS = map(tl.constexpr, range(15, 19))


@triton.jit
def address(table, slot: tl.constexpr, T: tl.constexpr):
    return tl.load(table + slot).to(tl.pointer_type(T))


@triton.jit
def tanh(x):
    return 2 * tl.sigmoid(2 * x) - 1  # Triton has none that every backend and the interpreter know


@triton.jit
def product(
    total,
    left,
    here,
    right,
    there,
    STEP: tl.constexpr,
    SIZE: tl.constexpr,
    BK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """`total + Σ_k left[·, k] right[k, ·]` of rows at `left` and columns at `right`."""
    for start in range(0, SIZE, BK):
        k = start + tl.arange(0, BK)
        a = tl.load(left + k[None, :], here & (k[None, :] < SIZE), 0.0)
        b = tl.load(right + k[:, None] * STEP, (k[:, None] < SIZE) & there, 0.0)
        total += tl.dot(a, b, input_precision=PRECISION, out_dtype=total.dtype)
    return total


@triton.jit
def three_products(
    first,
    second,
    third,
    left,
    here,
    right,
    there,
    GAP: tl.constexpr,
    SIZE: tl.constexpr,
    BK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Products with the rows at `right`, those `GAP` further and those as far again."""
    for start in range(0, SIZE, BK):
        k = start + tl.arange(0, BK)
        inside = (k[:, None] < SIZE) & there
        a = tl.load(left + k[None, :], here & (k[None, :] < SIZE), 0.0)
        b = tl.load(right + k[:, None], inside, 0.0)
        first += tl.dot(a, b, input_precision=PRECISION, out_dtype=first.dtype)
        b = tl.load(right + GAP + k[:, None], inside, 0.0)
        second += tl.dot(a, b, input_precision=PRECISION, out_dtype=first.dtype)
        b = tl.load(right + 2 * GAP + k[:, None], inside, 0.0)
        third += tl.dot(a, b, input_precision=PRECISION, out_dtype=first.dtype)
    return first, second, third


@triton.jit(do_not_specialize=["step"])
def draw_latents(
    table,
    step,
    H: tl.constexpr,
    R: tl.constexpr,
    SAMPLED: tl.constexpr,
    T: tl.constexpr,
    PRECISION: tl.constexpr,
    BB: tl.constexpr,
    BU: tl.constexpr,
    BK: tl.constexpr,
):
    """Spikes `σ(logits + U₂ u)`, drawn where there are uniforms, and latents: spikes ⊙ slabs."""
    n, batch = tl.load(table + DONE) + step, tl.load(table + BATCH)
    if n >= tl.load(table + FRAMES):
        return
    b = tl.program_id(0) * BB + tl.arange(0, BB)[:, None]
    unit = tl.program_id(1) * BU + tl.arange(0, BU)[None, :]
    here, there, row = b < batch, unit < H, n * batch + b
    at, inside = row * H + unit, here & there
    logits = tl.load(address(table, LOGITS, T) + at, inside, 0.0)
    context, weight = address(table, CONTEXTS, T) + row * R, address(table, SPIKE, T) + unit * R
    spikes = tl.sigmoid(product(logits, context, here, weight, there, 1, R, BK, PRECISION))
    if SAMPLED:
        uniforms = tl.load(address(table, UNIFORMS, T) + at, inside, 0.0)
        spikes = tl.where(uniforms < spikes, 1.0, 0.0).to(T)
    tl.store(address(table, SPIKES, T) + at, spikes, inside)
    slabs = tl.load(address(table, SLABS, T) + at, inside, 0.0)
    tl.store(address(table, LATENTS, T) + at, spikes * slabs, inside)


@triton.jit(do_not_specialize=["step"])
def gru_forward(
    table,
    step,
    H: tl.constexpr,
    R: tl.constexpr,
    SAMPLED: tl.constexpr,
    T: tl.constexpr,
    PRECISION: tl.constexpr,
    BB: tl.constexpr,
    BU: tl.constexpr,
    BK: tl.constexpr,
):
    """`GRU.forward` with the product of the latents: the values of the gates, and the next `u`."""
    n, batch = tl.load(table + DONE) + step, tl.load(table + BATCH)
    if n >= tl.load(table + FRAMES):
        return
    b = tl.program_id(0) * BB + tl.arange(0, BB)[:, None]
    unit = tl.program_id(1) * BU + tl.arange(0, BU)[None, :]
    here, there, row = b < batch, unit < R, n * batch + b
    inside = here & there
    gates, bias = address(table, GATES, T) + row * 3 * R + unit, address(table, BIAS, T) + unit
    reset = tl.load(gates, inside, 0.0) + tl.load(bias, there, 0.0)
    update = tl.load(gates + R, inside, 0.0) + tl.load(bias + R, there, 0.0)
    kept = tl.zeros((BB, BU), T) + tl.load(bias + 2 * R, there, 0.0)
    candidate = tl.load(gates + 2 * R, inside, 0.0)
    context, weight = address(table, CONTEXTS, T) + row * R, address(table, RECURRENT, T) + unit * R
    reset, update, kept = three_products(
        reset, update, kept, context, here, weight, there, R * R, R, BK, PRECISION
    )
    latents, weight = address(table, LATENTS, T) + row * H, address(table, LATENT, T) + unit * H
    reset, update, candidate = three_products(
        reset, update, candidate, latents, here, weight, there, R * H, H, BK, PRECISION
    )
    reset, update = tl.sigmoid(reset), tl.sigmoid(update)
    candidate = tanh(candidate + reset * kept)
    u = tl.load(context + unit, inside, 0.0)
    tl.store(gates, reset, inside)
    tl.store(gates + R, update, inside)
    tl.store(gates + 2 * R, candidate, inside)
    tl.store(address(table, KEPT, T) + row * R + unit, kept, inside)
    tl.store(context + batch * R + unit, candidate + update * (u - candidate), inside)


@triton.jit(do_not_specialize=["step"])
def spikes_backward(
    table,
    step,
    H: tl.constexpr,
    R: tl.constexpr,
    SAMPLED: tl.constexpr,
    T: tl.constexpr,
    PRECISION: tl.constexpr,
    BB: tl.constexpr,
    BU: tl.constexpr,
    BK: tl.constexpr,
):
    """Gradients of the latents and, through expected spikes, of the logits; last frame first."""
    n, batch = tl.load(table + FRAMES) - 1 - tl.load(table + DONE) - step, tl.load(table + BATCH)
    if n < 0:
        return
    b = tl.program_id(0) * BB + tl.arange(0, BB)[:, None]
    unit = tl.program_id(1) * BU + tl.arange(0, BU)[None, :]
    here, there, row = b < batch, unit < H, n * batch + b
    at, inside = row * H + unit, here & there
    gates, weight = address(table, GATES, T) + row * 3 * R, address(table, LATENT, T) + unit
    nothing = tl.zeros((BB, BU), T)
    d_latents = product(nothing, gates, here, weight, there, H, 3 * R, BK, PRECISION)
    spikes = tl.load(address(table, SPIKES, T) + at, inside, 0.0)
    slabs = tl.load(address(table, SLABS, T) + at, inside, 0.0)
    tl.store(address(table, D_LATENTS, T) + at, d_latents, inside)
    d_logits = spikes * (1 - spikes) * slabs * d_latents
    tl.store(address(table, D_LOGITS, T) + at, d_logits, inside)


@triton.jit(do_not_specialize=["step"])
def gru_backward(
    table,
    step,
    H: tl.constexpr,
    R: tl.constexpr,
    SAMPLED: tl.constexpr,
    T: tl.constexpr,
    PRECISION: tl.constexpr,
    BB: tl.constexpr,
    BU: tl.constexpr,
    BK: tl.constexpr,
):
    """From the gradients at a frame's gates that of its `u`, then `GRU.backward` one frame before.

    Leaves in `d_state` what of the gradient passes that cell by; at the first frame that of `u_0`.
    """
    n, batch = tl.load(table + FRAMES) - 1 - tl.load(table + DONE) - step, tl.load(table + BATCH)
    if n < 0:
        return
    b = tl.program_id(0) * BB + tl.arange(0, BB)[:, None]
    unit = tl.program_id(1) * BU + tl.arange(0, BU)[None, :]
    here, there, row = b < batch, unit < R, n * batch + b
    inside = here & there
    kept, weight = address(table, KEPT, T) + row * R, address(table, RECURRENT, T) + unit
    gates, state = address(table, GATES, T) + row * 3 * R, address(table, D_STATE, T) + b * R + unit
    du = tl.load(state, inside, 0.0)
    du = product(du, gates, here, weight, there, R, 2 * R, BK, PRECISION)
    du = product(du, kept, here, weight + 2 * R * R, there, R, R, BK, PRECISION)
    if not SAMPLED:
        d_logits, weight = address(table, D_LOGITS, T) + row * H, address(table, SPIKE, T) + unit
        du = product(du, d_logits, here, weight, there, R, H, BK, PRECISION)
    if n > 0:
        past = row - batch
        du += tl.load(address(table, D_CONTEXTS, T) + past * R + unit, inside, 0.0)
        a = address(table, GATES, T) + past * 3 * R + unit
        y = address(table, KEPT, T) + past * R + unit
        reset, update = tl.load(a, inside, 0.0), tl.load(a + R, inside, 0.0)
        candidate, recurrent = tl.load(a + 2 * R, inside, 0.0), tl.load(y, inside, 0.0)
        u = tl.load(address(table, CONTEXTS, T) + past * R + unit, inside, 0.0)
        direct = du * update
        d_candidate = (du - direct) * (1 - candidate * candidate)
        tl.store(a, recurrent * d_candidate * reset * (1 - reset), inside)
        tl.store(a + R, (u - candidate) * direct * (1 - update), inside)
        tl.store(a + 2 * R, d_candidate, inside)
        tl.store(y, d_candidate * reset, inside)
        du = direct
    tl.store(state, du, inside)
