"""Every file gives an array or a reason, and a run that was killed goes on."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from data_prep import files, harvest

HERE = "tests.data_prep.test_harvest"


def rows(content: bytes, request: int) -> np.ndarray:
    """A task: refuses, dies, hangs or gives `request` rows, by what the file says."""
    if content == b"refuse":
        raise ValueError("does not like it")
    if content == b"die":
        os._exit(3)
    if content == b"hang":
        while True:
            pass
    if content == b"slow":
        time.sleep(0.02)
    return np.full((request, 2), len(content), np.float32)


def patient(content: bytes, request: int) -> np.ndarray:
    """A task that takes some of what `rows` does not."""
    if content == b"refuse":
        raise ValueError("does not either")
    return np.zeros((1, 3), np.uint8)


def folder(path: Path, contents: Sequence[bytes]) -> list[files.File]:
    path.mkdir(exist_ok=True)
    for n, content in enumerate(contents):
        (path / f"{n:04}.x").write_bytes(content)
    return files.find(path, (".x",), "X")


def test_one_file_costs_no_other(tmp_path: Path) -> None:
    its = folder(tmp_path / "in", [b"ab", b"die", b"refuse", b"abc", b"hang", b"a"])
    calls: list[tuple[int, int, int]] = []
    with harvest.harvest(
        tmp_path / "out.h5", [f"{HERE}:rows"], its, 4, 4.0, lambda *now: calls.append(now)
    ) as result:
        assert result.taken == [0, 3, 5]
        assert result.skipped == [
            ("0001.x", "the reader died (exit status 3)"),
            ("0002.x", "does not like it"),
            ("0004.x", "took longer than 4 s"),
        ]
        assert result.lengths == {0: 4, 3: 4, 5: 4}
        assert result.array(3).tolist() == [[3.0, 3.0]] * 4
        assert result.array(3).dtype == np.float32
        assert len(set(result.digests.values())) == 3
        assert (tmp_path / ".out.h5.work").is_file()
    assert calls[-1] == (6, 6, 3) and len(calls) == 6
    assert list(tmp_path.glob(".*")) == []


def test_the_second_task_has_what_the_first_leaves(tmp_path: Path) -> None:
    its = folder(tmp_path / "in", [b"ab", b"die", b"refuse"])
    tasks = [f"{HERE}:rows", f"{HERE}:patient"]
    with harvest.harvest(tmp_path / "out.h5", tasks, its, 4, 5.0) as result:
        assert result.taken == [0, 1]
        assert result.array(1).tolist() == [[0, 0, 0]]
        reason = "rows: does not like it; patient: does not either"
        assert result.skipped == [("0002.x", reason)]


def test_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for array in (
        (random.random((7, 5)) < 0.3).astype(np.uint8),
        random.integers(0, 255, (3, 4)).astype(np.uint8),
        random.normal(size=(2, 3)).astype(np.float32),
        np.asfortranarray(random.normal(size=(2, 3))),
        np.zeros((0, 88), np.uint8),
    ):
        packed = harvest.pack(array)
        back = harvest.unpack(packed.kind, packed.shape, packed.content)
        assert back.dtype == array.dtype
        np.testing.assert_array_equal(back, array)
    ones = np.ones((2, 8), np.uint8)
    assert harvest.pack(ones).digest != harvest.pack(ones.reshape(8, 2)).digest


SCRIPT = f"""
import os, signal, sys
from pathlib import Path
from data_prep import files, harvest

def progress(done, total, skipped):
    if done == 150:
        os.kill(os.getpid(), signal.SIGKILL)

its = files.find(Path(sys.argv[1]), (".x",), "X")
with harvest.harvest(sys.argv[2], ["{HERE}:rows"], its, 2, 5.0, progress):
    pass
"""


def test_goes_on_after_sigkill(tmp_path: Path) -> None:
    its = folder(tmp_path / "in", [b"slow"] * 300)
    words = [sys.executable, "-c", SCRIPT, str(tmp_path / "in"), str(tmp_path / "out.h5")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)}
    assert subprocess.run(words, env=environment).returncode == -signal.SIGKILL
    journal = tmp_path / ".out.h5.work"
    opened = sqlite3.connect(journal)  # takes back a row that was in the middle of its commit
    before = opened.execute("SELECT count(*) FROM result").fetchone()[0]
    opened.close()
    assert 0 < before <= 150
    calls: list[tuple[int, int, int]] = []
    with harvest.harvest(
        tmp_path / "out.h5", [f"{HERE}:rows"], its, 2, 5.0, lambda *now: calls.append(now)
    ) as result:
        assert result.taken == list(range(300))
    assert len(calls) == 300 - before
    assert calls[0][0] == before + 1


def _rows(journal: Path) -> int:
    """Rows committed, without disturbing the owner."""
    if not journal.is_file():
        return 0
    try:
        with sqlite3.connect(f"file:{journal}?immutable=1", uri=True) as reader:
            return int(reader.execute("SELECT count(*) FROM result").fetchone()[0])
    except sqlite3.DatabaseError:  # in the middle of a write
        return 0


@pytest.mark.parametrize("change", ["request", "content", "one more", "damage"])
def test_a_journal_of_another_call_is_not_used(tmp_path: Path, change: str) -> None:
    its = folder(tmp_path / "in", [b"a", b"ab"])
    with (
        pytest.raises(KeyboardInterrupt),
        harvest.harvest(tmp_path / "out.h5", [f"{HERE}:rows"], its, 2, 5.0),
    ):
        raise KeyboardInterrupt
    journal = tmp_path / ".out.h5.work"
    assert _rows(journal) == 2
    request = 3 if change == "request" else 2
    if change == "content":
        (tmp_path / "in" / "0000.x").write_bytes(b"abcd")
    if change == "one more":
        its = folder(tmp_path / "in", [b"a", b"ab", b"abc"])
    if change == "damage":
        journal.write_bytes(b"power failed" * 100)
    with harvest.harvest(tmp_path / "out.h5", [f"{HERE}:rows"], its, request, 5.0) as result:
        assert result.array(0).shape == (request, 2)
        assert result.array(0)[0, 0] == (4 if change == "content" else 1)
        assert len(result.taken) == len(its)


def test_two_runs_do_not_share_a_journal(tmp_path: Path) -> None:
    its = folder(tmp_path / "in", [b"a"])
    tasks = [f"{HERE}:rows"]
    with harvest.harvest(tmp_path / "out.h5", tasks, its, 2, 5.0) as result:
        with (
            pytest.raises(OSError, match="in use by another run; wait"),
            harvest.harvest(tmp_path / "out.h5", tasks, its, 2, 5.0),
        ):
            pass
        assert result.array(0).shape == (2, 2)


def test_nothing_usable_leaves_nothing(tmp_path: Path) -> None:
    its = folder(tmp_path / "in", [b"refuse", b"die"])
    with (
        pytest.raises(ValueError, match=r"0000.x: does not like it; none of 2 files could be used"),
        harvest.harvest(tmp_path / "out.h5", [f"{HERE}:rows"], its, 2, 5.0),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
