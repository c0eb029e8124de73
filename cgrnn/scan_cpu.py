"""The scan's loops over time on a CPU: between the products, one compiled pass a step.

Torch makes the products. What lies between them is a dozen small tensor operations a step, as dear
as the products themselves once those are of bfloat16 numbers; `scan.cpp` does it in one pass of
the cache. Without a compiler torch's loop does the work.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from samplers import native

if TYPE_CHECKING:
    from cgrnn.scan import State, Tape, Weights

_SOURCE = Path(__file__).parent / "native" / "scan.cpp"
_NAMES = {torch.bfloat16: "bfloat16", torch.float32: "float32", torch.float64: "float64"}
_STRIDED = ("logits", "slabs", "uniforms", "d_contexts")
_enabled = True


class _Scan(ctypes.Structure):
    """`Scan` of `scan.cpp`."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("threads", "batch", "hidden", "size")),
        *((name, ctypes.c_void_p) for name in ("gates", "kept", "contexts", "spikes", "latents")),
        *((name, ctypes.c_void_p) for name in _STRIDED),
        *((f"{name}_by", ctypes.c_int64 * 2) for name in _STRIDED),
        *((name, ctypes.c_void_p) for name in ("state", "recurrent", "input", "back", "bias")),
        *((name, ctypes.c_void_p) for name in ("d_latents", "d_logits")),
    ]


@contextmanager
def disabled() -> Iterator[None]:
    """Leave the work to torch's loop within: what the compiled passes are measured against."""
    global _enabled
    before, _enabled = _enabled, False
    try:
        yield
    finally:
        _enabled = before


def usable(cell: Any, tape: Tape) -> bool:
    """Whether the loops below do this scan: a GRU on the CPU, where there is a compiler."""
    if not _enabled or tape.gates.device.type != "cpu" or cell.__name__ != "GRU":
        return False
    return tape.gates.dtype in _NAMES and native.library(_SOURCE) is not None


def forward_loop(
    weights: Weights,
    logits: Tensor,
    slabs: Tensor,
    uniforms: Tensor | None,
    state: State,
    tape: Tape,
) -> State:
    """`cgrnn.scan.forward_loop` of a GRU."""
    gates, _, contexts, _, latents = tape
    frames, batch, units = gates.shape
    # What is multiplied by `u` at once, and both weights as the products read them.
    from_context = torch.cat([weights.spike, weights.recurrent]).t().contiguous()
    from_latent = weights.latent.t().contiguous()
    recurrent = gates.new_empty(batch, from_context.shape[1])
    given = gates.new_empty(batch, units)
    u = state[0].clone(memory_format=torch.contiguous_format)
    outside = {"logits": logits, "slabs": slabs, "uniforms": uniforms}
    step = {"state": u, "recurrent": recurrent, "input": given, "bias": weights.bias.contiguous()}
    passes = _Passes(tape, weights, outside, step)
    for n in range(frames):
        torch.mm(contexts[n], from_context, out=recurrent)
        passes.run("draw", n)
        torch.mm(latents[n], from_latent, out=given)
        passes.run("step", n)
    return (u,)


def backward_loop(
    weights: Weights,
    slabs: Tensor,
    tape: Tape,
    d_contexts: Tensor,
    d_latents: Tensor,
    d_logits: Tensor | None,
) -> State:
    """`cgrnn.scan.backward_loop` of a GRU."""
    gates, _, contexts, *_ = tape
    frames, batch = gates.shape[:2]
    to_context = weights.recurrent
    if d_logits is not None:
        to_context = torch.cat([to_context, weights.spike])
    du = slabs.new_zeros(batch, contexts.shape[-1])
    product, back = gates.new_zeros(du.shape), gates.new_empty(batch, len(to_context))
    outside = {"slabs": slabs, "d_contexts": d_contexts.to(gates.dtype)}
    step = {"state": du, "recurrent": product, "back": back}
    spikes = {"d_latents": d_latents, "d_logits": d_logits}
    passes = _Passes(tape, weights, outside, step | spikes)
    for n in reversed(range(frames)):
        passes.run("step_back", n)
        if d_logits is not None:
            torch.mm(gates[n], weights.latent, out=d_latents[n])
            passes.run("draw_back", n)
        torch.mm(back, to_context, out=product)
    return (du + product,)


def transposed(x: Tensor) -> Tensor:
    """`xᵀ` as products of bfloat16 numbers read it, `(columns, rows)`; others are only viewed."""
    library: Any = native.library(_SOURCE) if _enabled and x.device.type == "cpu" else None
    if library is None or x.dtype != torch.bfloat16:
        return x.t()
    x = x.contiguous()
    result = x.new_empty(x.shape[::-1])
    sizes = (torch.get_num_threads(), *x.shape)
    addresses = (ctypes.c_void_p(part.data_ptr()) for part in (x, result))
    library.transpose_16(*map(ctypes.c_int64, sizes), *addresses)
    return result


class _Passes:
    """The compiled passes over a scan, with what they read and write.

    Args:
        tape, weights: of the scan.
        outside: tensors `(N, B, ·)` of any strides.
        step: contiguous tensors of one step, and of expected spikes.
    """

    def __init__(
        self,
        tape: Tape,
        weights: Weights,
        outside: Mapping[str, Tensor | None],
        step: Mapping[str, Tensor | None],
    ) -> None:
        given = {name: part for name, part in outside.items() if part is not None}
        # The units of a sequence must lie side by side.
        given = {name: x if x.stride(-1) == 1 else x.contiguous() for name, x in given.items()}
        named = {**tape._asdict(), **step, **given}
        self.tensors = {name: part for name, part in named.items() if part is not None}
        self.scan = _Scan(
            threads=torch.get_num_threads(),
            batch=tape.gates.shape[1],
            hidden=weights.spike.shape[0],
            size=weights.spike.shape[1],
            **{name: part.data_ptr() for name, part in self.tensors.items()},
        )
        for name, part in given.items():
            setattr(self.scan, f"{name}_by", (ctypes.c_int64 * 2)(*part.stride()[:2]))
        self.kind, self.library = _NAMES[tape.gates.dtype], native.library(_SOURCE)

    def run(self, name: str, frame: int) -> None:
        function = getattr(self.library, f"{name}_{self.kind}")
        function(ctypes.byref(self.scan), ctypes.c_int64(frame))
