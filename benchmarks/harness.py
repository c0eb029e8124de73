"""What the parts of `speed.py` share: rows, alternating timing, peak memory, separate processes."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
EXPONENT = "exponent"


@dataclass(frozen=True)
class Row:
    """A line of the table: one thing measured against another in the same run.

    Attributes:
        name: of what is measured; with `against` it tells the rows of a history apart.
        ours: its measure, in `unit`; None where it was not measured, which `note` explains.
        against: the name of the reference.
        reference: the measure of that.
        unit: "s", a rate such as "frames/s", or "exponent".
        peak_memory_mb: the most that ours held above the process before it.
        note: what a reader must know.
    """

    name: str
    ours: float | None
    against: str = ""
    reference: float | None = None
    unit: str = "s"
    peak_memory_mb: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Time of ours by that of the reference, or the exponent: the lower, the better."""
        if self.ours is None or self.reference is None:
            return None
        rate = self.unit.endswith("/s")
        return self.reference / self.ours if rate else self.ours / self.reference


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def alternating(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each work. They take turns, so that a busy machine slows all of them."""
    for work in works.values():
        work()  # what is made once, such as compiled code, is not what is measured
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(seconds(work))
    return {name: statistics.median(taken) for name, taken in times.items()}


def peaks(works: list[Callable[[], object]]) -> list[float]:
    """The most that the process held during each work, in MB above what it held before it.

    Needs Linux with glibc: the kernel's record is reset, which `getrusage` cannot, and memory that
    was freed is given back first.
    """
    found = []
    for work in works:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        before = _status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        work()
        found.append(round(_status("VmHWM") - before, 1))
    return found


def _status(name: str) -> float:
    """MB of a line of the process's status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


def apart(function: str, **arguments: Any) -> Any:
    """Call "module:function" of a file beside this one in a new process, with products as `cgrnn`
    chooses them. Arguments and result are what JSON holds; rows come back as dictionaries.

    Raises:
        RuntimeError: when it fails; says how.
    """
    paths = [str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, str(HERE / "harness.py"), function, json.dumps(arguments)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(done.stdout.strip() or f"ended with status {done.returncode}")
    return json.loads(done.stdout)


def _called() -> None:
    """The other side of `apart`."""
    from cgrnn.arithmetic import use_fast_products

    use_fast_products()
    answers, sys.stdout = sys.stdout, sys.stderr  # what a part prints on its way is progress
    module, name = sys.argv[1].split(":")
    try:
        result = getattr(import_module(module), name)(**json.loads(sys.argv[2]))
    except Exception as error:
        answers.write(f"{type(error).__name__}: {error}")
        raise
    json.dump(result, answers, default=asdict)


if __name__ == "__main__":
    _called()
