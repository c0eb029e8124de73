"""MIDI: rolls as pretty_midi makes them, files that kill readers, and the way back."""

import math
import random
import warnings
from pathlib import Path

import mido
import numpy as np
import pretty_midi
import pytest

from data_prep import midi, midi_rolls, store, workers
from data_prep.midi import find_midi, prepare_midi, read_roll, write_midi

DATA = Path(__file__).resolve().parents[2].parent / "shared/data/midi"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real MIDI files at {DATA}")


def request(path: Path, rate: float = 4.0) -> midi_rolls.Request:
    return midi_rolls.Request(str(path), rate, 0, 127, False)


def oracle(path: Path, rate: float) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return (pretty_midi.PrettyMIDI(str(path)).get_piano_roll(rate) > 0).T


def differing_cells(one: np.ndarray, other: np.ndarray) -> int:
    """Cells that differ, the shorter roll being silent where it has ended."""
    frames = max(len(one), len(other))
    one, other = (np.pad(r.astype(bool), ((0, frames - len(r)), (0, 0))) for r in (one, other))
    return int((one != other).sum())


@needs_data
@pytest.mark.parametrize("rate", [4.0, 10.0])
@pytest.mark.parametrize("folder", ["pop909", "nottingham", "drums"])
def test_real_files_give_pretty_midis_rolls(folder: str, rate: float) -> None:
    """In this process and by symusic alone: a reader that fails must not hide behind the other."""
    for path in random.Random(folder).sample(find_midi(DATA / folder), 5):
        roll = midi_rolls.by_symusic(request(path, rate))
        assert differing_cells(roll, oracle(path, rate)) == 0, path


@needs_data
@pytest.mark.parametrize("folder", ["pop", "chopin-nocturnes"])
def test_messy_files_give_pretty_midis_rolls(folder: str) -> None:
    """Overlapping notes, notes that never end, drums, many instruments."""
    wrong = total = 0
    for path in random.Random(0).sample(find_midi(DATA / folder), 15):
        try:
            expected = oracle(path, 4.0)
        except (OSError, ValueError):
            continue  # those that pretty_midi refuses
        assert differing_cells(midi_rolls.by_pretty_midi(request(path)), expected) == 0, path
        wrong += differing_cells(midi_rolls.by_symusic(request(path)), expected)
        total += int(expected.sum())
    # An end and a beginning on one tick may be taken in either order: one cell in 438 files.
    assert wrong <= 1e-4 * total > 0


def test_a_note_that_never_ends_costs_no_other(tmp_path: Path) -> None:
    path = tmp_path / "hanging.mid"
    file = mido.MidiFile(ticks_per_beat=1024)
    file.tracks.append(mido.MidiTrack())
    # Beats 0 (never ends), 1 to 2, 4 to 5, 7 to 8, of half a second each.
    for kind, beats in (("on", 0), ("on", 1), ("off", 1), ("on", 2), ("off", 1), ("on", 2)):
        file.tracks[0].append(mido.Message(f"note_{kind}", note=60, time=1024 * beats))
    file.tracks[0].append(mido.Message("note_off", note=60, time=1024))
    file.save(path)
    roll = midi_rolls.by_symusic(request(path, 2.0))
    assert roll[:, 60].tolist() == [1, 1, 0, 0, 1, 0, 0, 1]


def messy_file(path: Path, seed: int) -> Path:
    """Overlapping notes, pedals and bends at random times, drums, and tempo changes."""
    rng = np.random.default_rng(seed)
    file = pretty_midi.PrettyMIDI(resolution=480, initial_tempo=97.0)
    for program, is_drum in ((0, False), (40, False), (0, True)):
        track = pretty_midi.Instrument(program, is_drum)
        for _ in range(60):
            start = float(rng.uniform(0, 20))
            end = start + float(rng.exponential(0.7)) + 0.01
            track.notes.append(pretty_midi.Note(90, int(rng.integers(40, 60)), start, end))
        for time in np.sort(rng.uniform(0, 22, 30)):
            value = int(rng.choice([0, 63, 64, 127]))
            track.control_changes.append(pretty_midi.ControlChange(64, value, float(time)))
            bend = int(rng.choice([0, -8192, 8191, 4096, -4096, 700]))
            track.pitch_bends.append(pretty_midi.PitchBend(bend, float(time) + 0.05))
        file.instruments.append(track)
    file.write(str(path))
    return path


