"""Note sequences: the tokens that were written, one vocabulary, splits by piece."""

import random
import shutil
from pathlib import Path

import h5py
import mido
import numpy as np
import pytest

from data_prep import notes
from data_prep.notes import load, prepare_notes, tokens

DATA = Path(__file__).resolve().parents[2].parent / "shared/data/midi"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real MIDI files at {DATA}")

Chords = list[list[int]]


def save(path: Path, chords: Chords, drums: bool = False) -> Path:
    """A file that plays chord after chord on two tracks; those of the second end by velocity 0."""
    file = mido.MidiFile(ticks_per_beat=96)
    for part, end in enumerate(("note_off", "note_on")):
        track, now = mido.MidiTrack(), 0
        for n, chord in enumerate(chords):
            for kind, velocity, tick in (("note_on", 64, 96 * n), (end, 0, 96 * n + 48)):
                for pitch in chord[part::2]:
                    values = {"note": pitch, "velocity": velocity, "channel": 9 * drums}
                    track.append(mido.Message(kind, time=tick - now, **values))
                    now = tick
        file.tracks.append(track)
    file.save(path)
    return path


def random_chords(seed: int, length: int = 12) -> Chords:
    pick = random.Random(seed)
    return [sorted(pick.sample(range(60, 67), pick.randint(1, 3))) for _ in range(length)]


def write_pieces(folder: Path, count: int = 10) -> dict[str, list[str]]:
    """Files, and the tokens of each by name."""
    folder.mkdir()
    chords = {f"{n}.mid": random_chords(n) for n in range(count)}
    for name, its in chords.items():
        save(folder / name, its)
    return {name: [".".join(map(str, chord)) for chord in its] for name, its in chords.items()}


@pytest.mark.parametrize("reader", [notes.by_mido, notes.by_symusic])
def test_both_readers_give_the_tokens_written(reader: object, tmp_path: Path) -> None:
    chords = random_chords(0)
    path = save(tmp_path / "x.mid", chords)
    assert callable(reader)
    read = reader(path.read_bytes(), None)
    expected = [".".join(map(str, chord)) for chord in chords]
    assert tokens(read) == expected
    assert read[:, 1].tolist() == [pitch for chord in chords for pitch in chord]


@needs_data
@pytest.mark.parametrize("folder", ["nottingham", "pop909"])
def test_two_readers_agree_on_real_files(folder: str) -> None:
    for path in random.Random(folder).sample(sorted((DATA / folder).glob("*.mid")), 5):
        read = notes.by_mido(path.read_bytes(), None)
        np.testing.assert_array_equal(read, notes.by_symusic(path.read_bytes(), None), str(path))


def test_a_grace_note_without_length_is_a_note(tmp_path: Path) -> None:
    path = save(tmp_path / "x.mid", [[60], [64]])
    file = mido.MidiFile(path)
    grace = (mido.Message("note_on", note=67, velocity=v) for v in (64, 0))  # on and off
    file.tracks[0][:0] = grace
    file.save(path)
    assert tokens(notes.by_mido(path.read_bytes(), None)) == ["60.67", "64"]


def test_a_velocity_out_of_range_costs_no_note(tmp_path: Path) -> None:
    content = save(tmp_path / "x.mid", [[60], [64]]).read_bytes()
    damaged = content.replace(bytes([0x90, 60, 64]), bytes([0x90, 60, 200]))
    assert damaged != content and tokens(notes.by_mido(damaged, None)) == ["60", "64"]


def test_file_holds_every_piece_and_knows_the_training_split_alone(tmp_path: Path) -> None:
    pieces = write_pieces(tmp_path / "in")
    result = prepare_notes(tmp_path / "in", tmp_path / "x.h5", seed=3)
    dataset = load(tmp_path / "x.h5")
    vocabulary = dataset.attributes["vocabulary"]
    train = {token for name in dataset.splits["train"].source for token in pieces[name]}
    assert set(vocabulary[1:]) == train and len(vocabulary) == len(train) + 1
    assert vocabulary[notes.UNKNOWN] == "?" and result["classes"] == len(vocabulary)
    unknown = 0
    for name, split in dataset.splits.items():
        assert split.frames.dtype == np.int32
        for source, ids in zip(split.source, split.sequences(), strict=True):
            assert ids.shape == (len(pieces[source]), 1)
            for token, number in zip(pieces.pop(source), ids[:, 0], strict=True):
                assert vocabulary[number] == (token if token in train else "?")
                unknown += name == "test" and token not in train
    assert not pieces and unknown > 0
    assert result["unknown"]["test"] == unknown / len(dataset.splits["test"].frames)
    assert result["sequences"] == {"train": 8, "valid": 1, "test": 1}


