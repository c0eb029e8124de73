"""Uniform and normal numbers for many frames at once, drawn by all threads where they can be.

Torch draws on one. These are counted (`draws.cpp`): the same whatever the threads.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from samplers import native

_SOURCE = Path(__file__).parent / "native" / "draws.cpp"


def uniform(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Uniform numbers between 0 and 1, of the shape and dtype of `like`."""
    drawn = _drawn("uniforms", like, generator)
    return torch.empty_like(like).uniform_(generator=generator) if drawn is None else drawn


def normal(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard normal numbers, of the shape and dtype of `like`."""
    drawn = _drawn("normals", like, generator)
    return torch.empty_like(like).normal_(generator=generator) if drawn is None else drawn


def _drawn(name: str, like: Tensor, generator: torch.Generator | None) -> Tensor | None:
    """Philox's, keyed by one number of the generator; None where they are left to torch."""
    if like.device.type != "cpu" or like.dtype != torch.float32:
        return None
    library: Any = native.library(_SOURCE)
    if library is None:
        return None
    seed = int(torch.randint(2**62, (), generator=generator))
    result = like.new_empty(like.shape)
    sizes = (torch.get_num_threads(), seed, result.numel())
    getattr(library, name)(*map(ctypes.c_int64, sizes), ctypes.c_void_p(result.data_ptr()))
    return result
