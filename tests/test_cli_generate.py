"""`cgrnn generate`: primes and bars, how notes are played, sound, and what the music is like."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import mido
import numpy as np
import pretty_midi
import pytest
import soundfile
import torch
from conftest import Command

from cgrnn.checkpoint import describe
from cgrnn.cli.runs import open_data
from cgrnn.models import MODELS
from data_prep import notes, store
from data_prep.midi import write_midi
from data_prep.midi_rolls import Request
from data_prep.midi_symusic import by_symusic
from evaluation import music

LOWEST, KEYS = 50, 30
Refused = Callable[..., None]


def save_run(folder: Path, name: str, data: Path, **options: Any) -> Path:
    """An untrained model, as training would leave it."""
    torch.manual_seed(0)
    attributes = open_data(str(data)).attributes | {"path": str(data)}
    kind = {"visible": attributes["kind"], **options}
    folder.mkdir()
    torch.save(
        {
            "cgrnn": describe(name, kind, attributes, {}, {}),
            "state_dict": {f"model.{k}": v for k, v in MODELS[name](**kind).state_dict().items()},
            "epoch": 0,
        },
        folder / "best.ckpt",
    )
    (folder / "checkpoints").mkdir()
    (folder / "best.ckpt").rename(folder / "checkpoints" / "best.ckpt")
    return folder


def chords(frames: int, seed: int = 0) -> np.ndarray:
    """A roll without a silent frame."""
    random = np.random.default_rng(seed)
    roll = (random.random((frames, KEYS)) < 0.1).astype(np.uint8)
    roll[np.arange(frames), random.integers(KEYS, size=frames)] = 1
    return roll


def splits_of(make: Callable[[int], np.ndarray]) -> dict[str, list[tuple[str, np.ndarray]]]:
    named = [(str(n), make(n)) for n in range(8)]
    return {"train": named[:4], "valid": named[4:6], "test": named[6:]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs on frames of a quarter note, of a quarter of a second, of sound, and of notes."""
    place = tmp_path_factory.mktemp("generate")
    sound = {"kind": "binary", "lowest_pitch": LOWEST}
    pieces = splits_of(partial(chords, 20))
    store.write(place / "q.h5", pieces, frame_rate=2.0, frame_unit="quarter note", **sound)
    store.write(place / "s.h5", pieces, frame_rate=4.0, frame_unit="second", **sound)
    for name in ("q", "s"):
        save_run(place / name, "rnn", place / f"{name}.h5", visible_dim=KEYS, recurrent_dim=4)
    noise = np.random.default_rng(0)
    recordings = splits_of(lambda n: 0.1 * noise.normal(size=(20, 50)))
    store.write(place / "a.h5", recordings, kind="continuous", sample_rate=8000)
    save_run(place / "a", "rnn", place / "a.h5", visible_dim=50, recurrent_dim=4)
    (place / "tunes").mkdir()
    for n in range(5):
        write_midi(place / "tunes" / f"{n}.mid", chords(12, n), 4.0, LOWEST)
    notes.prepare_notes(place / "tunes", place / "n.h5")
    classes = len(notes.load(place / "n.h5").attributes["vocabulary"])
    save_run(place / "n", "note-rnn", place / "n.h5", classes=classes, recurrent_dim=4, window=3)
    return place


@pytest.fixture
def generate(folder: Path, tmp_path: Path, command: Command) -> Callable[..., dict[str, Any]]:
    def call(run: str, *words: object) -> dict[str, Any]:
        outcome = command("generate", folder / run, "-o", tmp_path / "new", *words, "--json")
        assert outcome.code == 0, outcome.err
        result: dict[str, Any] = json.loads(outcome.out)
        return {**result, "err": outcome.err}

    return call


def read(path: str | Path, per_beat: float | None = 1.0) -> np.ndarray:
    """A file in frames of a quarter note, or of a quarter of a second; in this process."""
    request = Request(4.0, per_beat, LOWEST, LOWEST + KEYS - 1)
    return by_symusic(Path(path).read_bytes(), request)


def seconds(path: str) -> float:
    """To the end of the track, a tick after the last event."""
    return float(mido.MidiFile(path).length)


