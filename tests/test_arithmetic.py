"""Fast products are float32 products, rounded ones are asked for, and memory is kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from cgrnn.arithmetic import product_dtype, rounded_layers, rounded_products, vendor

INTEL, AMD, HYGON, ARM, IBM = (
    f"processor\t: 0\n{line}\nBogoMIPS\t: 4200.00\n\nprocessor\t: 1\n{line}\n"
    for line in (
        "vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel name\t: Intel(R) Xeon(R) Processor",
        "vendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel name\t: AMD EPYC 9R14",
        "vendor_id\t: HygonGenuine\nmodel name\t: Hygon C86, not GenuineIntel",
        "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd40",
        "vendor_id       : IBM/S390 \n# processors    : 2",
    )
)


def test_the_vendor_is_read_where_linux_names_one():
    texts = (INTEL, AMD, HYGON, ARM, IBM, "", "model name\t: vendor_id\t: AuthenticAMD\n")
    names = ["GenuineIntel", "AuthenticAMD", "HygonGenuine", None, "IBM/S390", None, None]
    assert [vendor(text) for text in texts] == names


# By name: what `/proc/cpuinfo` says, and what was chosen before.
CASES = {
    "intel": (INTEL, None),
    "amd": (AMD, None),
    "hygon": (HYGON, {}),
    "arm": (ARM, None),
    "unknown": ("", None),
    "amd, oneDNN before": (AMD, {"matmul": "oneDNN", "threads": 7}),
    "amd, MKL before": (AMD, {"matmul": "MKL"}),
    "intel, oneDNN before": (INTEL, {"matmul": "oneDNN"}),
    "intel, another before": (INTEL, {"matmul": "another"}),
}
CHECK = """
import hashlib, json, sys, time, torch
from pathlib import Path
from cgrnn import arithmetic

def refuse(*words):
    raise AssertionError("a clock was asked")

left, right = torch.randn(2, 300, 3000, generator=torch.Generator().manual_seed(1))
right = right.t().contiguous()
exact, products = left.double() @ right.double(), {}
for precision in ("highest", "medium"):
    torch.set_float32_matmul_precision(precision)
    products[precision] = left @ right

def error(product):
    return float((product.double() - exact).norm() / exact.norm())

other = not products["highest"].equal(products["medium"])
can = other and error(products["medium"]) < 2e-6 and not torch.cuda.is_available()
for name in ("perf_counter", "monotonic", "time", "process_time", "thread_time"):
    setattr(time, name, refuse)
    setattr(time, name + "_ns", refuse)
arithmetic.CPUINFO, chosen = Path(sys.argv[1]), {}
for case, (text, kept) in json.load(sys.stdin).items():
    arithmetic.CPUINFO.write_text(text)
    found = arithmetic.use_fast_products(kept)
    assert found["threads"] == torch.get_num_threads()
    product = left @ right
    assert error(product) < 2e-6, (case, error(product))
    assert product.equal(products["medium" if found["matmul"] == "oneDNN" else "highest"]), case
    chosen[case] = found["matmul"], hashlib.sha256(product.numpy().tobytes()).hexdigest()
usual = "MKL" if torch.backends.mkl.is_available() else "torch's own"
print(json.dumps({"can": can, "usual": usual, "chosen": chosen}))
"""
# What oneDNN may use of the processor: of all of them, those with fast bfloat16 products round.
UNITS = ["DEFAULT", "AVX512_CORE", "AVX2"]


def choose(folder, units):
    """What a process of its own chooses in each case; every clock raises in it."""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": units}
    words = [sys.executable, "-c", CHECK, str(folder / "cpuinfo")]
    given = {"input": json.dumps(CASES), "capture_output": True, "text": True}
    done = subprocess.run(words, env=environment, **given)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("units", UNITS)
def test_the_processor_chooses_without_a_clock_and_products_stay_exact(tmp_path, units):
    found = choose(tmp_path, units)
    onednn = {case for case, (matmul, _) in found["chosen"].items() if matmul == "oneDNN"}
    expected = {"amd, oneDNN before", "intel, oneDNN before"} if found["can"] else set()
    if found["can"] and found["usual"] == "MKL":
        expected |= {"amd", "hygon"}
    assert onednn == expected
    assert {matmul for matmul, _ in found["chosen"].values()} <= {"oneDNN", found["usual"]}


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
