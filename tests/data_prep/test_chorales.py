"""Chorales: a score checked by hand, music21 as the oracle, and splits without leaks."""

import os
import random
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep import store
from data_prep.chorales import corpus_paths, prepare_chorales, read_chorale

ROOT = Path(__file__).resolve().parents[2]

NOTE = "<note><pitch><step>{}</step>{}<octave>{}</octave></pitch><duration>{}</duration></note>"


def note(name: str, duration: int) -> str:
    alter = {"#": "<alter>1</alter>", "b": "<alter>-1</alter>"}.get(name[1:-1], "")
    return NOTE.format(name[0], alter, name[-1], duration)


REST = "<note><rest/><duration>{}</duration></note>"
BAR = "<measure><attributes><divisions>{}</divisions></attributes>{}</measure>"
SOPRANO = BAR.format(2, note("C5", 2) + note("B4", 1) + note("A4", 1)) + BAR.format(
    4, note("G4", 4)
)
GRACE = note("D2", 0).replace("<note>", "<note><grace/>")
ALTO = BAR.format(2, GRACE + note("F#4", 4)) + BAR.format(2, note("Eb4", 2))
TENOR = BAR.format(2, REST.format(2) + note("C4", 2)) + BAR.format(2, note("C4", 2))
BASS = BAR.format(
    2,
    note("C3", 4)
    + "<backup><duration>4</duration></backup><forward><duration>1</duration></forward>"
    + note("C1", 1)
    + "<forward><duration>2</duration></forward>",
) + BAR.format(2, note("C3", 1))


def score(*parts: str, names: tuple[str, ...] = ("Soprano", "Alto", "Tenor", "Bass")) -> str:
    listed = "".join(f"<score-part><part-name>{name}</part-name></score-part>" for name in names)
    played = "".join(f"<part>{part}</part>" for part in parts)
    return f"<score-partwise><part-list>{listed}</part-list>{played}</score-partwise>"


@pytest.fixture
def hand_made(tmp_path: Path) -> Path:
    (tmp_path / "hand.xml").write_text(score(SOPRANO, ALTO, TENOR, BASS))
    return tmp_path / "hand.xml"


def pitches(roll: np.ndarray) -> list[list[int]]:
    return [(np.flatnonzero(frame) + 21).tolist() for frame in roll]


def test_a_hand_made_chorale_on_quarters(hand_made: Path) -> None:
    roll = read_chorale(hand_made, "quarter")
    assert (roll.shape, roll.dtype) == ((3, 88), np.uint8)
    # C1 (24) lies between two frames; the grace note D2 (38) is none.
    assert pitches(roll) == [[48, 66, 72], [48, 60, 66, 71], [48, 60, 63, 67]]


def test_a_hand_made_chorale_on_eighths(hand_made: Path) -> None:
    assert pitches(read_chorale(hand_made, "eighth")) == [
        [48, 66, 72],
        [24, 48, 66, 72],
        [48, 60, 66, 71],
        [48, 60, 66, 69],
        [48, 60, 63, 67],
        [60, 63, 67],
    ]


def test_compressed_scores_read_the_same(hand_made: Path, tmp_path: Path) -> None:
    container = '<container><rootfiles><rootfile full-path="a/s.xml"/></rootfiles></container>'
    with zipfile.ZipFile(tmp_path / "hand.mxl", "w") as archive:
        archive.writestr("META-INF/container.xml", container)
        archive.writestr("a/s.xml", hand_made.read_text())
    np.testing.assert_array_equal(read_chorale(tmp_path / "hand.mxl"), read_chorale(hand_made))


