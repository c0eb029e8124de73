"""The faster of torch's two ways to multiply float32 matrices on a CPU, where it is as exact."""

from __future__ import annotations

import torch

_EXACT = 2e-6  # relative error of a float32 product; bfloat16 would have 4e-3


def use_fast_products() -> bool:
    """Let oneDNN multiply in place of MKL where that keeps float32 accuracy; say whether.

    MKL takes a slow path on processors that are not Intel's, where oneDNN is twice as fast at
    equal accuracy. Torch reaches oneDNN through the precision "medium", which permits bfloat16 and
    on some processors uses it: a trial product decides. Holds for the process; CUDA is left alone.
    """
    if torch.cuda.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(2, 128, 128, generator=generator)
    exact = left.double() @ right.double()
    torch.set_float32_matmul_precision("medium")
    error = ((left @ right).double() - exact).norm() / exact.norm()
    accurate = bool(error < _EXACT)
    torch.set_float32_matmul_precision("medium" if accurate else "highest")
    return accurate