def test_pitches_keep_what_the_vocabulary_does_not_know(tmp_path: Path) -> None:
    pieces = write_pieces(tmp_path / "in")
    prepare_notes(tmp_path / "in", tmp_path / "x.h5")
    dataset = load(tmp_path / "x.h5", "pitches")
    assert dataset.attributes["vocabulary"][60] == "60"
    for split in dataset.splits.values():
        for source, pitches in zip(split.source, split.sequences(), strict=True):
            assert pitches[:, 0].tolist() == [int(p) for t in pieces[source] for p in t.split(".")]


def test_one_piece_is_on_one_side(tmp_path: Path) -> None:
    """By its title, and by its notes: at another tempo too."""
    write_pieces(tmp_path / "in")
    for n in range(10):
        save(tmp_path / "in" / f"{n}.1.mid", random_chords(100 + n))
        copy = mido.MidiFile(tmp_path / "in" / f"{n}.mid")
        copy.tracks[0].insert(0, mido.MetaMessage("set_tempo", tempo=250000))
        copy.save(tmp_path / "in" / f"(copy) {n}.mid")
    for seed in range(3):
        prepare_notes(tmp_path / "in", tmp_path / "x.h5", seed=seed)
        splits = load(tmp_path / "x.h5").splits
        side = {source: name for name, split in splits.items() for source in split.source}
        assert len(side) == 30 and len(set(side.values())) == 3
        for n in range(10):
            assert side[f"{n}.mid"] == side[f"{n}.1.mid"] == side[f"(copy) {n}.mid"]


def test_same_seed_same_bytes_in_any_order(tmp_path: Path) -> None:
    write_pieces(tmp_path / "in")
    found = sorted((tmp_path / "in").iterdir())
    for name, paths, seed in (("a", found, 0), ("b", found[::-1], 0), ("c", found, 1)):
        prepare_notes(paths, tmp_path / f"{name}.h5", seed)
    prints = [load(tmp_path / f"{n}.h5").attributes["fingerprint"] for n in "abc"]
    assert prints[0] == prints[1] != prints[2]


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    write_pieces(tmp_path / "in", 3)
    (tmp_path / "in" / "bad.mid").write_bytes(b"MThd and no more")
    save(tmp_path / "in" / "drums.mid", random_chords(0), drums=True)
    archive = shutil.make_archive(str(tmp_path / "set"), "zip", tmp_path / "in")
    result = prepare_notes(archive, tmp_path / "x.h5")
    assert (result["files_found"], result["files_read"]) == (5, 3)
    skipped = {item["path"]: item["reason"] for item in result["files_skipped"]}
    assert skipped.keys() == {"set.zip/bad.mid", "set.zip/drums.mid"}
    assert "holds no note" in skipped["set.zip/drums.mid"]
    assert list(tmp_path.glob(".*")) == []


def test_nothing_is_written_when_nothing_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "bad.mid").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"bad\.mid.*none of 1"):
        prepare_notes(tmp_path / "bad.mid", tmp_path / "x.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.mid"]


def test_files_that_are_not_note_sequences_are_refused(tmp_path: Path) -> None:
    write_pieces(tmp_path / "in", 3)
    prepare_notes(tmp_path / "in", tmp_path / "x.h5")
    with pytest.raises(FileNotFoundError, match="gone"):
        load(tmp_path / "gone.h5")
    (tmp_path / "text.h5").write_text("C D E")
    with pytest.raises(ValueError, match=r"text\.h5.*prepare notes"):
        load(tmp_path / "text.h5")
    for member in ("train/frames", "train/pitches", "test/pitch_lengths", "vocabulary"):
        shutil.copy(tmp_path / "x.h5", tmp_path / "changed.h5")
        with h5py.File(tmp_path / "changed.h5", "a") as file:
            file[member][0] = "61" if member == "vocabulary" else file[member][0] + 1
        with pytest.raises(ValueError, match=r"changed\.h5.*damaged"):
            load(tmp_path / "changed.h5")
        with h5py.File(tmp_path / "changed.h5", "a") as file:
            del file[member]
        with pytest.raises(ValueError, match=r"changed\.h5.*damaged"):
            load(tmp_path / "changed.h5")
