"""Work on files that may kill whoever reads them, done in processes whose death costs one file.

A process pool of the standard library loses every pending item when one process dies, has no time
limit for an item, and with the spawn method runs the caller's script again. Hence this: plain
interpreters, each with one pipe and one item at a time (POSIX only).
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from itertools import islice
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any

_CHILD = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
    "from data_prep.workers import serve; serve(int(sys.argv[2]), sys.argv[3])"
)


@dataclass
class Failed:
    """What an item came to that gave no result."""

    reason: str


def run(
    task: str, items: Iterable[Any], seconds: float, processes: int | None = None
) -> Generator[tuple[int, Any], None, None]:
    """Apply a function to each item in worker processes.

    Args:
        task: 'module:function'; the function takes one item and returns its result. Both must
            pickle.
        items: what to apply it to; taken as they are needed.
        seconds: time limit for an item.
        processes: at most as many at once; None means one for each processor.

    Yields:
        (index, result) in order of completion. The result is `Failed` where the function raised,
        ran out of time or took its process down.
    """
    waiting = iter(enumerate(items))
    workers: list[_Worker] = []
    try:
        for item in islice(waiting, processes or os.cpu_count() or 1):
            workers.append(_Worker(task, seconds))
            workers[-1].start(item)
        busy = list(workers)
        while busy:
            left = min(worker.deadline for worker in busy) - time.monotonic()
            ready = wait([worker.pipe for worker in busy], timeout=max(0.0, left))
            for worker in list(busy):
                if worker.pipe not in ready and time.monotonic() < worker.deadline:
                    continue
                done = worker.index, worker.result(worker.pipe in ready)
                try:
                    worker.start(next(waiting))
                except StopIteration:
                    busy.remove(worker)
                yield done
    finally:
        for worker in workers:
            worker.stop()


class _Worker:
    """One child process and the item it is at."""

    pipe: Connection
    process: subprocess.Popen[bytes]
    index: int
    deadline: float

    def __init__(self, task: str, seconds: float) -> None:
        self.task, self.seconds = task, seconds
        self._launch()

    def _launch(self) -> None:
        self.pipe, theirs = Pipe()
        # What readers print belongs to neither stdout, which machines read, nor the progress bar.
        self.process = subprocess.Popen(
            [sys.executable, "-c", _CHILD, json.dumps(sys.path), str(theirs.fileno()), self.task],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        theirs.close()

    def start(self, item: tuple[int, Any]) -> None:
        """Begin with an item, given with its index."""
        self.index, content = item
        self.deadline = time.monotonic() + self.seconds
        with contextlib.suppress(ConnectionError):  # `result` will say that the process died
            self.pipe.send(content)

    def result(self, ready: bool) -> Any:
        """The result of the item; a process that cannot give one is replaced."""
        try:
            if ready:
                return self.pipe.recv()
            reason = f"took longer than {self.seconds:g} s"
        except (EOFError, ConnectionError):
            reason = f"the reader died (exit status {self.process.wait()})"
        self.stop()
        self._launch()
        return Failed(reason)

    def stop(self) -> None:
        self.pipe.close()
        self.process.kill()
        self.process.wait()


def serve(descriptor: int, task: str) -> None:
    """What a child does: items in, results out, until the parent closes the pipe."""
    pipe = Connection(descriptor)
    module, _, name = task.partition(":")
    function = getattr(importlib.import_module(module), name)
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        try:
            result = function(item)
        except Exception as error:
            result = Failed(" ".join(f"{error}".split())[:200] or type(error).__name__)
        pipe.send(result)
