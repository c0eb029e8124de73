"""The kernels of the scan against torch's loop, in Triton's interpreter where there is no GPU."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from densities import generator
from torch._subclasses import FakeTensorMode

pytest.importorskip(
    "triton", reason="Triton is not installed (Linux on x86-64: pip install triton)"
)

from cgrnn import scan, scan_cpu, scan_cuda
from cgrnn.layers.conditional import LatentDrive
from cgrnn.scan import GRU, Tape, Weights
from cgrnn.transition import Transition

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
MARGIN = 64  # numbers behind each tensor that nothing may write to

# Frames beyond a graph's; sequences and units beyond a tile of 32 and 16; sums beyond 32 terms.
LONG, WIDE = (18, 3, 5, 4), (2, 35, 40, 20)


class Example:
    """Random arguments of both loops; what the loops are to fill is not a number before."""

    def __init__(self, frames: int, batch: int, size: int, hidden: int, dtype: torch.dtype) -> None:
        self.random, self.dtype = generator(0), dtype
        self.buffers: list[torch.Tensor] = []
        self.weights = Weights(
            self.normal(3 * size, hidden) / hidden**0.5,
            self.normal(3 * size, size) / size**0.5,
            self.normal(3 * size),
            self.normal(hidden, size) / size**0.5,
        )
        frames_units = (frames, batch, hidden)
        # As the models give them: batch first in memory.
        self.logits = self.normal(batch, frames, hidden).transpose(0, 1)
        self.slabs = self.normal(*frames_units)
        self.uniforms = torch.rand(frames_units, generator=self.random, dtype=dtype).to(DEVICE)
        self.d_contexts = self.normal(frames, batch, size)
        self.tape = Tape(
            self.filled(self.normal(frames, batch, 3 * size)),
            self.empty(frames, batch, size),
            self.empty(frames + 1, batch, size),
            self.empty(*frames_units),
            self.empty(*frames_units),
        )
        self.tape.contexts[0] = self.normal(batch, size)
        self.d_latents, self.d_logits = self.empty(*frames_units), self.empty(*frames_units)

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self.random, dtype=self.dtype).to(DEVICE)

    def empty(self, *shape: int) -> torch.Tensor:
        return self.filled(torch.full(shape, torch.nan, dtype=self.dtype, device=DEVICE))

    def filled(self, values: torch.Tensor) -> torch.Tensor:
        buffer = torch.full((values.numel() + MARGIN,), torch.nan, dtype=self.dtype, device=DEVICE)
        self.buffers.append(buffer)
        return buffer[: values.numel()].view(values.shape).copy_(values)


def assert_alike(mine: Tape, theirs: Tape, tolerance: float) -> None:
    for name, one, other in zip(Tape._fields, mine, theirs, strict=True):
        assert torch.allclose(one, other, atol=tolerance, rtol=0), name


@pytest.mark.skipif(DEVICE == "cpu" and not INTERPRETED, reason="run by the test that follows")
@pytest.mark.parametrize(
    ("shape", "dtype", "sampled", "tolerance"),
    [
        (LONG, torch.float64, False, 1e-10),
        (WIDE, torch.float64, False, 1e-10),
        (WIDE, torch.float64, True, 1e-10),
        (WIDE, torch.float32, False, 1e-5),
    ],
)
def test_kernels_fill_what_torchs_loop_fills(shape, dtype, sampled, tolerance):
    fused, plain = Example(*shape, dtype), Example(*shape, dtype)
    uniforms = plain.uniforms if sampled else None
    d_logits = (None, None) if sampled else (fused.d_logits, plain.d_logits)

    scan_cuda.forward_loop(fused.weights, fused.logits, fused.slabs, uniforms, fused.tape)
    with scan_cuda.disabled(), scan_cpu.disabled():
        scan.forward_loop(
            *(GRU, plain.weights, plain.logits, plain.slabs, uniforms),
            *((plain.tape.contexts[0],), plain.tape),
        )
    assert_alike(fused.tape, plain.tape, tolerance)

    first = scan_cuda.backward_loop(
        *(GRU, fused.weights, fused.slabs, fused.tape, fused.d_contexts),
        *(fused.d_latents, d_logits[0]),
    )
    with scan_cuda.disabled(), scan_cpu.disabled():
        expected = scan.backward_loop(
            *(GRU, plain.weights, plain.slabs, plain.tape, plain.d_contexts, ()),
            *(plain.d_latents, d_logits[1]),
        )
    assert torch.allclose(first, expected[0], atol=tolerance, rtol=0)
    assert_alike(fused.tape, plain.tape, tolerance)
    if not sampled:
        assert torch.allclose(fused.d_latents, plain.d_latents, atol=tolerance, rtol=0)
        assert torch.allclose(fused.d_logits, plain.d_logits, atol=tolerance, rtol=0)
    assert all(buffer[-MARGIN:].isnan().all() for buffer in fused.buffers)


@pytest.mark.skipif(DEVICE == "cuda" or INTERPRETED, reason="the kernels run without")
def test_kernels_in_the_interpreter():
    """In a process of its own, as Triton must know before anything imports it."""
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", "fill", __file__]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    run = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True)
    assert "4 passed" in run.stdout, run.stdout


COMPILE = """
import sys
import cgrnn.transition
assert "triton" not in sys.modules, "importing it would slow every start"

