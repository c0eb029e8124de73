"""IDMT-SMT-Audio-Effects: its names, its nested archives, and no note on both sides."""

import csv
import gzip
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import Command

from data_prep import idmt, store
from data_prep.idmt import clean_note, labels, prepare_idmt

DATA = Path(__file__).resolve().parents[2].parent / "shared/data/audio"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real recordings at {DATA}")


def wav(seed: int, samples: int = 600) -> bytes:
    stream = io.BytesIO()
    values = np.random.default_rng(seed).uniform(-0.5, 0.5, samples)
    soundfile.write(stream, values, 11025, format="WAV", subtype="PCM_16")
    return stream.getvalue()


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def sides(path: Path) -> dict[str, str]:
    """The split that each file is in."""
    dataset = store.read(path)
    return {s: name for name, split in dataset.splits.items() for s in split.source}


@needs_data
def test_real_names_say_what_their_list_says() -> None:
    with gzip.open(DATA / "idmt_file_names.csv.gz", "rt") as file:
        rows = [row for row in csv.DictReader(file) if row["fileID"]]
    assert len(rows) == 34452
    for row in rows:
        its = labels(row["fileID"])
        assert its["effect"] == row["fxtype"].replace(" ", "")
    assert len({clean_note(row["fileID"]) for row in rows}) == 1044


@needs_data
def test_real_file() -> None:
    (path,) = (DATA / "idmt-example").rglob("*.wav")
    its = labels(path.name)
    described = (DATA / "idmt-example/Gitarre monophon/Lists/Tremolo").glob("*.xml")
    entry = next(described).read_text().split(f"<fileID>{path.stem}")[1].split("</audiofile>")[0]
    for tag, name in (
        *(("instrumentsetting", "instrument_setting"), ("playstyle", "technique")),
        *(("midinr", "pitch"), ("string", "string"), ("fxsetting", "effect_setting")),
    ):
        assert f"<{tag}>{its[name]}</{tag}>" in entry
    assert f"<fret>{int(its['fret']):02}</fret>" in entry
    assert its["effect"] == "Tremolo" and its["instrument"] == "guitar"


@needs_data
def test_real_data_set(tmp_path: Path) -> None:
    made = prepare_idmt(DATA / "idmt-example", tmp_path / "out.h5")
    assert made["frames"] == {"train": 147, "valid": 0, "test": 0}
    split = store.read(tmp_path / "out.h5").splits["train"]
    (path,) = (DATA / "idmt-example").rglob("*.wav")
    assert split.source == [path.relative_to(DATA / "idmt-example").as_posix()]
    assert {name: [value] for name, value in labels(path.name).items()} == split.labels


@needs_data
def test_no_note_is_on_both_sides_over_real_names(tmp_path: Path) -> None:
    """All effects of 90 of the clean notes, chords included."""
    with gzip.open(DATA / "idmt_file_names.csv.gz", "rt") as file:
        names = [row["fileID"] for row in csv.DictReader(file) if row["fileID"]]
    notes = set(np.random.default_rng(0).permutation(sorted({n[:9] for n in names}))[:90])
    names = [name for name in names if name[:9] in notes]
    with zipfile.ZipFile(tmp_path / "Gitarre.zip", "w") as archive:
        for n, name in enumerate(names):
            archive.writestr(f"Samples/{labels(name)['effect']}/{name}", wav(n, 160))
    made = prepare_idmt(tmp_path / "Gitarre.zip", tmp_path / "out.h5", seed=5)
    assert made["files_read"] == len(names) == 33 * 90
    found: dict[str, set[str]] = {}
    for source, side in sides(tmp_path / "out.h5").items():
        found.setdefault(source.rpartition("/")[2][:9], set()).add(side)
    assert set(found) == notes
    assert all(len(its) == 1 for its in found.values())
    assert made["sequences"] == {"train": 33 * 72, "valid": 33 * 9, "test": 33 * 9}


