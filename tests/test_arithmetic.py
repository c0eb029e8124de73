"""Fast products are float32 products, rounded ones are asked for, and memory is kept."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from cgrnn.arithmetic import product_dtype, rounded_layers, rounded_products

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


def test_products_round_within_and_not_after():
    single, double = torch.eye(2), torch.eye(2).double()
    precision, linear = torch.get_float32_matmul_precision(), torch.nn.Linear(2, 2)
    with pytest.raises(KeyError), rounded_products():
        assert product_dtype(single) == torch.bfloat16 and product_dtype(double) == torch.float64
        with rounded_layers(single.device):
            assert linear(single).dtype == torch.bfloat16
        with rounded_products(False):
            assert product_dtype(single) == torch.bfloat16
        raise KeyError
    assert torch.get_float32_matmul_precision() == precision
    assert product_dtype(single) == torch.float32
    with rounded_layers(single.device):
        assert linear(single).dtype == torch.float32


KEEPS = """
import resource, torch
from cgrnn.arithmetic import keep_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(1 << 25).add_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.zeros(1)
came_anew = faults(), faults()
keep_memory()
print(min(came_anew), min(faults() for _ in range(10)))  # it settles in some place after a few
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's")
def test_freed_memory_is_kept():
    done = subprocess.run([sys.executable, "-c", KEEPS], check=True, capture_output=True, text=True)
    came_anew, kept = map(int, done.stdout.split())
    if came_anew < 60:  # 128 MB, in pages of at most 2 MB
        pytest.skip("another allocator, which keeps memory anyway")
    assert kept < came_anew / 10
