"""Two processes that train together: the run of one process, and one set of files."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from conftest import PATIENCE, SMALL, write_music

from cgrnn.cli import main

COMMON = "--precision 64-true --accelerator cpu --transpose 2"
RNN = f"--model rnn --recurrent-dim 5 --dropout 0 {COMMON}"
CGRNN = f"--model cgrnn {' '.join(SMALL)} {COMMON} --valid-frames 30 --validate-every 1"
# Of 27 pieces two batches are full and the third has one piece, so that a process has none of it.
UNEVEN = "--segment-frames 3 --batch-size 13 --validate-every 2"
# Nothing is learned: what is left is the validation, of which each process does some batches.
STILL = "--learning-rate 1e-30 --weight-decay 0 --max-epochs 2"
OVERSHOOTS = "--batch-size 5 --learning-rate 0.2 --patience 2 --validate-every 1 --max-epochs 30"

AS_ONE = {
    "uneven": [f"{RNN} {UNEVEN} --max-epochs 3", "--model rnn --resume --max-epochs 5"],
    "stopped": [f"{RNN} {OVERSHOOTS}"],
    "still": [f"{CGRNN} {STILL}"],
}
DRAWN = {
    "cgrnn": [f"{CGRNN} --dropout 0.3 --persistent true --max-epochs 3"],
    "averages": [f"--model tsbn --latent-dim 3 --baseline-dim 3 {COMMON} --max-epochs 2"],
    # Some batches are single frames, where the recurrence has no gradient.
    "singles": [
        f"--model vrnn --recurrent-dim 3 --latent-dim 2 --feature-dim 3 {COMMON} --max-epochs 2 "
        "--segment-frames 3 --batch-size 3"
    ],
    "timed": [f"{RNN} --max-epochs 99999 --max-minutes 0.01"],
}
SCRIPT = """
import json, os, sys, time, torch
from pathlib import Path
from cgrnn import training
from cgrnn.cli import main
from cgrnn.models import RNN

runs, rank, fit = json.loads(sys.argv[1]), int(os.environ["RANK"]), training.fit

def kept(task, run, *more, **named):
    result = fit(task, run, *more, **named)
    content = {"state": task.state_dict(), "seed": torch.initial_seed()}
    torch.save(content, run.with_suffix(f".{rank}"))
    return result

def code(words):
    try:
        return main(words)
    except SystemExit as end:
        return end.code

training.fit = kept
assert not any(map(code, runs[:-1]))
if rank == 1:
    loss = RNN.loss
    RNN.loss = lambda *args, **named: loss(*args, **named) * float("inf")
last = code(runs[-1])
(Path(__file__).parent / f"code.{rank}").write_text(str(last))
while rank == 0 and not (Path(__file__).parent / "code.1").exists():
    time.sleep(0.05)  # the launcher ends the other once one has failed
sys.exit(last)
"""


class Together(NamedTuple):
    """What two processes left: a folder of runs, and what they printed."""

    folder: Path
    code: int
    out: str
    err: str


def commands(cases: dict[str, list[str]], data: Path, folder: Path) -> list[list[str]]:
    where = {name: ["--data", str(data), "-o", str(folder / name), "--json"] for name in cases}
    return [["train", *line.split(), *where[name]] for name in cases for line in cases[name]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_music(tmp_path_factory.mktemp("music") / "data.h5", valid=14)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Together:
    """All runs by two processes, and at the end one whose second process finds no finite loss."""
    folder = tmp_path_factory.mktemp("together")
    script = folder / "runs.py"
    script.write_text(SCRIPT)
    words = commands({**AS_ONE, **DRAWN, "broken": [RNN]}, data, folder)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    with subprocess.Popen(
        [*torchrun, "--nproc-per-node", "2", str(script), json.dumps(words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        try:
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            process.terminate()  # it ends its processes, where they wait for each other
    return Together(folder, process.returncode, out, err)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    for words in commands({**AS_ONE, "cgrnn": DRAWN["cgrnn"]}, data, folder):
        assert main(words) == 0
    return folder


def saved(run: Path, name: str = "last") -> Any:
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def measured(run: Path) -> list[dict[str, float]]:
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: float(v) for k, v in row.items() if v and k != "seconds"} for row in rows]


@pytest.mark.parametrize("name", AS_ONE)
def test_the_run_is_that_of_one_process(together: Together, alone: Path, name: str) -> None:
    one, two = alone / name, together.folder / name
    for kind in ("best", "last"):
        expected, found = saved(one, kind), saved(two, kind)
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=0, atol=1e-9)
    expected, found = measured(one), measured(two)
    if name == "still":  # the training losses are drawn
        for row in (*expected, *found):
            del row["train_loss"]
    # The figures of validation are float32.
    assert found == [pytest.approx(row, rel=1e-6) for row in expected]
    assert len(found) == {"uneven": 5, "still": 2}.get(name, len(found))
    assert name != "stopped" or 2 < len(found) < 30
    assert name != "uneven" or expected[0]["train_loss"] > expected[-1]["train_loss"]


@pytest.mark.parametrize("name", [*AS_ONE, *DRAWN])
def test_all_processes_end_alike(together: Together, name: str) -> None:
    first, second = (torch.load(together.folder / f"{name}.{rank}") for rank in (0, 1))
    assert first["seed"] != second["seed"]
    assert first["state"].keys() == second["state"].keys()
    for key, value in first["state"].items():
        assert torch.equal(second["state"][key], value), key
        assert torch.equal(saved(together.folder / name)[key], value), key
    assert all(abs(row["train_loss"]) < 10 for row in measured(together.folder / name))


def test_drawn_apart_and_as_good(together: Together, alone: Path) -> None:
    one, two = (measured(folder / "cgrnn") for folder in (alone, together.folder))
    for row, other in zip(one, two, strict=True):
        assert row["train_loss"] != other["train_loss"]
        assert row["valid_log_likelihood"] == pytest.approx(other["valid_log_likelihood"], abs=0.1)


def test_one_set_of_files_and_of_lines(together: Together, alone: Path) -> None:
    for name in AS_ONE:
        one, two = (
            sorted(str(path.relative_to(run)).split(".out.")[0] for path in run.rglob("*"))
            for run in (alone / name, together.folder / name)
        )
        assert one == two
    results = [json.loads(line) for line in together.out.splitlines()]
    assert len(results) == sum(map(len, [*AS_ONE.values(), *DRAWN.values()]))
    lines = [line for line in together.err.splitlines() if line.startswith("epoch ")]
    assert len(lines) == sum(
        "valid_log_likelihood" in row
        for name in (*AS_ONE, *DRAWN)
        for row in measured(together.folder / name)
    )


def test_a_loss_that_is_not_finite_in_one_process_ends_all_in_one_line(together: Together) -> None:
    assert together.code != 0
    assert [(together.folder / f"code.{rank}").read_text() for rank in (0, 1)] == ["2", "0"]
    lines = [line for line in together.err.splitlines() if line.startswith("cgrnn: ")]
    assert len(lines) == 1
    assert lines[0].startswith("cgrnn: epoch 0, step 0: the loss is inf;")
    assert together.err.count("Traceback") == 1  # the launcher's
    assert not list((together.folder / "broken").rglob("*.ckpt"))