import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from cgrnn import scan_kernels

sizes = {"H": 4, "R": 5, "SAMPLED": False, "T": tl.float32, "PRECISION": "tf32x3"}
sizes |= {"BB": 16, "BU": 16, "BK": 16}
for name in ("draw_latents", "gru_forward", "spikes_backward", "gru_backward"):
    kernel = getattr(scan_kernels, name)
    kinds = {"table": "*i64", "step": "i32"} | dict.fromkeys(sizes, "constexpr")
    source = ASTSource(kernel, kinds, sizes)
    print(name, len(compile(source, target=GPUTarget("cuda", 80, 32)).asm["cubin"]) > 0)
"""


def test_kernels_compile_for_a_gpu(tmp_path: Path):
    """The interpreter takes what the compiler refuses, a name of two types for one."""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True
    )
    assert run.stdout.count("True") == 4, run.stderr


def test_what_fails_warns_once_and_leaves_the_work_to_torch(monkeypatch: pytest.MonkeyPatch):
    if DEVICE == "cuda":
        pytest.skip("nothing fails here")
    monkeypatch.setattr(scan_cuda, "_enabled", True)
    with FakeTensorMode():  # tensors that say they are on a GPU, and no CUDA below them
        shapes = ((32, 3, 15), (32, 3, 5), (32, 3, 5), (32, 3, 4), (32, 3, 4))
        tape = Tape(*(torch.empty(shape, device="cuda") for shape in shapes))
        shapes = ((15, 4), (15, 5), (15,), (4, 5))
        weights = Weights(*(torch.empty(shape, device="cuda") for shape in shapes))
        with pytest.warns(UserWarning, match="scan: torch's loop in place of fused kernels"):
            assert not scan_cuda.usable(GRU, weights, tape, sampled=False)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert not scan_cuda.usable(GRU, weights, tape, sampled=False)


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_on_the_gpu_are_those_of_the_cpu(sampled, dtype):
    """Two lengths, so that one graph serves both; two passes before the gradients are taken."""
    results = []
    for device, kind in (("cpu", torch.float64), ("cuda", dtype)):
        torch.manual_seed(0)
        transition = Transition(12, 20, 40, (8,)).double()
        total = torch.zeros((), dtype=kind, device=device)
        runs = []
        for frames in (40, 21):
            v = torch.bernoulli(torch.full((35, frames, 12), 0.4)).double()
            logits, slabs = torch.randn(2, frames, 35, 20, dtype=torch.float64)
            weight = torch.randn(20, 40, dtype=torch.float64)
            uniforms = torch.rand(frames, 35, 20, dtype=torch.float64) if sampled else None
            runs.append((v, logits, slabs, weight, uniforms))
        transition.to(device, kind)
        for v, *drive in runs:
            moved = [None if part is None else part.to(device, kind) for part in drive]
            contexts, _ = transition(v.to(device, kind), LatentDrive(*moved))
            total = total + contexts.square().sum() / 1000
        total.backward()
        results.append([p.grad.cpu().double() for p in transition.parameters()])
        if device == "cuda":
            assert scan_cuda._enabled
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    for mine, theirs in zip(*results, strict=True):
        assert torch.allclose(mine, theirs, atol=tolerance, rtol=tolerance)
