"""Long work cut into blocks: what is finished is kept, and several processes share it.

The blocks follow from the data and the options alone, and each draws from a generator of its own,
seeded by its name and number. So neither a restart nor the number of processes changes a figure;
the number of threads may, in its last digits.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cgrnn.batches import Batch

Block = TypeVar("Block")
Result = dict[str, Any]
"""What a block comes to: tensors, numbers and texts by name, or dictionaries of them."""

Function = Callable[[Block, torch.Generator], Result]
Progress = Callable[[int, int, str], None]

# A rank waits for the slowest at the end of a stage, which takes what it takes.
_PATIENCE = timedelta(days=7)


class BatchList(Protocol):
    """Batches by their number: `cgrnn.batches.Batches`, or a list of them."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Batch: ...


class Blocks:
    """Runs work block by block.

    With a journal, each finished block is written to a file in it, so that a run that was stopped
    or killed goes on where it was. Used as a context, the journal is removed at the end: of the
    work, or by a `ValueError`, with which the same call would end again; anything else keeps it.

    Where `torch.distributed` runs (`ranks`), each process does its share of the blocks, and all
    get all results. They must call `run` alike, see the same files, and have as many threads each
    as a single process for the same figures to the last bit.

    Args:
        seed: of all draws.
        device: where the draws are made.
        journal: folder that keeps finished blocks; None keeps none.
        about: what they belong to, in types that JSON has. Blocks of anything else are dropped.
        progress: called with the work done, all that this process has to do, and the stage.

    Attributes:
        dropped: what the blocks that were found in the journal, and dropped, belonged to.
    """

    def __init__(
        self,
        seed: int = 0,
        device: torch.device | str = "cpu",
        journal: Path | None = None,
        about: dict[str, Any] | None = None,
        progress: Progress = lambda done, total, name: None,
    ) -> None:
        self.seed, self.device, self.journal = seed, torch.device(device), journal
        distributed = dist.is_initialized()
        self.rank = dist.get_rank() if distributed else 0
        self.world = dist.get_world_size() if distributed else 1
        self._progress = progress if self.rank == 0 else lambda done, total, name: None
        self._stage, self._done, self._total = "", 0, 0
        self.dropped: dict[str, Any] | None = None
        if journal is not None and self.rank == 0:
            self.dropped = _begin(journal, json.dumps(about, sort_keys=True))
        if self.world > 1:
            dist.barrier()

    def __enter__(self) -> Blocks:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        over = kind is None or issubclass(kind, ValueError)
        if over and self.journal is not None and self.rank == 0:
            shutil.rmtree(self.journal, ignore_errors=True)

    def generator(self, name: str, number: int = 0) -> torch.Generator:
        """The source of a block's draws, the same whenever and wherever it is done."""
        text = f"{self.seed} {number} {name}".encode()
        own = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1
        return torch.Generator(self.device).manual_seed(own)

    def run(
        self,
        name: str,
        blocks: Sequence[Block],
        function: Function[Block],
        sizes: Sequence[int] | None = None,
    ) -> list[Result]:
        """Do what is not done yet.

        Args:
            name: of the stage, which no other has; part of a file name.
            blocks: what to do.
            function: called with a block and its generator. It may tell `advance` how far it is.
            sizes: work in each block, for the progress; 1 unless given.

        Returns:
            The result of each block in order, tensors on the CPU.

        Example:
            >>> def draw(mean, generator):
            ...     return {"value": mean + torch.randn((), generator=generator)}
            >>> first = Blocks(seed=1).run("draws", [0.0, 10.0], draw)
            >>> first == Blocks(seed=1).run("draws", [0.0, 10.0], draw)
            True
        """
        numbers = range(len(blocks))
        sizes = sizes or [1] * len(blocks)
        done = self._from_first({n: kept for n in numbers if (kept := self._read(name, n))})
        own = [n for n in numbers if n not in done][self.rank :: self.world]
        self._stage, self._total, finished = name, sum(sizes[n] for n in own), 0
        for n in own:
            self._done = finished
            done[n] = _on_cpu(function(blocks[n], self.generator(name, n)))
            self._write(name, n, done[n])
            finished += sizes[n]
            self._progress(finished, self._total, name)
        for others in self._gathered({n: done[n] for n in own}):
            done |= others
        return [done[n] for n in numbers]

    def advance(self, count: int) -> None:
        """Note work done within a block, in the unit of its size."""
        self._done += count
        self._progress(min(self._done, self._total), self._total, self._stage)

    def _from_first(self, kept: dict[int, Result]) -> dict[int, Result]:
        """What the first rank has: the journal may grow while the others look."""
        shared = [kept]
        if self.world > 1:
            dist.broadcast_object_list(shared)
        return shared[0]

    def _gathered(self, own: dict[int, Result]) -> list[dict[int, Result]]:
        parts = [own] * self.world
        if self.world > 1:
            dist.all_gather_object(parts, own)
        return parts

    def _file(self, name: str, number: int) -> Path | None:
        return self.journal and self.journal / f"{name}-{number}.pt"

    def _read(self, name: str, number: int) -> Result | None:
        file = self._file(name, number)
        if self.rank or file is None or not file.is_file():
            return None
        try:
            result: Result = torch.load(file, weights_only=True)
        except Exception:  # torch raises a dozen kinds; a machine that went down leaves such files
            return None
        return result

    def _write(self, name: str, number: int, result: Result) -> None:
        file = self._file(name, number)
        if file is not None:
            torch.save(result, file.with_suffix(".part"))
            file.with_suffix(".part").replace(file)


def blocks_of(generator: torch.Generator | Blocks | None, model: nn.Module) -> Blocks:
    """Blocks as given, or new ones without a journal that draw their seed from a generator."""
    if isinstance(generator, Blocks):
        return generator
    device = next(model.parameters()).device
    on = generator.device if generator else "cpu"
    return Blocks(int(torch.randint(2**62, (), generator=generator, device=on)), device)


@contextmanager
def ranks() -> Iterator[torch.device]:
    """Join the processes that `torchrun` started, if it did; yield the device of this one."""
    cuda = torch.cuda.is_available()
    local = int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device("cuda", local % torch.cuda.device_count()) if cuda else "cpu"
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield torch.device(device)
        return
    # Results are few and lie on the CPU, whatever made them.
    dist.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield torch.device(device)
    finally:
        dist.destroy_process_group()


def _begin(journal: Path, about: str) -> dict[str, Any] | None:
    """An empty journal, or one that is about the same; what one that had to go was about."""
    label, dropped = journal / "about.json", None
    if label.is_file():
        before = label.read_text()
        if before == about:
            return None
        with suppress(ValueError):  # a machine that went down leaves such files
            dropped = json.loads(before)
    shutil.rmtree(journal, ignore_errors=True)
    journal.mkdir()
    label.with_suffix(".part").write_text(about)
    label.with_suffix(".part").replace(label)
    return dropped


def _on_cpu(result: Any) -> Any:
    """Tensors without gradient, and without the rest of what they are a view of."""
    if isinstance(result, dict):
        return {name: _on_cpu(value) for name, value in result.items()}
    return result.detach().cpu().clone() if isinstance(result, Tensor) else result
