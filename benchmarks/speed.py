"""How fast and how large, against references measured beside it in the same run: one table.

    python benchmarks/speed.py [--run RUN] [--midi DIR] [--only train,ais,…] [--quick]

Every row says what `cgrnn` takes (ours), what the reference takes, and their ratio: our time over
the time of the reference, so that 0.5 is twice as fast, and lower is better in every row. Seconds
depend on the machine and on what else it does; ratios are what to quote, beside the products of
1024³ in the first line. The parts and their rows:

machine     a product of 1024³ in bfloat16 against float32: what lower precision could gain.
train       a training step of the published Lakh setting (75 × 240 × 128, CD-1), against torch's
            own `nn.GRU` of the same size, and against its matrix products alone (the floor).
ais         chain-levels of annealed importance sampling at the published setting (240 frames, 100
            chains × 100 levels), against the matrix products alone, and the published code's time.
nats        seconds until the mean log Z of a test split is known, and how far it is off: by even
            levels, and by what `cgrnn evaluate` does, against the textbook loop (`plain_ais.py`)
            at 100 × 1000 on every frame. Needs `--run`: a trained binary CGRNN or RNN-ssRBM.
generate    frames generated a second at the published size with 200 Gibbs sweeps each, for one
            sequence and for 64, against the same sweeps as a plain loop of torch calls.
rbm         samples a second of training an RBM by CD-1, against scikit-learn and learnergy
            (`pip install cgrnn[benchmarks]`).
prepare     MIDI files a second of `cgrnn prepare midi`, against a loop over pretty_midi. Needs
            `--midi`: a folder of MIDI files.
memory      the most that a training step and AIS hold, against `nn.GRU` and the textbook loop.
growth      exponents: how time and memory of a training step grow with batch, frames and hidden
            units, and those of AIS with frames and chains; 1 is proportional, 0 constant.

Each part runs in a process of its own. The memory column is the most that our side held above what
its process held before. The figures are added to a history (`benchmarks/history.jsonl`, a run a
line). A row whose ratio has grown by more than 10 % (an exponent: by 0.1) since the last run on the
same processor with as many threads is marked SLOWER. Some ten minutes on two quiet cores.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import history
from harness import HERE, Row, apart

PARTS = {
    "machine": "machine:rows",
    "train": "train_step:rows",
    "ais": "ais:rows",
    "nats": "error_per_second:rows",
    "generate": "generation:rows",
    "rbm": "rbm_peers:rows",
    "prepare": "preparing:rows",
    "memory": "memory:rows",
    "growth": "growth:rows",
}
# What each part is told of the command's options; it does nothing without a path that it needs.
TOLD = {
    "train": (),
    "ais": (),
    "nats": ("run", "quick"),
    "prepare": ("midi",),
}


def measured(part: str, options: argparse.Namespace) -> list[Row]:
    """The rows of a part; when it cannot be measured, one that says why."""
    told = {name: getattr(options, name) for name in TOLD.get(part, ("quick",))}
    if missing := [name for name, value in told.items() if value is None]:
        return [Row(part, None, note=f"not measured: needs --{missing[0]}")]
    start = time.perf_counter()
    print(f"{part} …", file=sys.stderr, flush=True)
    try:
        rows = [_row(found) for found in apart(PARTS[part], **told)]
    except RuntimeError as error:
        return [Row(part, None, note=f"failed: {error}")]
    print(f"{part}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    return rows


def _row(found: dict[str, Any]) -> Row:
    """A row as a part gave it, or, of one that gives seconds by a named reference, made from it."""
    if "ours" in found:
        return Row(**found)
    taken, ratio = found["seconds"], found["ratio"]
    return Row(found["name"], taken, str(found["reference"]), taken / ratio)


def table(rows: list[Row], before: dict[tuple[str, str], float]) -> str:
    """The rows under each other, with what each ratio was before, and beneath each its note."""
    cells, notes = [("", "ours", "reference", "ratio", "before", "MB", "against")], [""]
    for row in rows:
        old = before.get((row.name, row.against))
        memory = "" if row.peak_memory_mb is None else f"{row.peak_memory_mb:.0f}"
        was = "" if old is None else _shown(old)
        values = (_shown(row.ours, row.unit), _shown(row.reference, row.unit), _shown(row.ratio))
        slower = old is not None and row.ratio is not None and history.slower(row, old)
        cells.append((row.name + " SLOWER" * slower, *values, was, memory, row.against))
        notes.append(f"\n    {row.note}" if row.note else "")
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for line, note in zip(cells, notes, strict=True):
        columns = zip(line, "<>>>>><", widths, strict=True)
        lines.append("  ".join(f"{c:{side}{width}}" for c, side, width in columns).rstrip() + note)
    return "\n".join(lines)


def _shown(value: float | None, unit: str = "") -> str:
    if value is None:
        return "–"
    if unit == "s" and value < 1:
        return f"{1e3 * value:.3g} ms"
    number = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return number if unit in ("", "exponent") else f"{number} {unit}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", help="run directory of a trained model, for nats")
    parser.add_argument("--midi", help="folder of MIDI files, for prepare")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between")
    parser.add_argument("--quick", action="store_true", help="small: shows that it works")
    parser.add_argument("--history", type=Path, default=HERE / "history.jsonl")
    options = parser.parse_args()
    parts = options.only.split(",")
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"--only: no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    machine: dict[str, Any] = apart("machine:description")
    rows = [row for part in parts for row in measured(part, options)]
    new = history.entry(machine, options.quick, [row for row in rows if row.ratio is not None])
    before = history.before(history.read(options.history), new)
    history.append(options.history, new)
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    print(table(rows, before))


if __name__ == "__main__":
    main()