def nested(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def as_shipped(folder: Path) -> None:
    """Folders, zips in zips, one of them twice, an empty folder, lists, and what is no sample."""
    (folder / "Gitarre polyphon").mkdir(parents=True)
    chords = {
        "Gitarre polyphon2/Lists/Chorus/P64-00000-3311-1.xml": b"<content/>",
        "Gitarre polyphon2/Samples/Chorus/P64-43110-3311-46400.wav": wav(1),
        "Gitarre polyphon2/Samples/NoFX/P64-43110-1111-41185.wav": wav(2),
    }
    for name in ("Gitarre polyphon2.zip", "Gitarre_polyphon2.zip"):
        write(folder / name, nested(chords))
    for n in range(8):
        for code, effect in (("1111", "NoFX"), ("4423", "Overdrive")):
            name = f"Bass monophon/Samples/{effect}/B11-{28 + n}10{n}-{code}-{n:05}.wav"
            write(folder / name, wav(100 * n + int(code)))
    inner = nested({"Samples/Reverb/G61-40100-2231-00001.wav": wav(3)})
    write(folder / "all.zip", nested({"Gitarre monophon.zip": inner}))
    write(folder / "Gitarre monophon/Samples/EQ/readme.wav", wav(4))
    write(folder / "Gitarre monophon/Samples/EQ/G61-40100-1992-00002.wav", wav(5))
    # The same sound under another name, as of another note.
    write(folder / "Gitarre monophon/Samples/NoFX/G99-50100-1111-00003.wav", wav(1111))


def test_as_it_is_shipped(tmp_path: Path) -> None:
    as_shipped(tmp_path / "IDMT")
    made = prepare_idmt(tmp_path / "IDMT", tmp_path / "out.h5")
    assert made["files_found"] == 24
    assert made["files_read"] == 19
    assert made["repeated"] == 3
    assert [item["path"].rpartition("/")[2] for item in made["files_skipped"]] == [
        "G61-40100-1992-00002.wav",
        "readme.wav",
    ]
    assert "ABC-DDEFF-GHHI-KKKKK.wav" in made["files_skipped"][0]["reason"]
    side = sides(tmp_path / "out.h5")
    assert "Gitarre polyphon2.zip/Gitarre polyphon2/Samples/Chorus/P64-43110-3311-46400.wav" in side
    assert "all.zip/Gitarre monophon.zip/Samples/Reverb/G61-40100-2231-00001.wav" in side
    of_note: dict[str, set[str]] = {}
    for name, its in side.items():
        of_note.setdefault(clean_note(name), set()).add(its)
    assert len(of_note) == 10 and all(len(its) == 1 for its in of_note.values())


def test_notes_with_one_sound_share_a_split(tmp_path: Path) -> None:
    for n in range(30):
        write(tmp_path / f"in/G11-{40 + n}100-1111-{n:05}.wav", wav(n // 2))  # pairs sound the same
        write(tmp_path / f"in/G11-{40 + n}100-3311-{n + 100:05}.wav", wav(1000 + n))
    made = prepare_idmt(tmp_path / "in", tmp_path / "out.h5", fractions=(0.4, 0.3, 0.3))
    assert made["repeated"] == 15
    side = {clean_note(name): its for name, its in sides(tmp_path / "out.h5").items()}
    for n in range(0, 30, 2):
        assert side[f"G11-{40 + n}100"] == side[f"G11-{41 + n}100"]


def test_damaged_archive_is_named(tmp_path: Path) -> None:
    as_shipped(tmp_path / "IDMT")
    content = (tmp_path / "IDMT/all.zip").read_bytes()
    (tmp_path / "IDMT/all.zip").write_bytes(content[: len(content) // 2])
    made = prepare_idmt(tmp_path / "IDMT", tmp_path / "out.h5", effects=["Reverb", "NoFX"])
    assert [item["path"] for item in made["files_skipped"] if "zip" in item["path"]] == ["all.zip"]


@pytest.mark.parametrize(
    "words, effects",
    [
        ((), {"NoFX", "Overdrive", "Chorus", "Reverb"}),
        (("--effects", "Chorus,NoFX"), {"Chorus", "NoFX"}),
    ],
)
def test_command(
    tmp_path: Path, command: Command, words: Sequence[str], effects: set[str]
) -> None:  # fmt: skip
    as_shipped(tmp_path / "IDMT")
    options = ("--frame-size", 60, "--sample-rate", 5512)
    done = command("prepare", "idmt", tmp_path / "IDMT", *words, *options, "-o", tmp_path / "a.h5")
    assert done.code == 0 and "files are left out that repeat another" in done.err
    dataset = store.read(tmp_path / "a.h5")
    assert dataset.attributes["sample_rate"] == 5512
    assert {e for split in dataset.splits.values() for e in split.labels["effect"]} == effects
    assert dataset.splits["train"].frames.shape[1] == 60


@pytest.mark.parametrize(
    "words, says",
    [
        (("--effects", "Chorus,Wah"), "unknown effect 'Wah'; known: NoFX, EQ"),
        (("--effects", "Vibrato"), "none of 1 files could be used"),
    ],
)
def test_refused(tmp_path: Path, command: Command, words: Sequence[str], says: str) -> None:
    write(tmp_path / "in/G11-40100-1111-1.wav", wav(0))
    done = command("prepare", "idmt", tmp_path / "in", *words, "-o", tmp_path / "a.h5")
    assert done.code == 2 and done.err.count("\n") == 1 and says in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_every_class_has_its_code() -> None:
    assert len(idmt.EFFECTS) == len(set(idmt.EFFECTS.values())) == 12
    for code, effect in idmt.EFFECTS.items():
        assert labels(f"a.zip/X/B23-45207-{code[0]}{code}3-00017.WAV") == {
            "note": "B23-45207",
            **{"instrument": "bass", "instrument_setting": "2", "technique": "3"},
            **{"pitch": "45", "string": "2", "fret": "7", "chord": ""},
            **{"effect": effect, "effect_setting": "3"},
        }
    chord = labels("P94-53150-1111-41465.wav")
    assert (chord["string"], chord["fret"], chord["chord"]) == ("", "", "150")
