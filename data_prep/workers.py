"""Work on files that may kill whoever reads them, done in processes whose death costs one file.

A process pool of the standard library loses every pending item when one process dies, has no time
limit for an item, and with the spawn method runs the caller's script again. Hence this: plain
interpreters, each with one pipe and one item at a time (POSIX only). The limit is one of processor
time, so that what is read does not depend on how busy the machine is.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
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
    "from data_prep.workers import serve; serve(int(sys.argv[2]), sys.argv[3], float(sys.argv[4]))"
)
# An item that only waits uses none of its limit: by the clock it has so many times as long.
_WAITING = 20


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
        seconds: of processor time that an item may take. One that waits for something has 20
            times as long by the clock.
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
        words = [str(theirs.fileno()), self.task, str(self.seconds)]
        # What readers print belongs to neither stdout, which machines read, nor the progress bar.
        self.process = subprocess.Popen(
            [sys.executable, "-c", _CHILD, json.dumps(sys.path), *words],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        theirs.close()

    def start(self, item: tuple[int, Any]) -> None:
        """Begin with an item, given with its index."""
        self.index, content = item
        self.deadline = time.monotonic() + _WAITING * self.seconds
        with contextlib.suppress(ConnectionError):  # `result` will say that the process died
            self.pipe.send(content)

    def result(self, ready: bool) -> Any:
        """The result of the item; a process that cannot give one is replaced."""
        reason = f"took longer than {self.seconds:g} s"
        try:
            if ready:
                return self.pipe.recv()
        except (EOFError, ConnectionError):
            status = self.process.wait()
            if status != -signal.SIGPROF:
                reason = f"the reader died (exit status {status})"
        self.stop()
        self._launch()
        return Failed(reason)

    def stop(self) -> None:
        self.pipe.close()
        self.process.kill()
        self.process.wait()


def serve(descriptor: int, task: str, seconds: float) -> None:
    """What a child does: items in, results out, until the parent closes the pipe."""
    pipe = Connection(descriptor)
    module, _, name = task.partition(":")
    function = getattr(importlib.import_module(module), name)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # which ends the process, whatever it is at
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            result = function(item)
        except Exception as error:
            result = Failed(" ".join(f"{error}".split())[:200] or type(error).__name__)
        signal.setitimer(signal.ITIMER_PROF, 0)
        pipe.send(result)
