"""The processes that `torchrun` started, of which this may be one."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor


def rank() -> int:
    """The number of this process; 0 of the one that writes and prints."""
    return int(os.environ.get("RANK", 0))


def world() -> int:
    """How many there are, on all machines."""
    return int(os.environ.get("WORLD_SIZE", 1))


def world_here() -> int:
    """How many there are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world()))


def summed(values: Tensor) -> Tensor:
    """Sum over the processes, the same in each to the last bit; overwrites what it is given."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def means(parts: Sequence[Tensor], share: float) -> list[Tensor]:
    """Means of tensors over the processes, of which this one counts for a share of 1."""
    if world() == 1:
        return list(parts)
    flat = torch.cat([part.flatten().double() for part in parts])
    split = summed(flat * share).split([part.numel() for part in parts])
    return [mean.view_as(part).to(part) for mean, part in zip(split, parts, strict=True)]