@pytest.mark.parametrize("seed", range(4))
def test_pedals_bends_and_overlaps_follow_the_rule(tmp_path: Path, seed: int) -> None:
    path = messy_file(tmp_path / "messy.mid", seed)
    expected = oracle(path, 7.0)
    assert differing_cells(midi_rolls.by_pretty_midi(request(path, 7.0)), expected) == 0
    assert differing_cells(midi_rolls.by_symusic(request(path, 7.0)), expected) == 0


def hand_made(path: Path, *instruments: pretty_midi.Instrument) -> Path:
    file = pretty_midi.PrettyMIDI(resolution=1024, initial_tempo=120.0)
    file.instruments.extend(instruments)
    file.write(str(path))
    return path


def instrument(
    *notes: tuple[int, float, float], pedal: tuple[tuple[float, int], ...] = (), drum: bool = False
) -> pretty_midi.Instrument:
    made = pretty_midi.Instrument(0, drum)
    made.notes = [pretty_midi.Note(80, pitch, start, end) for pitch, start, end in notes]
    made.control_changes = [pretty_midi.ControlChange(64, value, time) for time, value in pedal]
    return made


def test_a_file_checked_by_hand(tmp_path: Path) -> None:
    path = hand_made(
        tmp_path / "hand.mid",
        # 62 is too short to be seen, 20 and 109 have no key, 63 is held by the pedal to 2.5 s.
        instrument((60, 0.5, 1.0), (62, 1.3, 1.4), (20, 0.0, 1.0), (109, 0.0, 1.0)),
        instrument((63, 1.0, 1.5), pedal=((1.25, 127), (2.5, 0))),
        instrument((40, 0.0, 3.0), drum=True),
    )
    roll = read_roll(path)
    expected = np.zeros((12, 88), np.uint8)  # silence at both ends; the drum ends at 3 s
    expected[2:4, 60 - 21] = 1
    expected[4:10, 63 - 21] = 1
    np.testing.assert_array_equal(roll, expected)
    assert roll.dtype == np.uint8
    drums = read_roll(path, drums=True, lowest_pitch=40, highest_pitch=40)
    np.testing.assert_array_equal(drums, np.ones((12, 1)))


@pytest.mark.parametrize("seed", range(6))
def test_round_trip_is_exact(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rate = [4.0, 2.0, 10.0, 7.3, 1 / 3, 100.0][seed]
    lowest, keys = [(21, 88), (0, 128), (36, 40), (21, 88), (60, 1), (21, 88)][seed]
    roll = (rng.random((150, keys)) < rng.choice([0.05, 0.5])).astype(np.uint8)
    roll[:3] = 0
    path = tmp_path / "roll.mid"
    write_midi(path, roll, rate, lowest, program=5)
    last = np.flatnonzero(roll.any(axis=1))[-1] + 1
    read = read_roll(path, rate, lowest, lowest + keys - 1)
    np.testing.assert_array_equal(read, roll[:last])
    np.testing.assert_array_equal(oracle(path, rate)[:last, lowest : lowest + keys], roll[:last])


def test_long_rolls_do_not_drift(tmp_path: Path) -> None:
    roll = (np.arange(20_000)[:, None] % 3 == np.arange(3)).astype(np.uint8)
    write_midi(tmp_path / "long.mid", roll, 7.3, 60)
    np.testing.assert_array_equal(read_roll(tmp_path / "long.mid", 7.3, 60, 62), roll)


def test_consecutive_frames_are_one_note_and_the_length_is_kept(tmp_path: Path) -> None:
    roll = np.zeros((12, 3), np.uint8)
    roll[2:6, 1] = 1
    roll[7:8, 1] = 1
    write_midi(tmp_path / "x.mid", roll, velocity=33, program=19)
    file = pretty_midi.PrettyMIDI(str(tmp_path / "x.mid"))
    (track,) = file.instruments
    assert track.program == 19
    assert [(n.pitch, n.velocity, n.start, n.end) for n in track.notes] == [
        (22, 33, 0.5, 1.5),
        (22, 33, 1.75, 2.0),
    ]
    assert file.get_end_time() == 3.0


@pytest.mark.parametrize("frames", [0, 9])
def test_silence_is_a_valid_file(tmp_path: Path, frames: int) -> None:
    write_midi(tmp_path / "silence.mid", np.zeros((frames, 88)))
    assert pretty_midi.PrettyMIDI(str(tmp_path / "silence.mid")).get_end_time() == frames / 4
    assert read_roll(tmp_path / "silence.mid").shape == (0, 88)


def test_write_midi_refuses_what_midi_cannot_hold_and_keeps_the_older_file(tmp_path: Path) -> None:
    path, roll = tmp_path / "x.mid", np.ones((2, 88))
    write_midi(path, roll)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"velocity is 128; give 1 to 127"):
        write_midi(path, roll, velocity=128)
    with pytest.raises(ValueError, match=r"program is -1"):
        write_midi(path, roll, program=-1)
    with pytest.raises(ValueError, match=r"roll is \(2, 88\) from pitch 41"):
        write_midi(path, roll, lowest_pitch=41)
    with pytest.raises(ValueError, match=r"frame_rate is 0"):
        write_midi(path, roll, frame_rate=0)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError, match=r"the folder .* does not exist"):
        write_midi(tmp_path / "no" / "x.mid", roll)