def test_eight_bars_go_on_for_eight_bars(generate: Any, tmp_path: Path) -> None:
    prime = tmp_path / "prime.mid"
    write_midi(prime, chords(40), 2.0, LOWEST, tempo=96.0)  # ten bars of 4/4
    made = generate("q", "--prime", prime, "--prime-bars", 8, "--bars", 8, "--count", 3)
    rolls = [read(file) for file in made["files"]]
    for file, roll in zip(made["files"], rolls, strict=True):
        np.testing.assert_array_equal(roll[:32], read(prime)[:32])
        assert seconds(file) == pytest.approx(64 * 0.5, abs=0.001)  # quarters at 120
    assert not np.array_equal(rolls[0][32:], rolls[1][32:])


def test_bars_follow_the_time_signature_and_the_grid(generate: Any, tmp_path: Path) -> None:
    prime = tmp_path / "waltz.mid"
    write_midi(prime, chords(18), 2.0, LOWEST, tempo=60.0)  # six bars of 3/4, a second a quarter
    file = pretty_midi.PrettyMIDI(str(prime))
    file.time_signature_changes = [pretty_midi.TimeSignature(3, 4, 0.0)]
    file.write(str(prime))
    bars = ("--prime", prime, "--prime-bars", 2, "--bars", 3, "--count", 1)
    (made,) = generate("q", *bars)["files"]  # a frame is a quarter note
    assert seconds(made) == pytest.approx(5 * 3 * 0.5, abs=0.001)
    np.testing.assert_array_equal(read(made)[:6], read(prime)[:6])
    (made,) = generate("s", *bars)["files"]  # a frame is a quarter of a second
    assert seconds(made) == pytest.approx(5 * 3 * 1.0, abs=0.001)
    np.testing.assert_array_equal(read(made, None)[:24], read(prime, None)[:24])
    (made,) = generate("q", "--bars", 2, "--count", 1)["files"]
    assert seconds(made) == pytest.approx(8 * 0.5, abs=0.001)


def test_a_prime_that_ends_early_is_filled_to_its_bar(generate: Any, tmp_path: Path) -> None:
    prime = tmp_path / "prime.mid"
    write_midi(prime, chords(6), 2.0, LOWEST)
    made = generate("q", "--prime", prime, "--prime-bars", 3, "--frames", 1, "--count", 1)
    assert "has 2 bars of the 3 asked for" in made["err"]
    assert seconds(made["files"][0]) == pytest.approx(9 * 0.5, abs=0.001)


def test_keys_that_the_model_lacks_are_counted(generate: Any, tmp_path: Path) -> None:
    prime = tmp_path / "wide.mid"
    wide = np.zeros((5, 100), np.uint8)
    wide[:, 60], wide[0, 10], wide[2:4, 99] = 1, 1, 1
    write_midi(prime, wide, 2.0, 0)
    made = generate("q", "--prime", prime, "--frames", 1, "--count", 1)
    assert "2 of the prime's 3 notes are left out; the model has pitches 50 to 79" in made["err"]
    (piece,) = (read(file) for file in made["files"])
    assert piece[:5].sum() == 5


def test_notes_are_played_as_asked_for(generate: Any) -> None:
    how = ("--tempo", 60, "--velocity", 99, "--restrike", "true", "--voices", 3, "--wav", "true")
    midi, wav = generate("q", "--count", 1, "--frames", 8, *how)["files"]
    file = pretty_midi.PrettyMIDI(midi)
    assert [track.name for track in file.instruments] == ["voice 1", "voice 2", "voice 3"]
    played = [note for track in file.instruments for note in track.notes]
    assert len(played) == read(midi).sum() and {note.velocity for note in played} == {99}
    sound, rate = soundfile.read(wav)
    assert len(sound) == 8 * rate and soundfile.info(wav).subtype == "PCM_16"
    assert 0.85 < np.abs(sound).max() < 1


def test_a_cold_model_repeats_itself_and_a_hot_one_forgets_what_it_learned(generate: Any) -> None:
    different, notes_a_frame = {}, {}
    for temperature in (0.001, 1, 1000):
        made = generate("q", "--temperature", temperature, "--frames", 30, "--count", 2)
        frames = np.concatenate([read(file) for file in made["files"]])
        different[temperature] = len(np.unique(frames, axis=0))
        notes_a_frame[temperature] = made["statistics"]["generated"]["scalars"]["mean_notes"]
    assert different[0.001] < 0.5 * different[1]
    error = np.sqrt(KEYS * 0.25 / 60)
    assert notes_a_frame[1000] == pytest.approx(KEYS / 2, abs=5 * error)


