"""`cgrnn data`, and the sources `notes` and `vectors` of `cgrnn prepare`, as they are called."""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mido
import numpy as np
import pytest
from conftest import Command, write_music

from cgrnn.cli.data import ACTIONS
from data_prep import store


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with data under short names."""
    write_music(tmp_path / "a.h5")
    write_music(tmp_path / "b.h5", seed=1)
    write_music(tmp_path / "wide.h5", visible=7)
    (tmp_path / "text.h5").write_text("C D E")
    (tmp_path / "text.txt").write_text("the cat\nthe\ncat the dog\ncat\n")
    (tmp_path / "v.txt").write_text("the 1 2\ncat 3 4\n")
    (tmp_path / "in").mkdir()
    for n in range(3):
        track = mido.MidiTrack([mido.Message("note_on", note=60 + p, time=p) for p in range(n, 9)])
        mido.MidiFile(tracks=[track]).save(tmp_path / "in" / f"{'abc'[n]}.mid")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("data", ["action first", "info|listen|merge"]),
        ("data bogus a.h5", ["'bogus'", "info, listen, merge"]),
        ("data info", ["--help"]),
        ("data info gone.h5", ["gone.h5", "cgrnn prepare"]),
        ("data info text.h5", ["text.h5", "not an HDF5 file"]),
        ("data listen a.h5", ["output", "--help"]),
        ("data listen a.h5 -o x.mid --index 2", ["--index", "0 to 1"]),
        ("data listen a.h5 -o x.mid --index -1", ["--index", "at least 0, got -1"]),
        ("data listen a.h5 -o x.mid --split all", ["--split", "train, valid, test", "got all"]),
        ("data listen a.h5 -o x.txt", ["x.txt", ".mid or .wav"]),
        ("data listen a.h5 -o gone/x.mid", ["gone", "make it first"]),
        ("data merge a.h5 -o c.h5", ["two data sets"]),
        ("data merge a.h5 a.h5 -o c.h5", ["a.h5", "given twice"]),
        ("data merge a.h5 wide.h5 -o c.h5", ["wide.h5: frame width 7", "a.h5 has 6"]),
        ("data merge a.h5 text.h5 -o c.h5", ["text.h5", "not an HDF5 file"]),
        ("data merge a.h5 b.h5 -o in", ["in is a folder"]),
        ("prepare notes gone -o n.h5", ["gone", "give MIDI files"]),
        ("prepare notes text.txt -o n.h5", ["text.txt"]),
        ("prepare vectors text.txt gone.txt -o n.h5", ["gone.txt", "word vectors"]),
        ("prepare vectors text.txt text.txt -o n.h5", ["text.txt", "line 1"]),
        ("prepare vectors text.txt v.txt -o n.h5 --segment-words -1", ["--segment-words", "-1"]),
    ],
)
def test_bad_input_is_refused_in_one_line(
    refused: Callable[..., None], place: Path, words: str, says: list[str]
) -> None:
    refused(*shlex.split(words), says=tuple(says))


def test_json_and_words_say_the_same(
    command: Command, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)

    def both(words: str) -> tuple[dict, str]:
        told, machine = command(*words.split()), command(*words.split(), "--json")
        assert told.code == machine.code == 0, told.err + machine.err
        assert machine.out.count("\n") == 1
        return json.loads(machine.out), told.out

    found, told = both("data merge a.h5 b.h5 -o c.h5")
    assert found["sequences"] == {"train": 24, "valid": 4, "test": 4}
    assert "train: 24 sequences" in told and told.endswith("wrote c.h5\n")
    found, told = both("data info c.h5")
    assert found["splits"]["train"]["sequences"] == 24
    assert found["attributes"]["fingerprint"] in told
    assert f"{found['splits']['train']['notes_per_frame']:.2f} notes a frame" in told
    assert "C4" in told and "█" in told
    assert "warning: train and test: 4 sources on both sides" in told
    found, told = both("data listen c.h5 -o x.mid --split valid --index 3")
    assert found["files"] == ["x.mid"] and found["source"] == "b/p1"
    assert told.startswith("b/p1: ") and told.endswith("wrote x.mid\n")
    found, told = both("prepare notes in -o n.h5")
    assert found["sequences"] == {"train": 1, "valid": 1, "test": 1}
    assert found["files_read"] == 3 and "3 of 3 files read" in told
    assert found["classes"] in (8, 9, 10)
    found, told = both("data info n.h5")
    assert "not in the vocabulary" in told
    found, told = both("prepare vectors text.txt v.txt -o w.h5")
    assert found["words"] == {
        "found": 7,
        "without_vector": 1,
        "different": 2,
        "repeated": 0,
    }
    assert "1 of 7 words" in command(*"prepare vectors text.txt v.txt -o w.h5".split()).err


def test_leaks_are_warned_of(command: Command, tmp_path: Path) -> None:
    roll = np.eye(6, dtype=np.uint8)
    splits = {"train": [("a", roll), ("b", roll[:3])], "test": [("c", roll)]}
    store.write(tmp_path / "x.h5", splits, kind="binary", frame_rate=4.0, lowest_pitch=60)
    told = command("data", "info", tmp_path / "x.h5").out
    assert "warning: train and test: 1 sequences on both sides" in told


def test_help_names_the_options_and_loads_nothing_heavy() -> None:
    calls = [["data", "--help"], *(["data", action, "--help"] for action in ACTIONS)]
    calls += [["prepare", source, "--help"] for source in ("notes", "vectors")]
    script = f"""
import sys
from cgrnn.cli import main
for call in {calls}:
    try:
        main(call)
    except SystemExit as end:
        assert not end.code
print(*{{"torch", "h5py", "mido", "numpy"}} & set(sys.modules), "loaded", file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "loaded"
    text = " ".join(done.stdout.split())
    for word in ("--index", "--split", "--output", "--segment-words", *ACTIONS.values()):
        assert word in text