def test_workers_outlive_items_that_kill_hang_or_raise() -> None:
    """os._exit ends the process that calls it, as a crash in a reader does."""
    results = dict(workers.run("os:_exit", [3, 4, 5], seconds=20, processes=2))
    died = "the reader died (exit status {})"
    assert results == {n: workers.Failed(died.format(n + 3)) for n in range(3)}
    assert list(workers.run("time:sleep", [60], seconds=0.5)) == [
        (0, workers.Failed("took longer than 0.5 s"))
    ]
    results = dict(workers.run("math:sqrt", [4.0, -1.0, 9.0, "x"], seconds=20, processes=1))
    assert (results[0], results[2]) == (2.0, 3.0)
    assert [type(results[n]) for n in (1, 3)] == [workers.Failed, workers.Failed]
    with pytest.raises(ValueError) as caught:
        math.sqrt(-1.0)
    assert results[1].reason == str(caught.value)
    assert list(workers.run("math:sqrt", [], seconds=1)) == []


@needs_data
def test_malformed_files_leave_the_process_alive(tmp_path: Path) -> None:
    calls: list[tuple[int, int, int]] = []
    summary = prepare_midi(
        DATA / "malformed", tmp_path / "x.h5", progress=lambda *done: calls.append(done)
    )
    found = summary["files_found"]
    assert found == len(find_midi(DATA / "malformed")) == 36
    assert summary["files_read"] + len(summary["files_skipped"]) == found
    skipped = {Path(s["path"]).name: s["reason"] for s in summary["files_skipped"]}
    assert {"test-empty-file.mid", "test-not-a-midi-file.mid"} <= set(skipped)
    assert all(reason and "\n" not in reason for reason in skipped.values())
    assert calls[-1] == (found, found, len(skipped))
    assert [done for done, _, _ in calls] == list(range(1, found + 1))
    assert sum(store.read(tmp_path / "x.h5").splits["train"].lengths) == summary["frames"]["train"]


