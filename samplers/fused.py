"""Gibbs sweeps and annealing in one compiled pass, for the densities that the kernel knows.

Tensor by tensor, a sweep writes and reads some twenty arrays, and torch draws its random numbers
on one thread. The kernel (`sweeps.cpp`) keeps sixteen chains in the lanes of the processor's
vectors and in its cache: product, activation, weight and draw are one pass.

The vehicle was chosen by measuring one level of annealing a spike-and-slab RBM, 128 × 250, on one
core: tensor by tensor 6.7 µs, numba 2.4 to 3.4 µs (its vectors are half as wide, and it does not
keep the sums of a product in registers), C++ 1.7 µs, 0.8 of which are its two products. It is
called by ctypes: built at first use, for the processor at hand, against no version of torch.

Frames that the kernel draws follow the same law as those of `density.gibbs_step`, with other
random numbers: Philox, keyed by the generator and counted by chain, step and unit. They depend
neither on the threads nor on how chains are shared among them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from samplers import native

LANES = 16
_PIECE = 1 << 16  # chain-steps of one call: some tenths of a second, so that progress is told
_SMALL = 1 << 23  # multiplications that take no longer than to begin a thread

_SIZES = ("visible", "hidden", "densities", "chains", "rows", "steps", "seed")
_FLAGS = ("begin", "move_last")
_ARRAYS = (
    "weight",
    "transposed",
    "alpha",
    "mu",
    "damping",
    "damping_transposed",
    "visible_bias",
    "hidden_bias",
    "precision",
    "base_bias",
    "levels",
    "v",
    "log_weights",
    "rises",
)
_enabled = True

Level = tuple[float, ...]
"""Factors of `W`, of μ, of b̃_v and, where there is one, of a base's bias."""

SELF = (1.0, 1.0, 1.0)
"""The level at which a density is itself."""