def test_what_is_no_chorale_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "x.xml"
    for text, message in (
        (score(SOPRANO, names=("Violin",)), "x.xml: 1 parts, not Soprano"),
        ("not XML", "x.xml: not a readable MusicXML score"),
        (score(SOPRANO.replace("<step>C", "<step>H"), ALTO, TENOR, BASS), "not a readable"),
        (score(SOPRANO.replace(">1</duration>", ">x</duration>"), ALTO), "not a readable"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message) as caught:
            read_chorale(path)
        assert "\n" not in str(caught.value)
    (tmp_path / "x.mxl").write_text("not a zip")
    with pytest.raises(ValueError, match=r"x.mxl: not a readable MusicXML score"):
        read_chorale(tmp_path / "x.mxl")
    with pytest.raises(ValueError, match=r"grid is 'half'; use one of quarter, eighth"):
        read_chorale(path, "half")


def music21_roll(path: Path, frames_a_quarter: int) -> np.ndarray:
    from music21 import converter

    elements = list(converter.parse(path, forceSource=True).flatten().notes)
    ends = [Fraction(e.offset) + Fraction(e.duration.quarterLength) for e in elements]
    roll = np.zeros((-int(-max(ends) * frames_a_quarter // 1), 128), np.uint8)
    for frame in range(len(roll)):
        now = Fraction(frame, frames_a_quarter)
        for element, end in zip(elements, ends, strict=True):
            if Fraction(element.offset) <= now < end:
                roll[frame, [pitch.midi for pitch in element.pitches]] = 1
    return roll[:, 21:109]


@pytest.mark.parametrize("frames_a_quarter, grid", [(1, "quarter"), (2, "eighth")])
def test_scores_read_as_music21_reads_them(frames_a_quarter: int, grid: str) -> None:
    chorales = [path for path in corpus_paths() if path.stem.startswith("bwv3")]
    chosen = random.Random(grid).sample([path for path in chorales if "." not in path.stem], 4)
    grace = [path for path in chorales if path.stem == "bwv315"]  # one of two with grace notes
    for path in chosen + grace:
        np.testing.assert_array_equal(
            read_chorale(path, grid), music21_roll(path, frames_a_quarter), err_msg=path.name
        )


Prepared = tuple[dict[str, Any], store.Dataset]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    path = tmp_path_factory.mktemp("chorales") / "eighth.h5"
    summary = prepare_chorales(path, "eighth")
    yield summary, store.read(path)


def test_counts_of_the_real_corpus(prepared: Prepared) -> None:
    summary, data = prepared
    assert summary["files_found"] == summary["files_read"] + len(summary["files_skipped"]) == 410
    assert 340 <= summary["files_read"] == sum(summary["sequences"].values()) <= 370
    assert summary["sequences"]["train"] / summary["files_read"] == pytest.approx(0.8, abs=0.03)
    reasons = {Path(s["path"]).stem: s["reason"] for s in summary["files_skipped"]}
    assert reasons["bwv398"] == "the same music as bwv197.7-a"
    assert reasons["bwv846"] == "1 parts, not Soprano, Alto, Tenor, Bass"
    assert (data.attributes["frame_unit"], data.attributes["frame_rate"]) == ("eighth note", 4.0)
    # Four voices sound, or fewer where two sing one note.
    assert data.splits["train"].frames.sum(axis=1).max() == 4
    assert 3.5 < data.splits["train"].frames.sum(axis=1).mean() < 4


def test_no_music_is_in_two_splits_in_any_key(prepared: Prepared) -> None:
    _, data = prepared
    seen: dict[bytes, str] = {}
    for name, split in data.splits.items():
        for sequence in split.sequences():
            lowest = int(np.argmax(sequence.any(axis=0)))
            opening = np.roll(sequence, -lowest, axis=1)[:40].tobytes()
            assert seen.setdefault(opening, name) == name


def test_versions_of_a_chorale_share_a_split(prepared: Prepared) -> None:
    _, data = prepared
    home = {source: name for name, split in data.splits.items() for source in split.source}
    for one, other in (("bwv245.15", "bwv245.37"), ("bwv323", "bwv324"), ("bwv253", "bwv414")):
        assert home[one] == home[other]


def test_same_seed_same_bytes_and_the_grid_does_not_move_pieces(
    prepared: Prepared, tmp_path: Path
) -> None:
    """In another process, whose string hashes differ, with a home it cannot write to."""
    calls: list[tuple[int, int, int]] = []
    summary = prepare_chorales(tmp_path / "a.h5", progress=lambda *done: calls.append(done))
    code = "import sys; from data_prep.chorales import prepare_chorales as p; p(sys.argv[1])"
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "b.h5")],
        cwd=ROOT,
        env={**os.environ, "HOME": "/proc/none", "PYTHONHASHSEED": "7"},
        capture_output=True,
        check=True,
    )
    assert result.stdout == b""
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert calls[-1] == (410, 410, len(summary["files_skipped"]))
    quarter, (_, eighth) = store.read(tmp_path / "a.h5"), prepared
    for name in store.SPLITS:
        assert quarter.splits[name].source == eighth.splits[name].source
        for few, many in zip(
            quarter.splits[name].sequences(), eighth.splits[name].sequences(), strict=True
        ):
            np.testing.assert_array_equal(few, many[::2])


def test_another_seed_is_another_split(prepared: Prepared, tmp_path: Path) -> None:
    prepare_chorales(tmp_path / "c.h5", seed=1)
    other = store.read(tmp_path / "c.h5", "test")
    assert other.splits["test"].source != prepared[1].splits["test"].source
