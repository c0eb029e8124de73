"""The history and the table of `benchmarks/speed.py`. What it measures is not tested: speed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
import history
import speed
from harness import EXPONENT, HERE, Row

MACHINE = {"processor": "one", "threads": 2}
STEP = Row("step", 1.0, "reference", 2.0)
RATE = Row("rate", 100.0, "reference", 50.0, "frames/s")
GROWTH = Row("growth", 0.0, "proportional", 1.0, EXPONENT)


def marked(*rows: Row, machine: dict | None = None, quick: bool = False) -> list[bool]:
    """Whether each row is marked beside a history of the three rows above."""
    old = json.loads(json.dumps(history.entry(MACHINE, False, [STEP, RATE, GROWTH])))
    new = history.entry(machine or MACHINE, quick, list(rows))
    _, *lines = speed.table(list(rows), history.before([old], new)).splitlines()
    return ["SLOWER" in line for line in lines]


def test_a_ratio_of_time_is_the_lower_the_better_also_of_rates() -> None:
    assert (STEP.ratio, RATE.ratio, GROWTH.ratio) == (0.5, 0.5, 0.0)
    assert Row("not measured", None).ratio is None


def test_rows_that_became_slower_are_marked() -> None:
    kept = replace(STEP, ours=2.16, reference=4.0), replace(RATE, ours=93.0)
    assert marked(*kept, replace(GROWTH, ours=0.09)) == [False, False, False]
    worse = replace(STEP, ours=2.24, reference=4.0), replace(RATE, ours=90.0)
    assert marked(*worse, replace(GROWTH, ours=0.11)) == [True, True, True]


def test_only_like_is_compared_with_like() -> None:
    worse = replace(STEP, ours=9.0)
    assert marked(worse) == [True]
    assert marked(replace(worse, against="another")) == [False]
    assert marked(worse, machine=MACHINE | {"threads": 1}) == [False]
    assert marked(worse, machine=MACHINE | {"processor": "two"}) == [False]
    assert marked(worse, quick=True) == [False]


def test_the_last_measurement_counts_though_runs_between_left_the_row_out() -> None:
    runs = [
        history.entry(MACHINE, False, rows)
        for rows in ([replace(STEP, ours=9.0)], [STEP, RATE], [replace(RATE, ours=10.0)])
    ]
    found = history.before(runs, history.entry(MACHINE, False, []))
    assert found == {("step", "reference"): 0.5, ("rate", "reference"): 5.0}


def test_the_command_prints_a_table_and_adds_to_the_history(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    words = ("--quick", "--only", "machine,prepare", "--history", str(file))
    command = [sys.executable, str(HERE / "speed.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "product 1024³, bfloat16" in done.stdout and "needs --midi" in done.stdout
    (entry,) = history.read(file)
    (row,) = entry["rows"]
    assert row["ratio"] == row["ours"] / row["reference"] > 0
    assert entry["machine"]["threads"] >= 1
