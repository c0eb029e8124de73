"""The scan's loops over time on a GPU: fused Triton kernels, replayed from captured CUDA graphs.

On a GPU a step costs the latency of its launches, not its arithmetic: torch's loop launches ten
kernels a frame, this one two (one backward, where spikes are drawn), from a graph. A graph holds
`STEPS` frames and finds its tensors and their number in a table, so that it is captured once per
sizes of the model and holds no memory. Where anything is missing, torch's loop does the work.
"""

from __future__ import annotations

import importlib.util
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from cgrnn.scan import Tape, Weights

STEPS = 16  # frames in a graph: what is left over at the end costs empty launches

_enabled = True


class Plan(NamedTuple):
    """What a graph is made for.

    Attributes:
        device, stream: where it runs, and the stream by its number (0 without CUDA).
        tiles, block: tiles of sequences, and sequences in a tile.
        hidden, recurrent: H and R.
        sampled: whether spikes are drawn.
        dtype: float32 or float64.
        precision: how products of float32 are made, as Triton's `dot` names it.
    """

    device: torch.device
    stream: int
    tiles: int
    block: int
    hidden: int
    recurrent: int
    sampled: bool
    dtype: torch.dtype
    precision: str


class Program:
    """Kernels for `STEPS` frames, captured where the device is a GPU."""

    def __init__(self, launch: Callable[[Tensor], None], slots: int, device: torch.device) -> None:
        self.launch, self.graph, self.lock = launch, None, threading.Lock()
        self.table = torch.zeros(slots, dtype=torch.int64, device=device)
        if device.type == "cuda":
            launch(self.table)  # compiles; a table of zeros has no frames, so nothing is touched
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
                launch(self.table)

    def run(self, frames: int, entries: list[int]) -> None:
        with self.lock:
            host = torch.tensor(entries, pin_memory=self.graph is not None)
            self.table.copy_(host, non_blocking=True)
            for _ in range(0, frames, STEPS):
                if self.graph is None:
                    self.launch(self.table)
                else:
                    self.graph.replay()


@contextmanager
def disabled() -> Iterator[None]:
    """Leave the work to torch's loop within: what the kernels are measured against."""
    global _enabled
    before, _enabled = _enabled, False
    try:
        yield
    finally:
        _enabled = before


def usable(cell: Any, weights: Weights, tape: Tape, sampled: bool) -> bool:
    """Whether the loops below do this scan: a GRU in float32 or float64 on CUDA, with Triton.

    Compiles and captures both directions when first asked. What fails there warns once, and torch's
    loop is used from then on, as it is for fewer frames than a graph holds.
    """
    global _enabled
    if not _enabled or not tape.gates.is_cuda or len(tape.gates) < STEPS or cell.__name__ != "GRU":
        return False
    if {part.dtype for part in (*weights, *tape)} not in ({torch.float32}, {torch.float64}):
        return False
    if importlib.util.find_spec("triton") is None:
        return False
    try:
        if torch.cuda.is_current_stream_capturing():
            return False
        with torch.cuda.device_of(tape.gates):
            _programs(_plan(weights, tape, sampled))
    except Exception as error:
        _enabled = False
        reason = str(error).strip().split("\n")[0]
        warnings.warn(f"scan: torch's loop in place of fused kernels ({reason})", stacklevel=2)
    return _enabled


def forward_loop(
    weights: Weights, logits: Tensor, slabs: Tensor, uniforms: Tensor | None, tape: Tape
) -> None:
    """`cgrnn.scan.forward_loop` of a GRU, whose state is in the tape."""
    given = {"logits": logits, "slabs": slabs, "uniforms": uniforms}
    _run(0, weights, tape, uniforms is not None, given)


def backward_loop(
    cell: Any,
    weights: Weights,
    slabs: Tensor,
    tape: Tape,
    d_contexts: Tensor,
    d_latents: Tensor,
    d_logits: Tensor | None,
) -> Tensor:
    """`cgrnn.scan.backward_loop` of a GRU: the gradient of `u_0`."""
    # A kernel begins with a product, which the last frame has none of.
    gates, kept, contexts, *_ = tape
    du = cell.backward(gates[-1], kept[-1], contexts[-2], (d_contexts[-1],))[0].contiguous()
    given = {"slabs": slabs, "d_contexts": d_contexts, "d_state": du}
    given |= {"d_latents": d_latents, "d_logits": d_logits}
    _run(1, weights, tape, d_logits is None, given)
    return du


def _run(
    direction: int, weights: Weights, tape: Tape, sampled: bool, given: dict[str, Tensor | None]
) -> None:
    from cgrnn.scan_kernels import SLOTS

    frames, batch = tape.gates.shape[:2]
    named = {**tape._asdict(), **weights._asdict(), **given}
    tensors = {
        name: part.to(tape.gates.dtype).contiguous()
        for name, part in named.items()
        if part is not None
    }
    entries = [frames, batch, 0]
    entries += [tensors[name].data_ptr() if name in tensors else 0 for name in SLOTS[3:]]
    with torch.cuda.device_of(tape.gates):
        _programs(_plan(weights, tape, sampled))[direction].run(frames, entries)


def _plan(weights: Weights, tape: Tape, sampled: bool) -> Plan:
    gates, batch = tape.gates, tape.gates.shape[1]
    hidden, recurrent = weights.spike.shape
    block = 16 if batch <= 16 else 32
    return Plan(
        gates.device,
        torch.cuda.current_stream(gates.device).cuda_stream if gates.is_cuda else 0,
        -(-batch // block),
        block,
        hidden,
        recurrent,
        sampled,
        gates.dtype,
        _precision(gates),
    )


def _precision(like: Tensor) -> str:
    """Plain products, or by tensor cores: three of TF32, as exact as float32, or one where the
    user let torch do so."""
    if like.dtype == torch.float64 or not like.is_cuda or torch.version.hip:
        return "ieee"
    if torch.cuda.get_device_capability(like.device) < (8, 0):
        return "ieee"
    return "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"


@lru_cache(maxsize=32)
def _programs(plan: Plan) -> tuple[Program, Program]:
    """Forward and backward."""
    import triton.language as tl

    from cgrnn import scan_kernels as kernels

    hidden, recurrent = ((plan.tiles, -(-size // 16)) for size in (plan.hidden, plan.recurrent))
    options = {
        "H": plan.hidden,
        "R": plan.recurrent,
        "SAMPLED": plan.sampled,
        "T": tl.float64 if plan.dtype == torch.float64 else tl.float32,
        "PRECISION": plan.precision,
        "BB": plan.block,
        "BU": 16,
        "BK": 32,
        "num_stages": 5,  # a loop waits for memory: four tiles of each factor are on their way
    }
    done = kernels.SLOTS.index("done")

    def forward(table: Tensor) -> None:
        for step in range(STEPS):
            kernels.draw_latents[hidden](table, step, **options)
            kernels.gru_forward[recurrent](table, step, **options)
        table[done].add_(STEPS)

    def backward(table: Tensor) -> None:
        for step in range(STEPS):
            if not plan.sampled:
                kernels.spikes_backward[hidden](table, step, **options)
            kernels.gru_backward[recurrent](table, step, **options)
        table[done].add_(STEPS)

    slots = len(kernels.SLOTS)
    return Program(forward, slots, plan.device), Program(backward, slots, plan.device)
