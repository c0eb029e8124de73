"""A small data set, a small run, and the command called in this process."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from cgrnn.cli import main
from data_prep import store

SMALL = [
    *("--hidden-dim", "4", "--recurrent-dim", "5", "--cd-steps", "2", "--batch-size", "4"),
    *("--valid-chains", "2", "--valid-levels", "3", "--valid-frames", "5"),
]


# How long a test waits before it holds another process for hung. No test is about this time.
PATIENCE = 1800.0
_DIES = """
import os, signal, sys
from cgrnn.cli import main
from cgrnn.training import Training

place, epoch, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
method = getattr(Training, place)

def dies(self, *given):
    first_step = given[1:] == (0,)
    if (self.current_epoch, self.options.seed) == (epoch, seed) and not first_step:
        os.kill(os.getpid(), signal.SIGKILL)
    return method(self, *given)

setattr(Training, place, dies)
main(sys.argv[4:])
"""


class Outcome(NamedTuple):
    """What a command left: its exit code, standard output and standard error."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


def write_music(path: Path, visible: int = 6, valid: int = 2, seed: int = 0) -> Path:
    """A data set of short random rolls."""
    random = np.random.default_rng(seed)

    def rolls(count: int) -> list[tuple[str, np.ndarray]]:
        shapes = [(4 + n % 4, visible) for n in range(count)]
        return [(f"p{n}", (random.random(s) < 0.4).astype("uint8")) for n, s in enumerate(shapes)]

    splits = {"train": rolls(12), "valid": rolls(valid), "test": rolls(2)}
    store.write(path, splits, kind="binary", frame_rate=4.0, lowest_pitch=60)
    return path


def killed(words: list[str], epoch: int, place: str = "training_step", seed: int = 0) -> None:
    """Call `cgrnn` in a process of its own that is killed in an epoch of the training of a seed.

    Args:
        words: of the command.
        epoch: epochs done before.
        place: the method of `Training` that is called when it happens. "training_step": in the
            middle of the epoch. "on_save_checkpoint": its row is written and its checkpoint not.
        seed: of the run, where there are several.
    """
    argv = [sys.executable, "-c", _DIES, place, str(epoch), str(seed), *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.fixture(scope="session")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data file. Not to be changed."""
    return write_music(tmp_path_factory.mktemp("music") / "data.h5")


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory, music: Path) -> Path:
    """A run of CGRNN, trained for two epochs. Not to be changed: copy it."""
    run = tmp_path_factory.mktemp("runs") / "run"
    words = ["--data", str(music), "-o", str(run), "--max-epochs", "2", "--validate-every", "1"]
    assert main(["train", *words, *SMALL]) == 0
    return run


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Command:
    """Call `cgrnn` with these words."""

    def call(*words: object) -> Outcome:
        capfd.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as end:  # --help
            code = int(end.code or 0)
        return Outcome(code, *capfd.readouterr())

    return call


@pytest.fixture
def refused(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Call `cgrnn` in `tmp_path` with words that it must refuse: in one line that holds the texts
    of `says`, with exit code 2, and with nothing made or changed."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object, says: tuple[str, ...]) -> None:
        before = _snapshot(tmp_path)
        outcome = command(*words)
        assert (outcome.code, outcome.out) == (2, "")
        assert outcome.err.startswith("cgrnn: ") and outcome.err.endswith("\n")
        assert outcome.err.count("\n") == 1
        assert "Traceback" not in outcome.err
        for text in says:
            assert text in outcome.err
        assert _snapshot(tmp_path) == before

    return call


def _snapshot(folder: Path) -> dict[Path, bytes | None]:
    return {p: p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}
