"""What is said of a data set, and what is heard of it, against independent reckonings."""

import statistics
from pathlib import Path
from typing import Any

import librosa
import mido
import numpy as np
import pretty_midi
import pytest
import soundfile

from data_prep import store
from data_prep.inspection import info, listen
from data_prep.notes import prepare_notes

DATA = Path(__file__).resolve().parents[2].parent / "shared/data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA}")


def rolls(*lengths: int, seed: int = 0) -> list[tuple[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    shapes = [(n, 12) for n in lengths]
    return [(f"{seed}-{n}", (rng.random(s) < 0.2).astype(np.uint8)) for n, s in enumerate(shapes)]


def save_rolls(path: Path, **splits: list[tuple[str, np.ndarray]]) -> Path:
    store.write(path, splits, kind="binary", frame_rate=4.0, lowest_pitch=60)
    return path


def test_rolls_are_counted(tmp_path: Path) -> None:
    train = rolls(5, 9, 4, 8)
    train[1][1][2:6] = 0  # silence
    for _, frames in train:
        frames[:, [0, 11]] = 0
    result = info(save_rolls(tmp_path / "x.h5", train=train, valid=rolls(3, seed=1)))
    split = result["splits"]["train"]
    assert (split["sequences"], split["frames"]) == (4, 26)
    assert split["lengths"] == {"min": 4, "median": statistics.median([5, 9, 4, 8]), "max": 9}
    rows = [row for _, frames in train for row in frames.tolist()]
    assert split["notes_per_frame"] == pytest.approx(sum(map(sum, rows)) / 26)
    assert split["silent_frames"] == pytest.approx(sum(not any(row) for row in rows) / 26)
    counts = {60 + key: sum(row[key] for row in rows) for key in range(12)}
    assert split["pitches"] == {str(pitch): n for pitch, n in counts.items() if n}
    assert split["range"] == [61, 70]
    assert result["splits"]["test"]["sequences"] == 0
    assert "notes_per_frame" not in result["splits"]["test"]
    attributes = store.read(tmp_path / "x.h5").attributes
    assert result["attributes"] == attributes and result["visible"] == 12
    assert result["warnings"] == []


def test_what_is_on_two_sides_is_warned_of(tmp_path: Path) -> None:
    train, test, valid = rolls(5, 9, 4), rolls(6, 7, seed=1), rolls(6, seed=2)
    train.append(("again", train[0][1].copy()))
    test += [("other name", train[2][1].copy()), ("0-1", test[0][1][:3])]
    result = info(save_rolls(tmp_path / "x.h5", train=train, valid=valid, test=test))
    assert [split["repeated"] for split in result["splits"].values()] == [1, 0, 0]
    shared = result["shared"]
    assert shared["train and test"] == {"sequences": 1, "sources": 1, "examples": ["0-1"]}
    assert shared["train and valid"] == {"sequences": 0, "sources": 0, "examples": []}
    assert len(result["warnings"]) == 2
    assert all("train and test: 1" in line for line in result["warnings"])


def save_sounds(path: Path, sounds: list[np.ndarray], rate: int = 8000, **more: Any) -> Path:
    splits = {"train": [(f"s{n}", sound) for n, sound in enumerate(sounds)]}
    store.write(path, splits, kind="continuous", sample_rate=rate, **more)
    return path


def test_levels_and_labels_are_counted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sounds = [rng.normal(0, 0.1, (n, 16)).astype(np.float32) for n in (3, 7)]
    sounds[0][1] = 9e-4
    sounds[1][4] *= 0.0
    sounds[1][5, 3] = -2.5
    labels = {"s0": {"effect": "NoFX"}, "s1": {"effect": "Chorus"}}
    result = info(save_sounds(tmp_path / "x.h5", sounds, labels=labels.__getitem__))
    split, values = result["splits"]["train"], np.concatenate(sounds).astype(np.float64)
    assert split["rms"] == pytest.approx(np.sqrt((values**2).mean()))
    assert split["peak"] == 2.5
    assert split["silent_frames"] == 2 / 10
    assert split["labels"] == {"effect": {"NoFX": 1, "Chorus": 1}}
    assert result["attributes"]["std"] == pytest.approx(values.std())


@needs_data
def test_note_sequences_are_described_too(tmp_path: Path) -> None:
    made = prepare_notes(DATA / "midi/chopin-nocturnes", tmp_path / "x.h5")
    result = info(tmp_path / "x.h5")
    assert result["attributes"]["classes"] == made["classes"]
    for name, split in result["splits"].items():
        assert split["unknown"] == pytest.approx(made["unknown"][name])
        assert split["frames"] == made["frames"][name]


def test_a_roll_becomes_the_midi_file_it_is(tmp_path: Path) -> None:
    test = rolls(6, 9, 8)
    test[1][1][-1] = 1
    save_rolls(tmp_path / "x.h5", train=rolls(5), test=test)
    result = listen(tmp_path / "x.h5", tmp_path / "x.mid", 1)
    assert result == {
        "files": [str(tmp_path / "x.mid")],
        "source": "0-1",
        "frames": 9,
        "seconds": 9 / 4,
    }
    heard = pretty_midi.PrettyMIDI(str(tmp_path / "x.mid")).get_piano_roll(4.0)[60:72].T > 0
    np.testing.assert_array_equal(heard, test[1][1])


def test_a_roll_is_heard_at_its_pitch(tmp_path: Path) -> None:
    pytest.importorskip("data_prep.audio")
    roll = np.zeros((8, 12), np.uint8)
    roll[:, 9] = 1  # A4
    save_rolls(tmp_path / "x.h5", train=[("a", roll)])
    listen(tmp_path / "x.h5", tmp_path / "x.wav", split="train")
    samples, rate = soundfile.read(tmp_path / "x.wav")
    assert rate == 22050 and len(samples) >= 2 * rate
    pitch = librosa.yin(samples[: 2 * rate], fmin=200, fmax=1000, sr=rate)
    assert np.median(pitch) == pytest.approx(440, rel=0.01)


def test_sound_is_heard_as_it_is(tmp_path: Path) -> None:
    pytest.importorskip("data_prep.audio")
    sounds = [np.random.default_rng(n).uniform(-0.9, 0.9, (5, 16)).astype("f4") for n in (0, 1)]
    sounds[1][2, 3] = 1.5
    save_sounds(tmp_path / "x.h5", sounds)
    result = listen(tmp_path / "x.h5", tmp_path / "x.wav", 1, "train")
    samples, rate = soundfile.read(tmp_path / "x.wav")
    assert rate == 8000 and result["seconds"] == 80 / 8000
    np.testing.assert_allclose(samples, np.clip(sounds[1].ravel(), -1, 1), atol=2 / 32768)
    assert soundfile.info(str(tmp_path / "x.wav")).subtype == "PCM_16"


def test_what_cannot_be_heard_is_refused_in_one_line(tmp_path: Path) -> None:
    save_rolls(tmp_path / "x.h5", train=rolls(5), valid=[("s", np.zeros((4, 12), np.uint8))])
    words = {"train": [("w", np.ones((2, 3), np.float32))]}
    store.write(tmp_path / "words.h5", words, kind="continuous", frame_rate=1.0)
    store.write(tmp_path / "keys.h5", {"train": rolls(3)}, kind="binary", frame_rate=1.0)
    save_sounds(tmp_path / "s.h5", [np.ones((2, 3), np.float32)])
    (tmp_path / "in").mkdir()
    file = mido.MidiFile(tracks=[mido.MidiTrack([mido.Message("note_on", note=60)])])
    file.save(tmp_path / "in" / "a.mid")
    prepare_notes(tmp_path / "in", tmp_path / "n.h5")
    cases: list[tuple[tuple[str, str, int, str], str]] = [
        (("x.h5", "x.mid", 1, "train"), "--index is 1: the train split .* sequences 0 to 0"),
        (("x.h5", "x.mid", 0, "test"), "the test split .* no sequence"),
        (("x.h5", "x.mp3", 0, "train"), r"x\.mp3: .*\.mid or \.wav"),
        (("x.h5", "gone/x.mid", 0, "train"), "does not exist"),
        (("gone.h5", "x.mid", 0, "train"), r"gone\.h5: no such file"),
        (("words.h5", "x.wav", 0, "train"), "no sample_rate"),
        (("keys.h5", "x.mid", 0, "train"), "no lowest_pitch"),
        (("s.h5", "x.mid", 0, "train"), r"\.wav"),
        (("x.h5", "x.wav", 0, "valid"), "silent"),
        (("n.h5", "x.mid", 0, "train"), "notes without times"),
    ]
    for (data, output, index, split), says in cases:
        with pytest.raises((ValueError, OSError), match=says) as error:
            listen(tmp_path / data, tmp_path / output, index, split)
        assert "\n" not in str(error.value)
        assert not (tmp_path / output).exists()