class _Job(ctypes.Structure):
    """`Job` of `sweeps.cpp`."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in (*_SIZES, *_FLAGS)),
        *((name, ctypes.c_void_p) for name in _ARRAYS),
    ]


@contextmanager
def disabled() -> Iterator[None]:
    """Work tensor by tensor within: what the kernel is tested and measured against."""
    global _enabled
    before, _enabled = _enabled, False
    try:
        yield
    finally:
        _enabled = before


def knows(density: Any) -> bool:
    """Whether the kernel can run chains of a density.

    That takes a density on the CPU in single or double precision, of a class that says so itself:
    one that inherits from such a class may have another energy.
    """
    return (
        _enabled
        and "compiled" in vars(type(density))
        and density.weight.device.type == "cpu"
        and density.weight.dtype in (torch.float32, torch.float64)
        and native.library() is not None
    )


@torch.no_grad()
def sweep(
    density: Any, v: Tensor, levels: Sequence[Level], generator: torch.Generator | None = None
) -> Tensor:
    """Run Gibbs sweeps from frames `v` `(*S, *B, V)`, one at each level, and return where they end.

    Raises:
        ValueError: when the frames are not of the density's width.
    """
    if v.shape[-1] != density.visible_dim:
        raise ValueError(f"v: frames of {v.shape[-1]} units, the density has {density.visible_dim}")
    job = _Chains(density, chains=1, levels=[levels[0], *levels], generator=generator)
    every, _ = torch.broadcast_tensors(v, density.visible_bias)
    ends = every.to(density.weight.dtype).clone(memory_format=torch.contiguous_format)
    job.run(ends.numel() // v.shape[-1], {"v": ends}, move_last=True)
    return ends


class Annealed(NamedTuple):
    """What chains gathered along their levels, and where they ended.

    Attributes:
        log_weights: `Σ_k F_{k-1}(v_{k-1}) - F_k(v_{k-1})`, `(chains, B)` float64.
        frames: `v_{K-1}`, which was weighed last, `(chains, B, V)`. With the weights these are
            weighted draws from the last level.
    """

    log_weights: Tensor
    frames: Tensor


@torch.no_grad()
def anneal(
    density: Any,
    chains: int,
    levels: Sequence[Level],
    generator: torch.Generator | None = None,
    starts: Tensor | None = None,
    progress: Callable[[int], None] | None = None,
    base_bias: Tensor | None = None,
) -> Annealed:
    """Chains that anneal along levels.

    Args:
        density: batch shape `(B,)`.
        chains: chains for each density.
        levels: of each level the factors of `W`, of μ and of b̃_v (`EnergyDensity.path_factors`),
            and of `base_bias` where there is one, in the order in which they are visited.
        generator: source of the draws.
        starts: frames to start from, `(chains, B, V)`; None: draws at the first level, whose
            factor of `W` must then be 0.
        progress: called with the number of chain-levels just done.
        base_bias: biases that are added to b̃_v, times their factor, `(B, V)`.
    """
    job = _Chains(density, chains, levels, generator, base_bias)
    total, dtype = density.batch_shape[0], density.weight.dtype
    sums = torch.empty(total, chains, dtype=torch.float64)
    if starts is None:
        ends = torch.empty(total, chains, density.visible_dim, dtype=dtype)
    else:
        ends = starts.transpose(0, 1).to(dtype).clone(memory_format=torch.contiguous_format)
    arrays = {"log_weights": sums, "v": ends}
    job.run(total * chains, arrays, begin=starts is None, progress=progress)
    return Annealed(sums.t(), ends.transpose(0, 1))


@torch.no_grad()
def rises(
    density: Any, chains: int, levels: Sequence[Level], generator: torch.Generator | None = None
) -> Tensor:
    """The single terms of the sum of `anneal`, `(levels - 1, chains, B)` float64."""
    job, total = _Chains(density, chains, levels, generator), density.batch_shape[0]
    sums = torch.empty(total, chains, dtype=torch.float64)
    parts = torch.empty(len(levels) - 1, total, chains, dtype=torch.float64)
    job.run(total * chains, {"log_weights": sums, "rises": parts}, begin=True)
    return parts.transpose(1, 2)


class _Chains:
    """Chains of a density that is known to the kernel: row `r` belongs to density
    `r // chains mod B`."""

    def __init__(
        self,
        density: Any,
        chains: int,
        levels: Sequence[Level],
        generator: torch.Generator | None,
        base_bias: Tensor | None = None,
    ) -> None:
        dtype = density.weight.dtype
        flat = density.flatten()
        damping = getattr(flat, "phi", None)
        arrays = {
            "weight": flat.W,
            "transposed": flat.W.t(),
            "alpha": getattr(flat, "alpha", None),
            "mu": getattr(flat, "mu", None),
            "damping": damping,
            "damping_transposed": None if damping is None else damping.t(),
            "visible_bias": flat.visible_bias,
            "hidden_bias": flat.hidden_bias,
            "precision": getattr(flat, "precision_diag", None),
            "base_bias": base_bias,
            "levels": torch.tensor([(*level, 0.0)[:4] for level in levels], dtype=dtype),
        }
        visible, hidden, total = flat.visible_dim, flat.hidden_dim, flat.batch_shape[0]
        shapes = {
            "weight": (visible, hidden),
            "alpha": (hidden,),
            "mu": (hidden,),
            "damping": (hidden, visible),
            "visible_bias": (total, visible),
            "hidden_bias": (total, hidden),
            "precision": (total, visible),
            "base_bias": (total, visible),
        }
        # Kept here: the kernel is given their addresses, and trusts the shapes.
        self.arrays = {
            name: value.detach().to(dtype).expand(shapes.get(name, value.shape)).contiguous()
            for name, value in arrays.items()
            if value is not None
        }
        seed = int(torch.randint(2**62, (), generator=generator))
        self.sizes = {
            "visible": flat.visible_dim,
            "hidden": flat.hidden_dim,
            "densities": flat.batch_shape[0],
            "chains": chains,
            "steps": len(levels) - 1,
            "seed": seed,
        }
        library: Any = native.library()
        self.kernel = library.run_float if dtype == torch.float32 else library.run_double

    def run(
        self,
        rows: int,
        arrays: dict[str, Tensor],
        begin: bool = False,
        move_last: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Fill the arrays, piece by piece, a piece a thread."""
        if not rows:
            return
        given = self.arrays | arrays
        threads, steps = torch.get_num_threads(), max(1, self.sizes["steps"])
        if rows * steps * self.sizes["visible"] * self.sizes["hidden"] < _SMALL:
            threads = 1
        share = -(-rows // threads)
        piece = -(-min(share, max(1, _PIECE // steps)) // LANES) * LANES

        job = _Job(
            rows=rows,
            begin=begin,
            move_last=move_last,
            **self.sizes,
            **{name: value.data_ptr() for name, value in given.items()},
        )

        def work(first: int) -> int:
            count = min(piece, rows - first)
            self.kernel(ctypes.byref(job), ctypes.c_int64(first), ctypes.c_int64(count))
            return count * steps

        firsts = range(0, rows, piece)
        if len(firsts) == 1:
            done: Any = map(work, firsts)
        else:
            pool = ThreadPoolExecutor(threads)
            done = pool.map(work, firsts)
        try:
            for count in done:
                if progress is not None:
                    progress(count)
        finally:
            if len(firsts) > 1:
                pool.shutdown(cancel_futures=True)
