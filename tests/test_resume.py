"""Training that is killed, moved, ended or that diverges: what is left, and how it goes on."""

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL, Command, killed, write_music

import cgrnn
from cgrnn.arithmetic import use_fast_products

Refused = Callable[..., None]
EPOCHS = 50
KILLED_AFTER = 9


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def saved(run: Path, name: str = "last") -> Any:
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize(
    ("model", "place"),
    [
        ("--model cgrnn --latents sample", "training_step"),
        ("--model rnn-rbm --persistent true", "on_save_checkpoint"),
    ],
)
def test_killed_and_resumed_is_as_never_killed(
    command: Command,
    music: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    place: str,
) -> None:
    words = [*model.split(), *SMALL, "--data", str(music), "--dropout", "0.3"]
    words += ["--max-epochs", str(EPOCHS), "--validate-every", "7", "--patience", "99"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert command("train", *words, "-o", whole).code == 0
    killed(["train", *words, "-o", str(broken)], KILLED_AFTER, place)
    assert saved(broken)["epoch"] == KILLED_AFTER - 1
    assert len(rows(broken)) == KILLED_AFTER + (place == "on_save_checkpoint")
    assert not same(saved(whole)["state_dict"], saved(broken)["state_dict"])
    monkeypatch.chdir(tmp_path)
    outcome = command("train", "-o", "broken", "--resume")
    assert outcome.code == 0, outcome.err
    assert saved(whole)["epoch"] == saved(broken)["epoch"] == EPOCHS - 1
    assert same(saved(whole)["state_dict"], saved(broken)["state_dict"])
    if "persistent" in model:
        frames = saved(whole)["state_dict"]["chains"]
        assert frames.shape[1] == 6 and set(frames.unique().tolist()) == {0, 1}
    assert same(saved(whole, "best")["state_dict"], saved(broken, "best")["state_dict"])
    assert rows(whole) == rows(broken)
    assert [row["epoch"] for row in rows(broken)] == [str(n + 1) for n in range(EPOCHS)]


def test_killed_before_the_first_checkpoint_begins_anew(
    command: Command, small_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(small_run / "config.yaml", run)
    assert command("train", "-o", run, "--resume").code == 0
    assert rows(run) == rows(small_run)
    assert same(saved(run)["state_dict"], saved(small_run)["state_dict"])


def test_longer_run_goes_on_from_the_last_epoch(
    command: Command, small_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    assert command("train", "-o", run, "--resume", "--max-epochs", 4).code == 0
    assert rows(run)[:2] == rows(small_run) and len(rows(run)) == 4
    assert "max_epochs: 4" in (run / "config.yaml").read_text()


def test_resumed_with_data_that_was_moved(
    command: Command, small_run: Path, music: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    shutil.copy(music, tmp_path / "moved.h5")
    words = ("--resume", "--max-epochs", 3, "--data", tmp_path / "moved.h5")
    assert command("train", "-o", run, *words).code == 0
    assert str(tmp_path / "moved.h5") in (run / "config.yaml").read_text()
    assert saved(run)["cgrnn"]["data"]["path"] == str(tmp_path / "moved.h5")


def test_moved_run_keeps_its_best_checkpoint(command: Command, music: Path, tmp_path: Path) -> None:
    words = ["--model", "rnn", "--data", music, "--recurrent-dim", "5", "--validate-every", "1"]
    words += ["--learning-rate", "0.1", "--max-epochs", "10", "--batch-size", "4"]  # overshoots
    assert command("train", *words, "-o", tmp_path / "run").code == 0
    (tmp_path / "run").rename(tmp_path / "moved")
    best = saved(tmp_path / "moved", "best")
    assert command("train", "-o", tmp_path / "moved", "--resume", "--max-epochs", 11).code == 0
    scores = [float(row["valid_log_likelihood"]) for row in rows(tmp_path / "moved")]
    assert len(scores) == 11 and scores.index(max(scores)) == best["epoch"] < 9
    assert same(saved(tmp_path / "moved", "best")["state_dict"], best["state_dict"])


@pytest.mark.parametrize(
    "ending",
    [
        ["--max-epochs", "3"],
        ["--max-epochs", "300", "--patience", "2", "--learning-rate", "0.1"],
        ["--max-epochs", "99999", "--max-minutes", "0.005"],
    ],
)
def test_run_that_has_ended_stays_as_it_is(
    command: Command, music: Path, tmp_path: Path, ending: list[str]
) -> None:
    words = [*SMALL, "--data", music, "-o", tmp_path / "run", "--validate-every", "1"]
    assert command("train", *words, *ending).code == 0
    before, history = saved(tmp_path / "run"), rows(tmp_path / "run")
    assert command("train", "-o", tmp_path / "run", "--resume").code == 0
    assert rows(tmp_path / "run") == history
    assert same(saved(tmp_path / "run")["state_dict"], before["state_dict"])


def poison(run: Path, index: int) -> str:
    """Make the next step of the optimiser spoil a parameter; give its name."""
    file = run / "checkpoints" / "last.ckpt"
    content = saved(run)
    content["optimizer_states"][0]["state"][index]["exp_avg"].fill_(float("nan"))
    torch.save(content, file)
    return [name for name, _ in cgrnn.load(run).named_parameters()][index]


@pytest.mark.parametrize("index", [0, 4])
@pytest.mark.parametrize("sequences", [4, 99])  # a step: three steps an epoch, and one
def test_divergence_names_the_parameter_and_keeps_the_last_good_checkpoint(
    command: Command, music: Path, tmp_path: Path, index: int, sequences: int
) -> None:
    run = tmp_path / "run"
    words = [*SMALL, "--batch-size", sequences, "--data", music, "--validate-every", "1"]
    assert command("train", *words, "-o", run, "--max-epochs", "2").code == 0
    name = poison(run, index)
    good = {kind: saved(run, kind) for kind in ("best", "last")}
    outcome = command("train", "-o", run, "--resume", "--max-epochs", "6")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1 and outcome.err.startswith("cgrnn: epoch 2")
    assert f"parameter {name};" in outcome.err and "lower --learning-rate" in outcome.err
    for kind, content in good.items():
        assert same(saved(run, kind)["state_dict"], content["state_dict"])
        model = cgrnn.load(run / "checkpoints" / f"{kind}.ckpt")
        assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert command("generate", run, "-o", tmp_path / "new", "--frames", 2).code == 0


@pytest.mark.parametrize("sequences", [4, 99])
def test_learning_rate_out_of_all_bounds(command: Command, tmp_path: Path, sequences: int) -> None:
    data = write_music(tmp_path / "data.h5")
    words = [*SMALL, "--batch-size", sequences, "--learning-rate", "1e30", "--clip-norm", "1e30"]
    words += ["--max-epochs", "4", "--validate-every", "1"]
    outcome = command("train", "--data", data, "-o", tmp_path / "run", *words)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("cgrnn: epoch 0") and outcome.err.count("\n") == 1
    assert "parameter" in outcome.err and "lower --learning-rate" in outcome.err


def test_double_precision(command: Command, music: Path, tmp_path: Path) -> None:
    words = [*SMALL, "--data", music, "--precision", "64-true", "--max-epochs", "1"]
    outcome = command("train", *words, "-o", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    kept = saved(tmp_path / "run")["state_dict"].values()
    assert {value.dtype for value in kept} == {torch.float64}
    score = ("--chains", 3, "--levels", 4, "--samples", 1)
    outcome = command("evaluate", tmp_path / "run", *score)
    assert outcome.code == 0, outcome.err


ARITHMETIC = """
import sys
from pathlib import Path
from cgrnn import arithmetic
from cgrnn.cli import main

arithmetic.CPUINFO, folder = Path(sys.argv[1]) / "cpuinfo", Path(sys.argv[1])

def train(run, vendor, *more):
    arithmetic.CPUINFO.write_text(f"vendor_id\\t: {vendor}\\n")
    assert main(["train", *sys.argv[2:], "-o", str(folder / run), *more]) == 0

train("whole", "AuthenticAMD", "--max-epochs", "4")
train("other", "GenuineIntel", "--max-epochs", "4")
train("broken", "AuthenticAMD", "--max-epochs", "2")
train("broken", "GenuineIntel", "--max-epochs", "4", "--resume")
"""


def test_a_resumed_run_multiplies_as_before(music: Path, tmp_path: Path) -> None:
    """On a machine that would by itself take the other library. Short sums are the same in both."""
    words = ["--model", "rnn", "--data", str(music), "--recurrent-dim", "600"]
    words += ["--schedule", "constant", "--validate-every", "2", "--accelerator", "cpu"]
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}  # it rounds with more
    argv = [sys.executable, "-c", ARITHMETIC, str(tmp_path), *words]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "note:" not in done.stderr
    whole, other, broken = (saved(tmp_path / name) for name in ("whole", "other", "broken"))
    assert whole["cgrnn"]["arithmetic"] == broken["cgrnn"]["arithmetic"]
    assert same(whole["state_dict"], broken["state_dict"])
    if whole["cgrnn"]["arithmetic"]["matmul"] != "oneDNN":
        pytest.skip("oneDNN is not to be had here")
    assert other["cgrnn"]["arithmetic"]["matmul"] == "MKL"
    assert not same(whole["state_dict"], other["state_dict"])


def test_what_a_machine_cannot_keep_is_told(
    command: Command, small_run: Path, tmp_path: Path
) -> None:
    run, own = tmp_path / "run", use_fast_products()
    shutil.copytree(small_run, run)
    content = saved(run)
    assert content["cgrnn"]["arithmetic"] == own
    content["cgrnn"]["arithmetic"] = {"matmul": "another", "threads": own["threads"] + 1}
    torch.save(content, run / "checkpoints" / "last.ckpt")
    outcome = command("train", "-o", run, "--resume", "--max-epochs", 3)
    assert outcome.code == 0
    first, second = (line for line in outcome.err.splitlines() if line.startswith("note:"))
    assert "multiplied by another so far" in first
    assert second.endswith(f"unless you set OMP_NUM_THREADS={own['threads'] + 1}")
    content = saved(run)
    assert content["cgrnn"]["arithmetic"] == own


def test_a_run_without_a_record_of_its_arithmetic_goes_on(
    command: Command, small_run: Path, tmp_path: Path
) -> None:
    """As those have none that were begun before there was one."""
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    for name in ("best", "last"):
        content = saved(run, name)
        del content["cgrnn"]["arithmetic"]
        torch.save(content, run / "checkpoints" / f"{name}.ckpt")
    cgrnn.load(run)
    outcome = command("train", "-o", run, "--resume", "--max-epochs", 3)
    assert outcome.code == 0 and "note:" not in outcome.err
    assert saved(run)["cgrnn"]["arithmetic"] == use_fast_products()
