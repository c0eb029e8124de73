"""Training that is killed, moved, ended or that diverges: what is left, and how it goes on."""

import csv
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL, Command, write_music

import cgrnn

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


def train_and_kill(words: list[str], run: Path) -> None:
    """Train in a process of its own and kill it once some epochs are done."""
    argv = [sys.executable, "-m", "cgrnn", "train", *words, "-o", str(run)]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not (run / "metrics.csv").is_file() or len(rows(run)) < KILLED_AFTER:
            assert process.poll() is None and time.monotonic() < deadline, process.stderr
            time.sleep(0.005)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert len(rows(run)) < EPOCHS


@pytest.mark.parametrize(
    "model", ["--model cgrnn --latents sample", "--model rnn-rbm --persistent true"]
)
def test_killed_and_resumed_is_as_never_killed(
    command: Command, music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    words = [*model.split(), *SMALL, "--data", str(music), "--dropout", "0.3"]
    words += ["--max-epochs", str(EPOCHS), "--validate-every", "7", "--patience", "99"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert command("train", *words, "-o", whole).code == 0
    train_and_kill(words, killed)
    assert not same(saved(whole)["state_dict"], saved(killed)["state_dict"])
    monkeypatch.chdir(tmp_path)
    outcome = command("train", "-o", "killed", "--resume")
    assert outcome.code == 0, outcome.err
    assert saved(whole)["epoch"] == saved(killed)["epoch"] == EPOCHS - 1
    assert same(saved(whole)["state_dict"], saved(killed)["state_dict"])
    if "persistent" in model:
        frames = saved(whole)["state_dict"]["chains"]
        assert frames.shape[1] == 6 and set(frames.unique().tolist()) == {0, 1}
    assert same(saved(whole, "best")["state_dict"], saved(killed, "best")["state_dict"])
    assert rows(whole) == rows(killed)
    assert [row["epoch"] for row in rows(killed)] == [str(n + 1) for n in range(EPOCHS)]


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
