"""How a CPU multiplies float32 matrices, and how it comes by memory: what is fast, and as exact.

Three choices, all for the whole process. `use_fast_products`: oneDNN or MKL, whichever is faster at
float32 accuracy. `keep_memory`: freed memory is kept for the next step. `rounded_products`: in
training, if the user wants it, factors of products are rounded to bfloat16.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor

_EXACT = 2e-6  # relative error of a float32 product; bfloat16 would have 4e-3
_CLEARLY = 1.3  # how much faster, so that a run that is resumed chooses what it chose before
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's mallopt
_rounded = False


def use_fast_products() -> bool:
    """Let oneDNN multiply in place of MKL where it is clearly faster, and as exact; say whether.

    MKL takes a slow path on processors that are not Intel's, where oneDNN is twice as fast at
    equal accuracy. Torch reaches oneDNN through the precision "medium", which permits bfloat16 and
    on some processors uses it: trial products decide. Holds for the process; CUDA is left alone.
    """
    if torch.cuda.is_available():
        return False
    left, right = _trial()
    exact = left.double() @ right.double()
    torch.set_float32_matmul_precision("highest")
    usual = _seconds(left, right)
    torch.set_float32_matmul_precision("medium")
    error = ((left @ right).double() - exact).norm() / exact.norm()
    chosen = bool(error < _EXACT) and _CLEARLY * _seconds(left, right) < usual
    torch.set_float32_matmul_precision("medium" if chosen else "highest")
    return chosen


def rounding_pays() -> bool:
    """Whether a trial product of bfloat16 numbers is faster than one of float32."""
    left, right = _trial()
    return _seconds(left.bfloat16(), right.bfloat16()) < _seconds(left, right)


def _trial() -> Tensor:
    return torch.randn(2, 512, 512, generator=torch.Generator().manual_seed(0))


def _seconds(left: Tensor, right: Tensor) -> float:
    """The least that a product takes of a few: what else runs only ever adds to it."""
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        left @ right
        taken.append(time.perf_counter() - start)
    return min(taken)


def keep_memory() -> None:
    """Let freed memory stay with the process, where its C library is glibc.

    A training step takes and frees the same hundreds of megabytes each time. By default they go
    back to the system and come again as pages to be cleared, a tenth of the step's time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 1 << 30)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)


@contextmanager
def rounded_products(on: bool = True) -> Iterator[None]:
    """Within, float32 factors of products may be rounded to bfloat16; sums stay float32.

    Processors that multiply bfloat16 numbers do so four times as fast. For training alone:
    likelihoods are never estimated so. The backward pass must run within, too. A GPU rounds as its
    tensor cores do (TF32), and keeps its own kernels.

    Args:
        on: without it nothing changes.
    """
    global _rounded
    before, precision = _rounded, torch.get_float32_matmul_precision()
    if on:
        _rounded = True
        torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        _rounded = before
        torch.set_float32_matmul_precision(precision)


def product_dtype(x: Tensor) -> torch.dtype:
    """What the factors of a product with `x` are to be cast to: bfloat16, or what they are."""
    rounds = _rounded and x.dtype == torch.float32 and x.device.type == "cpu"
    return torch.bfloat16 if rounds else x.dtype


def rounded_layers(device: torch.device) -> AbstractContextManager[object]:
    """Within, layers that only feed a product keep bfloat16 between them where products round."""
    if _rounded and device.type == "cpu":
        return torch.autocast("cpu", torch.bfloat16)
    return nullcontext()
