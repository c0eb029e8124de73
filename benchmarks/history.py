"""The history of the figures of `speed.py`: JSON, an entry a line, the newest last."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from harness import EXPONENT, HERE, Row

SLOWER = 0.1

Entry = dict[str, Any]


def entry(machine: dict[str, Any], quick: bool, rows: list[Row]) -> Entry:
    """What is kept of a run: when, of which commit, on what, and every row with its ratio."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _commit(),
        "quick": quick,
        "machine": machine,
        "rows": [{**asdict(row), "ratio": row.ratio} for row in rows],
    }


def read(file: Path) -> list[Entry]:
    """The entries of a history; none where there is no file."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def append(file: Path, new: Entry) -> None:
    with file.open("a") as lines:
        lines.write(json.dumps(new, ensure_ascii=False) + "\n")


def before(history: list[Entry], new: Entry) -> dict[tuple[str, str], float]:
    """The ratio that each row had when it was last measured alike: same processor and threads.

    Ratios are compared and not seconds: the reference has met the same busy machine.
    """
    found = {}
    for old in history:
        if _alike(old) == _alike(new):
            found |= {(row["name"], row["against"]): row["ratio"] for row in old["rows"]}
    return found


def slower(row: Row, old: float) -> bool:
    """More than 10 % slower than it was; of an exponent, 0.1 steeper."""
    return row.ratio > old + SLOWER * (1.0 if row.unit == EXPONENT else old)


def _alike(run: Entry) -> tuple[object, ...]:
    return run["machine"]["processor"], run["machine"]["threads"], run["quick"]


def _commit() -> str | None:
    if shutil.which("git") is None:
        return None
    words = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(words, cwd=HERE, capture_output=True, text=True)
    return done.stdout.strip() or None
