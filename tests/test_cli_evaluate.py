"""`cgrnn evaluate` stopped and continued, on two processes, and what it says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import PATIENCE, SMALL, Command

from cgrnn import __version__, load
from cgrnn.arithmetic import use_fast_products
from data_prep import store
from evaluation import mean_partition
from evaluation.blocks import Blocks

WORDS = ("--chains", 4, "--levels", 100, "--samples", 2, "--sweeps", 5, "--horizon", 6)
BLOCK, SWEEPS = 70_000, 100  # small enough for several blocks a stage, and soon done


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sequences enough for two batches."""
    path = tmp_path_factory.mktemp("data") / "more.h5"
    random = np.random.default_rng(1)

    def rolls(count: int) -> list[tuple[str, np.ndarray]]:
        sizes = [3 + n % 4 for n in range(count)]
        return [(str(n), (random.random((k, 6)) < 0.4).astype("uint8")) for n, k in
                enumerate(sizes)]  # fmt: skip

    splits = {"train": rolls(3), "valid": rolls(1), "test": rolls(70)}
    store.write(path, splits, kind="binary", frame_rate=4.0, lowest_pitch=60)
    return path


@pytest.fixture
def run(small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(mean_partition._BLOCK, "cpu", BLOCK)
    monkeypatch.setattr(mean_partition, "REVERSE_SWEEPS", SWEEPS)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(small_run, tmp_path / "run")
    return Path("run")


def evaluated(command: Command, run: Path, data: Path) -> dict[str, Any]:
    outcome = command("evaluate", run, "--data", data, *WORDS, "--json")
    assert outcome.code == 0, outcome.err
    found: dict[str, Any] = json.loads(outcome.out)
    return found


class Counted:
    """Counts the blocks that are written, and interrupts before one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stop: int | None = None) -> None:
        self.names: list[str] = []
        write = Blocks._write

        def watched(blocks: Blocks, name: str, number: int, result: Any) -> None:
            if len(self.names) == stop:
                raise KeyboardInterrupt
            write(blocks, name, number, result)
            self.names.append(f"{name}-{number}")

        monkeypatch.setattr(Blocks, "_write", watched)


def test_interrupted_continued_and_on_two_processes_it_says_the_same(
    command: Command, run: Path, data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patch:
        whole = Counted(patch)
        alone = evaluated(command, run, data)
    stages = {name.split("-")[0] for name in whole.names}
    assert stages >= {"pilot", "long", "reverse", "accuracy", "recursive", "mixing"}
    assert sum(name.startswith("reverse") for name in whole.names) > 2
    (run / "evaluation.json").unlink()
    for stop in (2, len(whole.names) - 6):  # in the first stage, and near the end
        with monkeypatch.context() as patch:
            Counted(patch, stop)
            outcome = command("evaluate", run, "--data", data, *WORDS)
        assert (outcome.code, outcome.out) == (130, "")
        assert outcome.err.splitlines()[-1] == (
            "cgrnn: interrupted; what is finished is kept; the same command goes on"
        )
        assert not (run / "evaluation.json").exists()
    with monkeypatch.context() as patch:
        rest = Counted(patch)
        assert evaluated(command, run, data) == alone
    assert rest.names == whole.names[-4:]  # 2 and all but 6 were kept
    assert not (run / ".evaluation.work").exists()
    (run / "evaluation.json").unlink()
    assert on_two_processes(run, data, tmp_path) == alone
    assert json.loads((run / "evaluation.json").read_text()) == alone


def on_two_processes(run: Path, data: Path, folder: Path) -> Any:
    script = folder / "small_blocks.py"
    script.write_text(
        "import sys\nfrom cgrnn.cli import main\nfrom evaluation import mean_partition\n"
        f"mean_partition._BLOCK['cpu'] = {BLOCK}\nmean_partition.REVERSE_SWEEPS = {SWEEPS}\n"
        "sys.exit(main())\n"
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    torchrun += ["--standalone", str(script)]
    words = ["evaluate", str(run), "--data", str(data), *map(str, WORDS), "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run(
        [*torchrun, *words], capture_output=True, text=True, env=environment, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1  # the first rank alone
    return json.loads(done.stdout)


def test_other_options_begin_anew(
    command: Command, run: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        Counted(patch, 2)
        assert command("evaluate", run, "--data", data, *WORDS).code == 130
    counted = Counted(monkeypatch, 1)
    outcome = command("evaluate", run, "--data", data, *WORDS, "--seed", 1)
    assert outcome.code == 130 and counted.names == ["search-0"]
    assert outcome.err.count("begins anew: that one had seed 0 (now 1)\n") == 1


def test_other_threads_begin_anew_and_are_told(
    command: Command, run: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_num_threads()
    with monkeypatch.context() as patch:
        Counted(patch, 2)
        assert command("evaluate", run, "--data", data, *WORDS).code == 130
    counted = Counted(monkeypatch, 1)
    torch.set_num_threads(before + 1)
    try:
        outcome = command("evaluate", run, "--data", data, *WORDS)
    finally:
        torch.set_num_threads(before)
    assert outcome.code == 130 and counted.names == ["search-0"]
    assert f"begins anew: that one had threads {before} (now {before + 1})\n" in outcome.err


def test_what_a_reader_is_told(command: Command, run: Path, data: Path) -> None:
    outcome = command("evaluate", run, "--data", data, *WORDS)
    found = json.loads((run / "evaluation.json").read_text())
    assert found["versions"].keys() == {"cgrnn", "torch", "python"}
    assert found["versions"]["cgrnn"] == __version__
    assert found["arithmetic"] == use_fast_products()
    told = ["--data", str(data), *map(str, WORDS)]
    words = found["command"].split()
    assert words[:3] == ["cgrnn", "evaluate", "run"]
    assert dict(zip(words[3::2], words[4::2], strict=True)) == dict(
        zip(told[::2], told[1::2], strict=True)
    )
    weights = load("run").parameters()
    assert found["parameters"] == sum(weight.numel() for weight in weights)
    ahead = found["recursive"]
    assert ahead["steps"] == [1, 2, 3, 4, 5]  # of six frames, one is told
    assert ahead["frames"] == [70, 70, 52, 34, 17]  # by the lengths above
    assert len(ahead["accuracy"]) == len(ahead["stderr"]) == len(ahead["note_split"]["false"]) == 5
    for protocol in ("prediction", "reconstruction"):
        split = found["note_split"][protocol]
        parts = split["missed"] + split["false"] + split["misplaced"]
        assert split["total"] == pytest.approx(parts)
    shown = outcome.out.splitlines()
    heads = next(line for line in shown if "4 ahead" in line)
    assert heads.endswith("4 ahead  reconstruction") and "16 ahead" not in heads
    row = next(line for line in shown if line.startswith("frame accuracy"))
    values = [found["accuracy"]["prediction"], ahead["accuracy"][0], ahead["accuracy"][3],
              found["accuracy"]["reconstruction"]]  # fmt: skip
    assert row.split()[2:] == [f"{value:.1%}" for value in values]


def test_a_bound_over_draws_of_latents_says_what_its_error_is(
    command: Command, music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mean_partition, "REVERSE_SWEEPS", SWEEPS)
    monkeypatch.chdir(tmp_path)
    words = ["--latents", "sample", "--max-epochs", 1, "--validate-every", 1, *SMALL]
    assert command("train", "--data", music, "-o", "run", *words).code == 0
    outcome = command("evaluate", "run", *WORDS)
    assert outcome.code == 0, outcome.err
    found = json.loads(Path("run/evaluation.json").read_text())["log_likelihood"]
    assert found["kind"] == "lower bound" and found["draws"] >= 9  # of two sequences
    assert f"the mean over {found['draws']} draws of the latents" in outcome.out
    assert (
        "the draws of the latents; not the gap from the bound up to the likelihood" in outcome.out
    )
    assert "proven: the bound is at most " in outcome.out
