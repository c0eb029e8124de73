"""What the machine is, and how fast it multiplies: the scale of every other figure."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch
from harness import Row, seconds

SIZE, PRODUCTS = 1024, 20


def description() -> dict[str, Any]:
    """Processor, threads and versions, with the milliseconds of a product of 1024³."""
    single, half = _products()
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "float32_ms": round(1e3 * single, 2),
        "bfloat16_ms": round(1e3 * half, 2),
    }


def rows(quick: bool) -> list[Row]:
    single, half = _products(5 if quick else PRODUCTS)
    return [Row("product 1024³, bfloat16", half, "in float32, as cgrnn chooses", single)]


def _products(count: int = PRODUCTS) -> tuple[float, float]:
    """Seconds of a product in float32 and in bfloat16: the least of some, taken in turns."""
    generator = torch.Generator().manual_seed(0)
    single = torch.randn(SIZE, SIZE, generator=generator)
    half = single.bfloat16()
    times = [(seconds(lambda: single @ single), seconds(lambda: half @ half)) for _ in range(count)]
    return min(s for s, _ in times), min(h for _, h in times)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
