"""Training from a data set on disk against the same set in memory, side by side.

    python benchmarks/reading.py [--segments 20000]

Segments of 240 frames × 128 keys, 4 % ones, as of Lakh: 20,000 are 614 MB as uint8, and a tenth of
that on disk. Rows: milliseconds to read a batch of 75, and a CD-1 step of the published CGRNN (MLP
400-400, GRU 500, H 250) with its batch, from memory, from disk, and from disk by a worker process.
Medians of alternating rounds. Last, the most that a process holds that reads all batches.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from cgrnn import CGRNN
from cgrnn.arithmetic import use_fast_products
from cgrnn.batches import Batch, Batches
from data_prep import store

FRAMES, KEYS, BATCH, ROUNDS = 240, 128, 75, 6
HELD = (
    "import re; from benchmarks.reading import *\n"
    "split = store.read({!r}, 'train', in_memory={}).splits['train']\n"
    "for batch in Batches(split.frames, split.lengths, BATCH, shuffle=(0, 0)): pass\n"
    "print(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])"
)


def segments(count: int) -> Iterator[tuple[str, np.ndarray]]:
    random = np.random.default_rng(0)
    for n in range(count):
        yield str(n), (random.random((FRAMES, KEYS), np.float32) < 0.04).astype(np.uint8)


def endless(frames: object, lengths: np.ndarray, workers: int) -> Iterator[Batch]:
    epoch = 0
    while True:
        batches = Batches(frames, lengths, BATCH, shuffle=(0, epoch))
        yield from DataLoader(batches, batch_size=None, num_workers=workers)
        epoch += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--segments", type=int, default=20_000)
    count = parser.parse_args().segments
    use_fast_products()
    model = CGRNN(KEYS, 250, 500, (400, 400), dropout=0.0, cd_steps=1, restarts=0.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.h5"
        start = time.perf_counter()
        store.write(path, {"train": segments(count)}, kind="binary", frame_rate=4.0)
        made = time.perf_counter() - start
        size = path.stat().st_size / 1e6
        print(
            f"{count} segments, {count * FRAMES * KEYS / 1e6:.0f} MB of frames, {size:.0f} MB"
            f" on disk, written in {made:.0f} s"
        )
        inside, stored = (
            store.read(path, "train", in_memory=how).splits["train"] for how in (True, False)
        )
        sources = {
            "from memory": endless(inside.frames, inside.lengths, 0),
            "from disk": endless(stored.frames, stored.lengths, 0),
            "from disk, one worker": endless(stored.frames, stored.lengths, 1),
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in sources}
        for _ in range(ROUNDS):
            for name, batches in sources.items():
                start = time.perf_counter()
                batch = next(batches)
                read = time.perf_counter() - start
                optimizer.zero_grad()
                model.loss(batch.frames, batch.lengths).backward()
                optimizer.step()
                times[name].append((read, time.perf_counter() - start))
        print(f"{'':<24}{'to read':>10}{'with a step':>14}{'ratio':>8}")
        medians = {
            name: [statistics.median(column) for column in zip(*rows[1:], strict=True)]
            for name, rows in times.items()
        }
        for name, (read, step) in medians.items():
            ratio = step / medians["from memory"][1]
            print(f"{name:<24}{read * 1e3:>7.1f} ms{step * 1e3:>11.1f} ms{ratio:>8.2f}")
        for name, how in (("in memory", True), ("on disk", False)):
            words = [sys.executable, "-c", HELD.format(str(path), how)]
            held = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
            print(
                f"held by a process that reads all batches, frames {name}: {int(held) / 1e3:.0f} MB"
            )


if __name__ == "__main__":
    main()
