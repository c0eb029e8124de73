"""How a CPU multiplies float32 matrices, and how it comes by memory: what is fast, and as exact.

Three choices, all for the whole process. `use_fast_products`: oneDNN or MKL, by the processor.
`keep_memory`: freed memory is kept for the next step. `rounded_products`: in training, if the user
wants it, factors of products are rounded to bfloat16.
"""

from __future__ import annotations

import ctypes
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

CPUINFO = Path("/proc/cpuinfo")
_INTEL, _ONEDNN = "GenuineIntel", "oneDNN"
_EXACT = 2e-6  # relative error of a float32 product; bfloat16 would have 4e-3
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's mallopt
_rounded = False


def use_fast_products(kept: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Let oneDNN multiply in place of MKL where that is faster and as exact; say who does.

    MKL takes a slow path on processors that are not Intel's, where oneDNN is about twice as fast at
    equal accuracy. Their last digits differ. So the choice follows from what the processor is, not
    from a clock: a machine chooses alike however busy it is. Torch reaches oneDNN through the
    precision "medium", which permits bfloat16: some processors then round so, on others nothing
    changes, and a trial product tells. What is not x86, or not Linux, keeps torch's own choice, and
    so does a machine with CUDA. Holds for the process.

    Args:
        kept: what an earlier call returned, as recorded by the work that is gone on with: its
            choice is made again where this machine can make it.

    Returns:
        What digits depend on: `matmul` is "oneDNN", "MKL", or "torch's own" where torch was built
        with another library; `threads` is how many torch uses, as it cuts sums into so many parts.
    """
    usual = "MKL" if torch.backends.mkl.is_available() else "torch's own"
    wanted = kept.get("matmul") if kept else None
    if wanted is None and usual == "MKL":
        maker = vendor(CPUINFO.read_text() if CPUINFO.is_file() else "")
        wanted = usual if maker in (None, _INTEL) else _ONEDNN
    matmul = usual
    if not torch.cuda.is_available():
        torch.set_float32_matmul_precision("highest")
        if wanted == _ONEDNN and _takes_onednn():
            matmul = _ONEDNN
    return {"matmul": matmul, "threads": torch.get_num_threads()}


def vendor(cpuinfo: str) -> str | None:
    """Who made an x86 processor, by the text of `/proc/cpuinfo`; None where it does not say.

    Example:
        >>> vendor("processor\\t: 0\\nvendor_id\\t: AuthenticAMD\\ncpu family\\t: 25\\n")
        'AuthenticAMD'
        >>> vendor("processor\\t: 0\\nCPU implementer\\t: 0x41\\n") is None
        True
    """
    found = re.search(r"^vendor_id[ \t]*:[ \t]*(\S.*?)[ \t]*$", cpuinfo, re.MULTILINE)
    return found[1] if found else None


def _takes_onednn() -> bool:
    """Have torch take oneDNN; whether it does and stays exact. Where not, all is as before."""
    left, right = _trial(4096)  # short sums are the same in both libraries
    exact, before = left.double() @ right.double(), left @ right
    torch.set_float32_matmul_precision("medium")
    product = left @ right
    error = (product.double() - exact).norm() / exact.norm()
    takes = bool(error < _EXACT) and not product.equal(before)
    if not takes:
        torch.set_float32_matmul_precision("highest")
    return takes


def rounding_pays() -> bool:
    """Whether a trial product of bfloat16 numbers is faster than one of float32.

    Timed, and so for a word to the user alone: nothing that digits depend on may ask it.
    """
    left, right = _trial()
    return _seconds(left.bfloat16(), right.bfloat16()) < _seconds(left, right)


def _trial(inner: int = 512) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(512, inner, generator=generator)
    return left, torch.randn(inner, 512, generator=generator)


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
