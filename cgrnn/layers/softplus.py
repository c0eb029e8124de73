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

_SOURCE = Path(__file__).parents[1] / "passes.cpp"
_NAMES = {torch.float32: "float32", torch.float64: "float64"}


def usable(x: Tensor, constant: Tensor) -> bool:
    """Whether `quadratic_sum` takes these: on the CPU, of one dtype, and with a compiler there.

    The last dimensions of `x` must be those of `constant`.
    """
    return (
        x.device.type == "cpu"
        and x.dtype == constant.dtype
        and x.dtype in _NAMES
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


class _QuadraticSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Tensor) -> Tensor:
        given = tuple(part.contiguous() for part in given)
        ctx.save_for_backward(*given)
        total = given[0].new_empty(given[0].shape[:-1])
        _run("sums", *given, total)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_total: Tensor) -> tuple[Tensor, ...]:
        x, *shared = ctx.saved_tensors
        gradients = (torch.empty_like(x), *(torch.zeros_like(part) for part in shared))
        _run("gradients", x, *shared, d_total.contiguous(), *gradients)
        return gradients


def _run(name: str, x: Tensor, constant: Tensor, *others: Tensor) -> None:
    units, rows = x.shape[-1], constant.numel() // constant.shape[-1]
    sizes = (x.numel() // constant.numel(), rows, units)
    tensors = (x, constant, *others)
    getattr(native.library(_SOURCE), f"{name}_{_NAMES[x.dtype]}")(
        *map(ctypes.c_int64, sizes), *(ctypes.c_void_p(part.data_ptr()) for part in tensors)
    )
