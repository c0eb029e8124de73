"""The Lakh set: its real names, and the preset on files made for it."""

import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep import store
from data_prep.lakh import FRACTIONS, prepare_lakh, songs
from data_prep.midi import write_midi
from data_prep.splits import split_by

INDEX = Path(__file__).resolve().parents[2].parent / "shared/data/midi/lakh_clean_index.txt.gz"
needs_index = pytest.mark.skipif(not INDEX.is_file(), reason=f"no index of the Lakh set at {INDEX}")


def index() -> list[list[str]]:
    """(number, artist, title, md5, path) of each file of `clean_midi`."""
    with gzip.open(INDEX, "rt", encoding="utf8") as lines:
        return [line.rstrip("\n").split("\t") for line in lines]


@needs_index
@pytest.mark.parametrize("seed", [0, 1])
def test_no_song_is_on_two_sides_of_the_split(seed: int) -> None:
    rows = index()
    assert len(rows) == 17_252
    names, digests = [row[4] for row in rows], [row[3].encode() for row in rows]
    split = split_by(songs(names, digests), FRACTIONS, seed)
    homes: dict[object, set[str]] = {}
    for (_, artist, title, md5, _), part in zip(rows, split, strict=True):
        letters = ["".join(filter(str.isalnum, text.casefold())) for text in (artist, title)]
        any_order = "".join(sorted(letters[0].removeprefix("the"))), letters[1]
        for key in (md5, (artist, title), tuple(letters)):
            homes.setdefault(key, set()).add(part)
        if artist in ("Elton John", "John Elton", "Phil Collins", "Collins Phil"):
            homes.setdefault(any_order, set()).add(part)
    assert max(len(parts) for parts in homes.values()) == 1
    for part, fraction in zip(store.SPLITS, FRACTIONS, strict=True):
        assert abs(split.count(part) / len(split) - fraction) < 0.005
    other = split_by(songs(names, digests), FRACTIONS, seed + 5)
    assert split == split_by(songs(names, digests), FRACTIONS, seed) != other


@needs_index
def test_titles_of_the_index_are_the_songs() -> None:
    """What is merged beyond artist and title is their spelling: few songs."""
    rows = index()
    found = len(set(songs([row[4] for row in rows], [row[3].encode() for row in rows])))
    titles = len({(row[1], row[2]) for row in rows})
    assert 0.96 * titles < found < titles


def test_spellings_of_one_song() -> None:
    one = [
        "x/Gaye,Marvin/Ain't it.mid",
        "x/Marvin Gaye/aint  It.3.mid",
        "x/MARVIN GAYE/Aint It.mid",
    ]
    others = ["x/Marvin Gaye/Ain't it 2.mid", "x/Marvin/Ain't it.mid", "x/M/?.mid", "x/M/!.mid"]
    keys = songs(one + others, [bytes([n]) for n in range(7)])
    assert len(set(keys[:3])) == 1 and len(set(keys)) == 5
    keys = songs(one + others, [b"", b"", b"", b"same", b"1", b"2", b"same"])
    assert keys[3] == keys[6]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 songs of two files each; 500 frames of random notes a file, each its own."""
    place = tmp_path_factory.mktemp("lakh")
    rng = np.random.default_rng(0)
    for n in range(30):
        for take in ("", ".1"):
            path = place / f"clean_midi/Artist {n % 7}/Song {n}{take}.mid"
            path.parent.mkdir(parents=True, exist_ok=True)
            roll = rng.random((500, 128)) < 0.02
            roll[-1, 60] = True
            write_midi(path, roll, lowest_pitch=0)
    return place / "clean_midi"


def homes(path: Path, key: Callable[[str], str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name, split in store.read(path).splits.items():
        for source in split.source:
            found.setdefault(key(source), set()).add(name)
    return found


def song_of(source: str) -> str:
    return Path(source).name.split(".")[0]


def test_the_preset(folder: Path, tmp_path: Path) -> None:
    summary = prepare_lakh(folder, tmp_path / "x.h5", seed=2)
    assert summary["files_read"] == 60
    data = store.read(tmp_path / "x.h5")
    told = {"frame_rate": 4.0, "frame_unit": "second", "lowest_pitch": 0, "split": "song"}
    told |= {"name": "Lakh MIDI, split by song", "drums": "none", "seed": 2}
    assert {name: data.attributes[name] for name in told} == told
    for name, count in (("train", 27), ("valid", 2), ("test", 1)):
        split = data.splits[name]
        assert split.frames.shape[1] == 128
        assert split.lengths.tolist() == [240, 240, 20] * 2 * count
    assert all(len(parts) == 1 for parts in homes(tmp_path / "x.h5", song_of).values())
    prepare_lakh(folder, tmp_path / "y.h5", seed=2)
    assert (tmp_path / "x.h5").read_bytes() == (tmp_path / "y.h5").read_bytes()


def test_the_split_of_the_paper_leaks_and_says_so(folder: Path, tmp_path: Path) -> None:
    summary = prepare_lakh(folder, tmp_path / "x.h5", split="segment")
    assert summary["sequences"] == {"train": 162, "valid": 9, "test": 9}
    data = store.read(tmp_path / "x.h5")
    assert data.attributes["split"] == "segment (leaking, as in the paper)"
    assert "leaking" in data.attributes["name"]
    assert Counter(map(len, homes(tmp_path / "x.h5", song_of).values()))[1] < 25
    prepare_lakh(folder, tmp_path / "y.h5", split="segment", seed=1)
    assert (tmp_path / "x.h5").read_bytes() != (tmp_path / "y.h5").read_bytes()
    total = sum(split.lengths.sum() for split in data.splits.values())
    assert total == 60 * 500


def test_the_command(folder: Path, tmp_path: Path, command: Callable[..., Any]) -> None:
    data, words = tmp_path / "x.h5", ["prepare", "lakh", folder, "--json", "-o"]
    outcome = command(*words, data, "--split", "segment", "--seed", 3)
    assert outcome.code == 0 and outcome.err.startswith("split by segment, as in the paper: most")
    assert json.loads(outcome.out)["files_read"] == 60
    prepare_lakh(folder, tmp_path / "y.h5", "segment", 3)
    assert data.read_bytes() == (tmp_path / "y.h5").read_bytes()
    outcome = command(*words, data)
    assert (outcome.code, outcome.err) == (0, "")
    assert store.read(data).attributes["split"] == "song"