def song(path: Path, pitch: int, frames: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    roll = np.zeros((frames, 88), np.uint8)
    roll[:: 2 if pitch % 2 else 3, pitch - 21] = 1
    roll[-1, pitch - 21] = 1
    write_midi(path, roll)
    return path


def test_find_midi_looks_everywhere(tmp_path: Path) -> None:
    files = [song(tmp_path / name, 60) for name in ("b/c/1.MID", "b/2.midi", "a.mid")]
    (tmp_path / "notes.txt").write_text("no")
    (tmp_path / "folder.mid").mkdir()
    assert find_midi(tmp_path) == sorted(files)
    assert find_midi([str(tmp_path / "b"), files[2], files[2]]) == sorted(files)
    with pytest.raises(FileNotFoundError, match=r"absent: no such file or folder"):
        find_midi(tmp_path / "absent")


def test_songs_are_kept_together_and_cut(tmp_path: Path) -> None:
    for n in range(10):
        song(tmp_path / f"in/Artist/Song {n}.mid", 30 + n)
        song(tmp_path / f"in/Artist/Song {n}.1.mid", 50 + n)  # another take of the song
        song(tmp_path / f"in/Cover/Other {n}.mid", 30 + n)  # the very same notes
    output = tmp_path / "x.h5"
    summary = prepare_midi(tmp_path / "in", output, segment_seconds=0.75)
    assert summary["sequences"] == {"train": 8 * 9, "valid": 9, "test": 9}
    assert summary["frames"] == {"train": 8 * 24, "valid": 24, "test": 24}
    data = store.read(output)
    homes: dict[str, set[str]] = {}
    for name, split in data.splits.items():
        assert split.lengths.tolist() == [3, 3, 2] * (len(split.lengths) // 3)
        for source in split.source:
            homes.setdefault(source.split(".")[0][-1], set()).add(name)
    assert len(homes) == 10
    assert all(len(names) == 1 for names in homes.values())
    assert "Artist/Song 3.1.mid" in {
        name for split in data.splits.values() for name in split.source
    }
    attributes = data.attributes
    assert (attributes["frame_rate"], attributes["lowest_pitch"]) == (4.0, 21)

    whole = prepare_midi(tmp_path / "in", tmp_path / "y.h5", segment_seconds=None)
    assert whole["frames"] == summary["frames"]
    assert whole["sequences"] == {"train": 24, "valid": 3, "test": 3}
    prepare_midi(tmp_path / "in", tmp_path / "z.h5", segment_seconds=0)
    assert (tmp_path / "y.h5").read_bytes() == (tmp_path / "z.h5").read_bytes()


def test_files_skipped_are_named_with_a_reason(tmp_path: Path) -> None:
    song(tmp_path / "good.mid", 60)
    (tmp_path / "text.mid").write_text("this is no MIDI file")
    write_midi(tmp_path / "silent.mid", np.zeros((8, 88)))
    summary = prepare_midi(tmp_path, tmp_path / "x.h5")
    assert (summary["files_found"], summary["files_read"]) == (3, 1)
    silent, text = summary["files_skipped"]
    assert silent["path"].endswith("silent.mid")
    assert silent["reason"].startswith("no note of pitch 21 to 108")
    assert text["path"].endswith("text.mid")
    assert "symusic" in text["reason"] and "pretty_midi" in text["reason"]


def test_nothing_readable_is_one_clear_line_and_no_file(tmp_path: Path) -> None:
    folder, output = tmp_path / "in", tmp_path / "x.h5"
    folder.mkdir()
    with pytest.raises(ValueError, match=r"in: no .mid or .midi file found"):
        prepare_midi(folder, output)
    (folder / "text.mid").write_text("this is no MIDI file")
    with pytest.raises(ValueError, match=r"text.mid: .*none of 1 MIDI files could") as caught:
        prepare_midi(folder, output)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"text.mid: not a readable MIDI file"):
        read_roll(folder / "text.mid")
    with pytest.raises(FileNotFoundError, match=r"none.mid: no such file"):
        read_roll(folder / "none.mid")
    assert not output.exists()


def test_refuses_settings_that_make_no_sense(tmp_path: Path) -> None:
    path, output = song(tmp_path / "good.mid", 60), tmp_path / "x.h5"
    with pytest.raises(ValueError, match=r"frame_rate is -1"):
        prepare_midi(path, output, frame_rate=-1.0)
    with pytest.raises(ValueError, match=r"pitches 100 to 50"):
        prepare_midi(path, output, lowest_pitch=100, highest_pitch=50)
    with pytest.raises(ValueError, match=r"segment_seconds is 0.1"):
        prepare_midi(path, output, segment_seconds=0.1)
    with pytest.raises(FileNotFoundError, match=r"the folder .* does not exist"):
        prepare_midi(path, tmp_path / "no" / "x.h5")
    with pytest.raises(ValueError, match=r"fractions are"):
        prepare_midi(path, output, fractions=(1.0, 1.0, 1.0))
    assert not output.exists()


def test_splits_do_not_depend_on_where_the_folder_is(tmp_path: Path) -> None:
    for folder in ("one", "two/deeper"):
        for n in range(8):
            song(tmp_path / folder / f"{n}.mid", 40 + n)
    for folder in ("one", "two"):
        prepare_midi(tmp_path / folder, tmp_path / f"{folder}.h5", seed=3)
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()
    assert midi.SUFFIXES == (".mid", ".midi")
