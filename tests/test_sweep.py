"""`cgrnn sweep`: the grid that it trains, what it keeps, refuses and says."""

import csv
import fcntl
import itertools
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Command, killed, write_music

from cgrnn.cli import main
from evaluation import sweep

Refused = Callable[..., None]
TINY = ["--model", "rnn", "--batch-size", "4", "--validate-every", "1", "--max-epochs", "2"]
GRID = ["--grid", "recurrent_dim=5,3", "--grid", "learning-rate=1e-2,1e-3"]


def result(command: Command, *words: object) -> dict[str, Any]:
    outcome = command("sweep", *words, "--json")
    assert outcome.code == 0, outcome.err
    found: dict[str, Any] = json.loads(outcome.out)
    return found


def metrics(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def written(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """The files of the runs, and when they were written."""
    files = [file for file in folder.rglob("*/*") if file.is_file()]
    return {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, music: Path) -> Path:
    """A folder with a sweep of 2 × 2 points that is done. Not to be changed: copy it."""
    folder = tmp_path_factory.mktemp("swept") / "grid"
    words = [*TINY, *GRID, "--data", str(music), "-o", str(folder)]
    assert main(["sweep", *words]) == 0
    return folder


@pytest.fixture
def grid(swept: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(swept, tmp_path / "grid")
    return tmp_path / "grid"


def test_points_are_the_runs_that_train_makes(
    command: Command, grid: Path, music: Path, tmp_path: Path
) -> None:
    names = {f"recurrent_dim={n},learning_rate={x}" for n in (5, 3) for x in (0.01, 0.001)}
    assert {folder.name for folder in grid.iterdir() if folder.is_dir()} == names
    alone = ("--recurrent-dim", 3, "--learning-rate", 0.01)
    assert command("train", *TINY, *alone, "--data", music, "-o", tmp_path / "alone").code == 0
    run = grid / "recurrent_dim=3,learning_rate=0.01"
    for file in ("config.yaml", "metrics.csv"):
        one, other = ((folder / file).read_text() for folder in (run, tmp_path / "alone"))
        if file == "metrics.csv":
            one, other = (re.sub(r"(?m)^(\d+,\d+),[^,]*", r"\1", text) for text in (one, other))
        assert one == other


def test_table_says_what_the_runs_say(command: Command, grid: Path, music: Path) -> None:
    before = written(grid)
    found = result(command, *TINY, *GRID, "--data", music, "-o", grid)
    assert written(grid) == before  # nothing was trained again
    assert found["files"] == [str(grid / f"sweep.{kind}") for kind in ("csv", "md", "png", "pdf")]
    with (grid / "sweep.csv").open(newline="") as lines:
        table = {row["run"]: row for row in csv.DictReader(lines)}
    assert len(table) == len(found["runs"]) == 4
    for run in found["runs"]:
        epochs = metrics(Path(run["run"]))
        scores = [float(row["valid_log_likelihood"]) for row in epochs]
        assert (run["state"], run["reason"], run["kind"]) == ("complete", None, "exact")
        assert run["valid"] == max(scores) and run["best_epoch"] == scores.index(max(scores)) + 1
        assert run["seconds"] == float(epochs[-1]["seconds"]) and run["epochs"] == 2
        hidden, seen = run["options"]["recurrent_dim"], 6
        gates = 3 * hidden * (seen + hidden + 2)  # of the GRU, with two biases each
        assert run["parameters"] == gates + hidden + (hidden + 1) * seen
        row = table[Path(run["run"]).name]
        assert float(row["valid"]) == run["valid"] and int(row["parameters"]) == run["parameters"]
        assert row["recurrent_dim"] == str(hidden) and row["best_epoch"] == str(run["best_epoch"])
    valid = [run["valid"] for run in found["runs"]]
    assert valid == sorted(valid, reverse=True) and found["best"] == found["runs"][0]["run"]
    text = (grid / "sweep.md").read_text()
    assert all(f"={value:.3f} |" in text for value in valid) and "=: exact" in text
    assert (grid / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert (grid / "sweep.pdf").read_bytes().startswith(b"%PDF")


def test_values_may_be_added(command: Command, grid: Path, music: Path) -> None:
    before = written(grid)
    more = ["--grid", "recurrent_dim=3,4,5", "--grid", "learning_rate=0.001,0.01"]
    found = result(command, *TINY, *more, "--data", music, "-o", grid)
    assert len(found["runs"]) == 6
    after = written(grid)
    assert before.items() <= after.items()
    assert {file.relative_to(grid).parts[0] for file in after.keys() - before.keys()} == {
        f"recurrent_dim=4,learning_rate={x}" for x in (0.01, 0.001)
    }


def test_killed_sweep_goes_on(command: Command, grid: Path, music: Path, tmp_path: Path) -> None:
    """The second point is killed: the first stays as it is, the second does not begin anew."""
    words = [*TINY[:-1], "20", "--patience", "99", "--grid", "seed=0,1", "--data", str(music)]
    folder = tmp_path / "killed"
    second = folder / "seed=1"
    killed(["sweep", *words, "-o", str(folder)], 4, "on_save_checkpoint", seed=1)
    first, begun = written(folder / "seed=0"), metrics(second)
    assert len(begun) == 5
    outcome = command("sweep", *words, "-o", folder)
    assert outcome.code == 0 and "2 runs, 1 of them done" in outcome.err
    assert "[1/2]" not in outcome.err and "[2/2] seed=1" in outcome.err
    assert written(folder / "seed=0") == first
    # The row of the last epoch was written, and its checkpoint not.
    assert len(metrics(second)) == 20 and metrics(second)[:4] == begun[:4]


def test_failed_points_are_named_and_the_rest_goes_on(
    command: Command, music: Path, tmp_path: Path
) -> None:
    words = [*TINY, "--data", music, "-o", tmp_path / "grid", "--clip-norm", "1e30"]
    words += ["--grid", "model=lgssm,rnn", "--grid", "learning_rate=0.01,1e30"]
    outcome = command("sweep", *words)
    assert outcome.code == 0, outcome.err
    assert re.search(
        r"FAILED .*model=lgssm,learning_rate=0.01: .*'lgssm' is for contin", outcome.out
    )
    assert re.search(r"FAILED .*model=rnn,learning_rate=1e\+30: epoch .* parameter", outcome.out)
    assert outcome.out.count("FAILED") == 3 and outcome.out.count("=-") == 1
    again = command("sweep", *words, "--json")
    assert again.code == 0 and "[3/4]" not in again.err and "[4/4]" in again.err
    found = json.loads(again.out)
    assert [run["state"] for run in found["runs"]] == ["complete", *["failed"] * 3]
    assert found["best"] == str(tmp_path / "grid" / "model=rnn,learning_rate=0.01")
    assert found["runs"][1]["valid"] is None and "continuous" in found["runs"][1]["reason"]
    assert "continuous" in (tmp_path / "grid" / "sweep.md").read_text()


def test_all_points_failed(command: Command, music: Path, tmp_path: Path) -> None:
    words = [*TINY, "--data", music, "--model", "lgssm", "--grid", "seed=0,1", "--max-minutes", 9]
    outcome = command("sweep", *words, "-o", tmp_path / "grid")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("2 runs; 18 minutes at the most in all\n")
    assert "cgrnn: all 2 runs failed; seed=0: " in outcome.err.splitlines()[-1]
    table = (tmp_path / "grid" / "sweep.csv").read_text().splitlines()
    assert len(table) == 3 and all("failed" in line for line in table[1:])


def test_data_sets_are_not_ranked_together(command: Command, music: Path, tmp_path: Path) -> None:
    other = write_music(tmp_path / "other.h5", seed=1)
    words = [*TINY[:-1], 1, "--recurrent-dim", 3, "--grid", f"data={music},{other}"]
    found = result(command, *words, "--grid", "mlp-dims=[],[4,3]", "-o", tmp_path / "grid")
    assert found["best"] is None
    assert [run["options"]["data"] for run in found["runs"]] == [str(music)] * 2 + [str(other)] * 2
    assert "do not compare" in (tmp_path / "grid" / "sweep.md").read_text()
    assert (tmp_path / "grid" / "data=other,mlp_dims=[4,3]" / "metrics.csv").is_file()


REFUSED = "sweep --model rnn --data data.h5 -o new"
SWEPT = f"sweep {shlex.join(TINY)} --data data.h5 -o grid"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (REFUSED, ["--grid is missing"]),
        (f"{REFUSED} --grid", ["--grid", "NAME=VALUE"]),
        (f"{REFUSED} --grid layers", ["--grid", "got layers"]),
        (f"{REFUSED} --grid layers=", ["--grid", "got layers="]),
        (f"{REFUSED} --grid layers=1,,2", ["--grid", "got layers=1,,2"]),
        (f"{REFUSED} --grid bogus=1,2", ["--grid", "bogus", "no option", "--help"]),
        (f"{REFUSED} --grid latent_dim=1,2", ["--grid", "latent_dim", "train --model rnn --help"]),
        (f"{REFUSED} --grid output=a,b", ["--grid", "output", "no option"]),
        (f"{REFUSED} --grid layers=1,x", ["--layers", "a whole number, at least 1, got x"]),
        (f"{REFUSED} --grid layers=1,0", ["--layers", "at least 1, got 0"]),
        (f"{REFUSED} --grid layers=1,2,1", ["--grid", "layers=1 is there twice"]),
        (f"{REFUSED} --grid learning_rate=1e-3,0.001", ["learning_rate=0.001 is there twice"]),
        (f"{REFUSED} --grid layers=1 --grid layers=2", ["layers is there twice", "at once"]),
        (f"{REFUSED} --grid data=data.h5,gone.h5", ["gone.h5"]),
        (f"{REFUSED} --grid model=rnn,nope", ["'nope'"]),
        (f"{REFUSED} --grid layers=1,2 --batch-size 0", ["--batch-size", "at least 1"]),
        (f"{REFUSED} --grid layers=1,2 --resume", ["--resume: leave it out"]),
        ("sweep --data data.h5 --grid seed=1,2", ["--output is missing"]),
        ("sweep -o new --grid seed=1,2", ["--data is missing"]),
        (f"{SWEPT} {shlex.join(GRID)} --seed 3", ["grid", "begun with --seed 0;", "another -o"]),
        (f"{SWEPT} {shlex.join(GRID)} --data other.h5", ["begun with other data;"]),
        (f"{SWEPT} {shlex.join(GRID)} --model rnn-nade --seed 3", ["--model rnn --seed 0;"]),
        (f"{SWEPT} --grid recurrent_dim=3,5", ["begun with recurrent_dim=5,learning_rate=0.01"]),
        (f"{SWEPT} {shlex.join(GRID[:2])} --grid learning_rate=0.01", ["learning_rate=0.001"]),
    ],
)
def test_bad_sweeps_are_refused_in_one_line(
    refused: Refused, grid: Path, music: Path, words: str, says: list[str]
) -> None:
    shutil.copy(music, grid.parent / "data.h5")
    write_music(grid.parent / "other.h5", seed=1)
    refused(*shlex.split(words), says=tuple(says))


def test_second_sweep_is_kept_out(refused: Refused, grid: Path, music: Path) -> None:
    shutil.copy(music, grid.parent / "data.h5")
    handle = os.open(grid, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        refused(*shlex.split(SWEPT), *GRID, says=("grid", "another sweep"))
    finally:
        os.close(handle)


def test_other_things_named_sweep_db(refused: Refused, grid: Path, music: Path) -> None:
    (grid / "sweep.db").write_text("not a data base")
    says = ("sweep.db", "not the record", "another -o")
    refused("sweep", *TINY, *GRID, "--data", music, "-o", grid, says=says)


def test_missing_optuna(refused: Refused, music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    says = ("pip install cgrnn[sweep]",)
    refused("sweep", *TINY, *GRID, "--data", music, "-o", "new", says=says)


def points(grid: dict[str, list[Any]], values: list[float | None]) -> list[dict[str, Any]]:
    chosen = [dict(zip(grid, choice, strict=True)) for choice in itertools.product(*grid.values())]
    measured = {"kind": "estimate", "spread": 0.5, "fingerprint": "a", "reason": "none"}
    return [
        {"options": o, "valid": v, "state": "failed" if v is None else "complete", **measured}
        for o, v in zip(chosen, values, strict=True)
    ]


def test_heat_map_has_each_value_at_its_place() -> None:
    grid = {"latent_dim": [60, 20, 100], "recurrent_dim": [400, 200]}
    found = points(grid, [-1.0, -2.0, -3.0, None, -5.0, -6.0])
    axis, scale = sweep.figure(found, list(grid)).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["20", "60", "100"]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["200", "400"]
    shown = {text.get_position(): text.get_text() for text in axis.texts}
    assert shown[0, 0] == "failed" and shown[1, 0] == "≈-3.00" and shown[0, 2] == "≈-6.00"
    assert axis.images[0].get_array().filled(9).tolist() == [[9, -3], [-2, -1], [-6, -5]]
    assert scale.get_ylabel() == "nats a frame" and axis.get_xlabel() == "recurrent_dim"


def test_three_options_are_maps_side_by_side_on_one_scale() -> None:
    grid = {"data": ["sets/x.h5", "y.h5"], "latent_dim": [1, 2], "recurrent_dim": [3, 4]}
    first, second, _ = sweep.figure(points(grid, [-float(n) for n in range(8)]), list(grid)).axes
    assert (first.get_title(loc="left"), second.get_title(loc="left")) == ("data=x", "data=y")
    assert first.images[0].get_array().tolist() == [[0, -1], [-2, -3]]
    assert second.images[0].get_array().tolist() == [[-4, -5], [-6, -7]]
    assert first.images[0].norm is second.images[0].norm and second.get_ylabel() == "latent_dim"


def test_one_option_is_a_line_over_sorted_numbers() -> None:
    found = points({"learning_rate": [0.1, 0.001, 0.01]}, [-1.0, -2.0, None])
    (axis,) = sweep.figure(found, ["learning_rate"]).axes
    line = axis.lines[0].get_xydata()
    assert line[0].tolist() == [0.001, -2] and line[2].tolist() == [0.1, -1]
    assert axis.get_xscale() == "log"
    assert [text.get_text() for text in axis.texts] == ["≈-2.00", "failed", "≈-1.00"]
    low, high = axis.get_xlim()
    assert low < 0.001 and high > 0.1


def test_notes_tell_kinds_that_differ_and_figures_that_flatter() -> None:
    one, two = points({"seed": [0, 1]}, [-1.0, -2.0])
    assert not any("differ:" in line or "flatters" in line for line in sweep.notes([one, two]))
    mixed = sweep.notes([one, two | {"kind": "lower bound", "spread": None}])
    assert "≈" in mixed[0] and "≥" in mixed[0] and "Kinds differ" in mixed[1]
    assert "flatters" in " ".join(sweep.notes([one | {"spread": 1.5}, two]))


def test_the_unit_is_that_of_the_points() -> None:
    """Points of earlier versions do not say what nats are counted by."""
    one, two = points({"seed": [0, 1]}, [-1.0, -2.0])
    assert "in nats a frame," in sweep.notes([one, two])[0]
    seen = [point | {"frame": "normalised frame"} for point in (one, two)]
    assert "in nats a normalised frame," in sweep.notes(seen)[0]
    measured = {"best_epoch": 1, "epochs": 2, "seconds": 3.0, "parameters": 4, "run": "r"}
    seen = [point | measured for point in seen]
    assert sweep.cells(seen, ["seed"])[0][2] == "validation, nats a normalised frame"
    assert sweep.comma_separated(seen, ["seed"]).count("-1.0,normalised frame,") == 1
    assert "-1.0,," in sweep.comma_separated([one | measured], ["seed"])
    assert sweep.figure(seen, ["seed"]).axes[0].get_ylabel() == "nats a normalised frame"
