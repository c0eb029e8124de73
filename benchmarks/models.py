"""All models on one data set, with an equal budget of time each: the table of the README.

    python benchmarks/models.py JSB_Chorales.mat -o compared [--minutes 10] [--models rnn,cgrnn]

Each model is trained at its default size with `cgrnn train --max-minutes`, and measured with
`cgrnn evaluate` on the test split. Runs that are there already are not made again, so that an
interrupted comparison goes on. The table is printed, and written as table.md.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from cgrnn.models import MODELS
from cgrnn.settings import MARKS
from data_prep import store
from evaluation.comparison import Value, form_with, written

HEAD = (
    "| model | test nats per frame | per sequence | kind | prediction | reconstruction "
    "| parameters | frames/s |\n|---|---|---|---|---|---|---|---|"
)


def cgrnn(*words: object) -> dict[str, Any]:
    """What a command says in JSON; its progress goes to the terminal."""
    command = [sys.executable, "-m", "cgrnn", *map(str, words), "--json"]
    print("$ cgrnn", *words, file=sys.stderr, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measured(name: str, data: Path, run: Path, minutes: float) -> dict[str, Any]:
    """Train and evaluate a model, unless that was done before."""
    file = run / "evaluation.json"
    if not file.is_file():
        resume = ["--resume"] if (run / "checkpoints" / "last.ckpt").is_file() else []
        budget = ("--max-minutes", minutes, "--max-epochs", 100_000, "--patience", 1000)
        words = ("train", "--model", name, "--data", data, "-o", run, *budget)
        cgrnn(*words, *resume)
        cgrnn("evaluate", run)
    found: dict[str, Any] = json.loads(file.read_text())
    with (run / "metrics.csv").open(newline="") as lines:
        last = list(csv.DictReader(lines))[-1]
    trained = len(store.read(data, "train").splits["train"].frames)
    found["frames_a_second"] = trained * int(last["epoch"]) / float(last["seconds"])
    return found


def row(found: dict[str, Any]) -> str:
    scores, hits = found["log_likelihood"], found.get("accuracy") or found["rmse"]
    form = "{:.1%}" if "accuracy" in found else "{:.3f}"
    mark = MARKS[scores["kind"]]
    per_frame = Value(scores["per_frame"], scores["stderr"], mark)
    cells = [
        f"`{found['model']}`",
        written(per_frame, ".2f"),
        written(Value(scores["per_sequence"], mark=mark), form_with(scores["stderr"], ".2f")),
        scores["kind"],
        form.format(hits["prediction"]),
        form.format(hits["reconstruction"]),
        f"{found['parameters']:,}",
        f"{found['frames_a_second']:,.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="a standard set of piano-rolls (.mat), or a DATA.h5")
    parser.add_argument("-o", "--output", default="compared", help="folder of the runs")
    parser.add_argument("--minutes", type=float, default=10.0, help="of training for each model")
    parser.add_argument("--models", default="", help="names, with commas between; default: all")
    options = parser.parse_args()
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    data = Path(options.data)
    if data.suffix != ".h5":
        data = folder / "data.h5"
        if not data.is_file():
            cgrnn("prepare", "pianorolls", options.data, "-o", data)
    kind = store.read(data, "test").attributes["kind"]
    names = options.models.split(",") if options.models else list(MODELS)
    rows = []
    for name in names:
        if kind in MODELS[name].kinds:
            rows.append(row(measured(name, data, folder / name, options.minutes)))
    table = "\n".join([HEAD, *rows])
    with store.replacing(folder / "table.md") as file:
        file.write_text(table + "\n")
    print(table)


if __name__ == "__main__":
    main()
