"""Fast products are float32 products."""

from __future__ import annotations

import subprocess
import sys

CHECK = """
import torch
from cgrnn.arithmetic import use_fast_products
fast = use_fast_products()
assert torch.get_float32_matmul_precision() == ("medium" if fast else "highest")
left, right = torch.randn(2, 700, 700, generator=torch.Generator().manual_seed(1))
exact = left.double() @ right.double()
error = ((left @ right).double() - exact).norm() / exact.norm()
assert error < 2e-6, float(error)
"""


def test_products_keep_float32_accuracy_whichever_way_is_chosen():
    """In a process of its own: the choice holds for a whole process."""
    subprocess.run([sys.executable, "-c", CHECK], check=True)
