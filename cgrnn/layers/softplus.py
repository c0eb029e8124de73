"""`Σ_i softplus(c_i + m_i x_i + k_i x_i²)` in one compiled pass, and one for its gradients.

The hidden units' share of a spike-and-slab RBM's free energy. Tensor by tensor it takes some twenty
passes over as many numbers as there are frames times hidden units, and they are most of what
contrastive divergence costs.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from samplers import native

_SOURCE = Path(__file__).parents[1] / "native" / "softplus.cpp"
_NAMES = {torch.float32: "float32", torch.float64: "float64"}


def usable(x: Tensor, constant: Tensor) -> bool:
    """Whether `quadratic_sum` takes these: on the CPU, of one dtype, and with a compiler there.

    The last dimensions of `x` must be those of `constant`.
    """
    return (
        x.device.type == "cpu"
        and x.dtype == constant.dtype
        and x.dtype in _NAMES
        and constant.numel() > 0
        and x.shape[x.dim() - constant.dim() :] == constant.shape
        and native.library(_SOURCE) is not None
    )


def quadratic_sum(x: Tensor, constant: Tensor, slope: Tensor, curvature: Tensor) -> Tensor:
    """The sum over the last dimension, `(*S, *B)`, differentiable once.

    Args:
        x: `(*S, *B, H)`.
        constant: c, `(*B, H)`.
        slope, curvature: m and k, `(H,)`.
    """
    total: Tensor = _QuadraticSum.apply(x, constant, slope, curvature)
    return total


class _Sums(ctypes.Structure):
    """`Sums` of `softplus.cpp`."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("threads", "samples", "rows", "units")),
        *((name, ctypes.c_void_p) for name in ("x", "c", "m", "k", "d_total")),
        *((name, ctypes.c_void_p) for name in ("total", "d_x", "d_c", "d_m", "d_k")),
    ]


class _QuadraticSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Tensor) -> Tensor:
        x, c, m, k = (part.contiguous() for part in given)
        ctx.save_for_backward(x, c, m, k)
        total = x.new_empty(x.shape[:-1])
        _run("sums", x=x, c=c, m=m, k=k, total=total)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_total: Tensor) -> tuple[Tensor, ...]:
        x, c, m, k = ctx.saved_tensors
        d_x, shared = torch.empty_like(x), [torch.zeros_like(part) for part in (c, m, k)]
        given = {"x": x, "c": c, "m": m, "k": k, "d_total": d_total.contiguous(), "d_x": d_x}
        _run("gradients", **given, **dict(zip(("d_c", "d_m", "d_k"), shared, strict=True)))
        return d_x, *shared


def _run(name: str, **tensors: Tensor) -> None:
    x, c = tensors["x"], tensors["c"]
    given = _Sums(
        threads=torch.get_num_threads(),
        samples=x.numel() // c.numel(),
        rows=c.numel() // c.shape[-1],
        units=c.shape[-1],
        **{key: part.data_ptr() for key, part in tensors.items()},
    )
    getattr(native.library(_SOURCE), f"{name}_{_NAMES[x.dtype]}")(ctypes.byref(given))