def test_statistics_are_of_what_was_added_and_lie_beside_it(
    generate: Any, folder: Path, tmp_path: Path, command: Command
) -> None:
    prime = tmp_path / "prime.mid"
    write_midi(prime, np.eye(KEYS)[:16], 2.0, LOWEST)
    made = generate("q", "--prime", prime, "--frames", 30)
    found = made["statistics"]
    assert json.loads((tmp_path / "new" / "statistics.json").read_text()) == found
    added = [read(file)[16:46] for file in made["files"]]
    added = [np.pad(roll, ((0, 30 - len(roll)), (0, 0))) for roll in added]  # final rests
    assert found["generated"] == music.statistics(added, LOWEST).plain()
    training = list(store.read(folder / "q.h5", "train").splits["train"].sequences())
    assert found["training"] == music.statistics(training, LOWEST).plain()
    assert found["copied"] == {"generated": 0.0, "unheard": 0.0}
    assert found["distances"].keys() == found["usual_distances"].keys()
    shown = command("generate", folder / "q", "-o", tmp_path / "new").out
    assert "pitch classes (bits)" in shown and "of the generated patterns of 8" in shown
    assert generate("q", "--frames", 3)["statistics"]["copied"]["generated"] is None


def test_music_is_made_where_the_data_set_is_gone(generate: Any, folder: Path) -> None:
    away = (folder / "q.h5").rename(folder / "moved.h5")
    try:
        made = generate("q", "--frames", 4)
        assert "nothing to compare the music with" in made["err"] and made["err"].count("\n") == 1
        assert len(made["files"]) == 4 and made["statistics"].keys() == {"generated"}
        assert "training" in generate("q", "--data", away)["statistics"]
    finally:
        away.rename(folder / "q.h5")


def test_sound_is_measured_as_sound(generate: Any, folder: Path) -> None:
    made = generate("a", "--count", 2, "--frames", 400)
    found = made["statistics"]
    sounds = [soundfile.read(file)[0] for file in made["files"]]
    expected = float(np.sqrt(np.mean(np.square(sounds))))
    assert found["generated"]["scalars"]["rms"] == pytest.approx(expected, rel=1e-3)
    assert found["training"]["scalars"]["rms"] == pytest.approx(0.1, rel=0.05)
    assert found["training"]["scalars"]["centroid"] == pytest.approx(2000, rel=0.05)  # white
    assert found["distances"].keys() == {"rms", "peak", "silence", "centroid"}


def test_notes_and_chords_are_each_struck(generate: Any, folder: Path) -> None:
    prime = folder / "tunes" / "0.mid"
    made = generate("n", "--prime", prime, "--frames", 6, "--count", 1, "--wav", "true")
    midi, wav = made["files"]
    assert Path(wav).is_file() and made["statistics"] is None
    opening = [notes.read_classes(path, list(map(str, range(128))))[:12] for path in (prime, midi)]
    np.testing.assert_array_equal(*opening)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("q --bars 2 --frames 3", ["--frames", "leave out one"]),
        ("q --prime-bars=2 --prime-frames=3", ["--prime-frames", "leave out one"]),
        ("q --bars 0", ["--bars", "at least 1, got 0"]),
        ("q --temperature 0", ["--temperature", "above 0, got 0"]),
        ("q --tempo 2", ["--tempo", "4 to 1000"]),
        ("q --velocity 0", ["--velocity", "1 to 127"]),
        ("q --voices 16", ["--voices", "1 to 15"]),
        ("q --wav loud", ["--wav", "true or false"]),
        ("q --data gone.h5", ["gone.h5", "gone"]),
        ("q --prime silent.mid", ["silent.mid", "give another"]),
        ("a --bars 2", ["no bars", "frames"]),
        ("a --voices 2", ["--voices", "sound, not notes"]),
        ("n --bars 2", ["no durations", "frames"]),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    refused: Refused, folder: Path, tmp_path: Path, words: str, says: list[str]
) -> None:
    write_midi(tmp_path / "silent.mid", np.zeros((8, 4)))
    run, *rest = words.split()
    refused("generate", folder / run, "-o", "new", *rest, says=tuple(says))
