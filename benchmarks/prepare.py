"""`prepare midi` against the plain loop over pretty_midi, on a folder of real MIDI files.

    python benchmarks/prepare.py speed FOLDER
    python benchmarks/prepare.py agreement FOLDER…
    python benchmarks/prepare.py memory
    python benchmarks/prepare.py kill

`speed`: files a second of the whole call, the data file included, and of `get_piano_roll(4) > 0`
in one process with a try/except; side by side, so that a busy machine slows both.
`agreement`: for each folder the share of active cells that both have, of those that either has,
over the files that pretty_midi reads; and the files that differ most.
`memory`: the most that the process holds with 450, 4,500 and 45,000 small files that differ.
`kill`: 100,000 small files; the run is killed half-way, called again, and must end with the bytes
of a run that was left alone. Some minutes on two cores.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

FRAME_RATE = 4.0
_PREPARE = """
import resource, sys
from data_prep.midi import prepare_midi
summary = prepare_midi(sys.argv[1], sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, summary["files_read"])
"""


def by_pretty_midi(path: Path) -> np.ndarray | None:
    """Its roll (frames, 128), or None where it cannot read the file."""
    import pretty_midi

    with warnings.catch_warnings(), contextlib.suppress(Exception):
        warnings.simplefilter("ignore")
        return (pretty_midi.PrettyMIDI(str(path)).get_piano_roll(FRAME_RATE) > 0).T
    return None


def midi_files(folder: str) -> list[Path]:
    return sorted(path for path in Path(folder).rglob("*.mid"))


def speed(folder: str) -> tuple[float, float]:
    """Seconds of `prepare_midi` (the median) and of the loop over pretty_midi."""
    import h5py  # noqa: F401  # what either side loads once is not what is measured
    import pretty_midi  # noqa: F401

    from data_prep.midi import prepare_midi

    files = midi_files(folder)
    ours: list[float] = []

    def measure(rounds: int) -> None:
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as place:
                start = time.perf_counter()
                summary = prepare_midi(folder, Path(place) / "x.h5")
                ours.append(time.perf_counter() - start)
                read = summary["files_read"]
        print(f"prepare_midi: {read} of {len(files)} files read, {ours[-1]:.3f} s")

    measure(3)
    start = time.perf_counter()
    read = sum(by_pretty_midi(path) is not None for path in files)
    theirs = time.perf_counter() - start
    print(f"pretty_midi: {read} of {len(files)} files read, {theirs:.3f} s")
    measure(3)
    median = statistics.median(ours)
    print(f"{len(files) / median:.0f} against {len(files) / theirs:.0f} files a second:")
    print(f"{theirs / median:.1f} times as fast (slowest round {theirs / max(ours):.1f})")
    return median, theirs


def agreement(folder: str) -> None:
    from data_prep import workers
    from data_prep.harvest import unpack
    from data_prep.midi_rolls import Request
    from data_prep.midi_sets import SECONDS_A_FILE, TASKS

    files = midi_files(folder)
    request = Request(FRAME_RATE, None, 0, 127)
    items = [(TASKS[0], path.read_bytes(), request) for path in files]
    ours = dict(workers.run("data_prep.harvest:work", items, SECONDS_A_FILE))
    both = either = compared = 0
    differing: list[tuple[int, str]] = []
    for n, path in enumerate(files):
        theirs = by_pretty_midi(path)
        if theirs is None or isinstance(ours[n], workers.Failed):
            who = "pretty_midi" if theirs is None else f"we ({ours[n].reason})"
            print(f"  {path.name}: {who} cannot read it")
            continue
        packed = ours[n]
        roll = unpack(packed.kind, packed.shape, packed.content)
        frames = max(len(roll), len(theirs))
        one, other = (
            np.pad(r.astype(bool), ((0, frames - len(r)), (0, 0))) for r in (roll, theirs)
        )
        both, either = both + (one & other).sum(), either + (one | other).sum()
        compared += 1
        if cells := int((one != other).sum()):
            differing.append((cells, path.name))
    share = both / max(1, either)
    print(f"{folder}: {share:.4%} of {either} active cells in {compared} of {len(files)} files;")
    print(f"  {len(differing)} files differ", *sorted(differing)[-9:], sep="\n    ")


def small_files(folder: Path, count: int) -> None:
    """Files of some notes, all different: a quarter note for each digit of their number."""
    folder.mkdir(parents=True)
    for n in range(count):
        notes = b"".join(
            bytes((0, 0x90, 40 + 12 * place + digit, 90, 96, 0x80, 40 + 12 * place + digit, 0))
            for place, digit in enumerate(map(int, f"{n:06}"))
        )
        track = notes + b"\x00\xff\x2f\x00"
        header = b"MThd\x00\x00\x00\x06\x00\x00\x00\x01\x00\x60"
        body = header + b"MTrk" + len(track).to_bytes(4, "big") + track
        (folder / f"{n:06}.mid").write_bytes(body)


@contextlib.contextmanager
def prepared(folder: Path, output: Path) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, "-c", _PREPARE, str(folder), str(output)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as process:
        yield process


def run(folder: Path, output: Path) -> str:
    with prepared(folder, output) as process:
        return process.communicate()[0]


def memory() -> None:
    for count in (450, 4_500, 45_000):
        with tempfile.TemporaryDirectory() as place:
            small_files(Path(place) / "in", count)
            start = time.perf_counter()
            said = run(Path(place) / "in", Path(place) / "x.h5").split()
            taken = time.perf_counter() - start
            print(f"{count} files: {said[0]} MiB at the most, {said[1]} read, {taken:.1f} s")


def kill() -> None:
    with tempfile.TemporaryDirectory() as place:
        folder, outputs = Path(place) / "in", [Path(place) / "one.h5", Path(place) / "two.h5"]
        small_files(folder, 100_000)
        start = time.perf_counter()
        said = run(folder, outputs[0]).split()
        whole = time.perf_counter() - start
        print(f"left alone: {said[1]} files read, {said[0]} MiB at the most, {whole:.1f} s")
        with prepared(folder, outputs[1]) as process:
            time.sleep(whole / 2)
            process.send_signal(signal.SIGKILL)
        print(f"killed after {whole / 2:.1f} s: {outputs[1].name} there: {outputs[1].exists()}")
        start = time.perf_counter()
        run(folder, outputs[1])
        same = len({hashlib.sha256(path.read_bytes()).digest() for path in outputs}) == 1
        print(f"called again: {time.perf_counter() - start:.1f} s; the same bytes: {same}")


def main() -> None:
    on_real_files = {"speed": speed, "agreement": agreement}
    on_small_files = {"memory": memory, "kill": kill}
    what, *folders = sys.argv[1:] or [""]
    if what in on_real_files and folders:
        for folder in folders:
            on_real_files[what](folder)
    elif what in on_small_files and not folders:
        on_small_files[what]()
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
