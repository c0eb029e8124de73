"""MIDI files: read, written, and made into data sets whatever they hold."""

import hashlib
import math
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pretty_midi
import pytest

from data_prep import store, workers
from data_prep.midi import prepare_midi, read_roll, write_midi
from data_prep.midi_rolls import Request

DATA = Path(__file__).resolve().parents[2].parent / "shared/data/midi"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real MIDI files at {DATA}")


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
    drums = read_roll(path, drums="all", lowest_pitch=40, highest_pitch=40)
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
    theirs = (pretty_midi.PrettyMIDI(str(path)).get_piano_roll(rate) > 0).T
    np.testing.assert_array_equal(theirs[:last, lowest : lowest + keys], roll[:last])


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
    late = workers.Failed("took longer than 0.05 s")
    assert list(workers.run("time:sleep", [600], seconds=0.05)) == [(0, late)]
    assert list(workers.run("builtins:sum", [range(10**15)], seconds=0.05)) == [(0, late)]
    results = dict(workers.run("math:sqrt", [4.0, -1.0, 9.0, "x"], seconds=20, processes=1))
    assert (results[0], results[2]) == (2.0, 3.0)
    assert [type(results[n]) for n in (1, 3)] == [workers.Failed, workers.Failed]
    with pytest.raises(ValueError) as caught:
        math.sqrt(-1.0)
    assert results[1].reason == str(caught.value)
    assert list(workers.run("math:sqrt", [], seconds=1)) == []


def test_an_item_is_given_processor_time_and_not_time_by_the_clock() -> None:
    """It sleeps for longer than it may work, as it would wait for its turn on a busy machine."""
    results = dict(workers.run("time:sleep", [2.0, 0.0], seconds=1.5, processes=1))
    assert results == {0: None, 1: None}


@needs_data
def test_malformed_files_leave_the_process_alive(tmp_path: Path) -> None:
    calls: list[tuple[int, int, int]] = []
    summary = prepare_midi(
        DATA / "malformed", tmp_path / "x.h5", progress=lambda *done: calls.append(done)
    )
    found = summary["files_found"]
    assert found == len(list((DATA / "malformed").iterdir())) == 36
    assert summary["files_read"] + len(summary["files_skipped"]) == found
    skipped = {Path(s["path"]).name: s["reason"] for s in summary["files_skipped"]}
    assert {"test-empty-file.mid", "test-not-a-midi-file.mid"} <= set(skipped)
    assert all(reason and "\n" not in reason for reason in skipped.values())
    done = [call[0] for call in calls]
    assert done == sorted(done) and calls[-1][:2] == (found, found)
    assert sum(store.read(tmp_path / "x.h5").splits["train"].lengths) == summary["frames"]["train"]


def song(path: Path, pitch: int, frames: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    roll = np.zeros((frames, 88), np.uint8)
    roll[:: 2 if pitch % 2 else 3, pitch - 21] = 1
    roll[-1, pitch - 21] = 1
    write_midi(path, roll)
    return path


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

    whole = prepare_midi(tmp_path / "in", tmp_path / "y.h5", segment_seconds=0)
    assert whole["frames"] == summary["frames"]
    assert whole["sequences"] == {"train": 24, "valid": 3, "test": 3}
    cut = prepare_midi(tmp_path / "in", tmp_path / "z.h5", segment_seconds=0.75, tails="drop")
    assert cut["frames"] == {"train": 8 * 18, "valid": 18, "test": 18}


def test_a_piece_without_a_whole_segment_is_named(tmp_path: Path) -> None:
    song(tmp_path / "in/long.mid", 60, frames=12)
    song(tmp_path / "in/short.mid", 60, frames=4)
    summary = prepare_midi(tmp_path / "in", tmp_path / "x.h5", segment_seconds=2.0, tails="drop")
    assert summary["files_read"] == 1 and summary["frames"]["train"] == 8
    reason = "its 4 frames are less than a segment of 8"
    assert summary["files_skipped"] == [{"path": "short.mid", "reason": reason}]


def test_frames_of_beats_and_what_the_data_say_of_themselves(tmp_path: Path) -> None:
    song(tmp_path / "in/a.mid", 60, frames=10)  # 10 frames at 4 a second are 10 beats at 120
    request = Request(frames_per_beat=4.0, drums="all", pedal="ignore", transpose="c")
    prepare_midi(
        tmp_path / "in", tmp_path / "x.h5", request, segment_seconds=1.0, fractions=(1, 0, 0)
    )
    data = store.read(tmp_path / "x.h5")
    assert data.splits["train"].lengths.tolist() == [8, 8, 4]
    told = {"frame_unit": "beat/4", "frame_rate": 8.0, "split": "piece", "name": "MIDI files"}
    told |= {"drums": "all", "pedal": "ignore", "transpose": "c", "lowest_pitch": 21, "seed": 0}
    assert {name: data.attributes[name] for name in told} == told


def test_files_skipped_are_named_with_a_reason(tmp_path: Path) -> None:
    song(tmp_path / "good.mid", 60)
    (tmp_path / "text.mid").write_text("this is no MIDI file")
    write_midi(tmp_path / "silent.mid", np.zeros((8, 88)))
    summary = prepare_midi(tmp_path, tmp_path / "x.h5")
    assert (summary["files_found"], summary["files_read"]) == (3, 1)
    silent, text = summary["files_skipped"]
    assert silent["path"] == "silent.mid"
    assert silent["reason"].startswith("no note of pitch 21 to 108")
    assert text["path"] == "text.mid"
    assert "symusic: " in text["reason"] and "events: has no MIDI header" in text["reason"]
    (tmp_path / "text.mid").unlink()
    request = Request(minimum_notes=9)
    with pytest.raises(ValueError, match=r"good.mid: fewer than 9 notes .* none of 2 files"):
        prepare_midi(tmp_path, tmp_path / "y.h5", request)
    assert not (tmp_path / "y.h5").exists()


def test_an_archive_is_as_good_as_a_folder(tmp_path: Path) -> None:
    for n in range(8):
        song(tmp_path / f"in/{n}.mid", 40 + n)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in sorted((tmp_path / "in").iterdir()):
            archive.write(path, path.name)
    shutil.make_archive(str(tmp_path / "all"), "gztar", tmp_path / "in")
    frames = []
    for name in ("in", "all.zip", "all.tar.gz"):
        prepare_midi(tmp_path / name, tmp_path / "x.h5")
        data = store.read(tmp_path / "x.h5")
        frames.append(np.concatenate([np.sort(s.frames[:], axis=0) for s in data.splits.values()]))
        assert sorted(Path(p).name for s in data.splits.values() for p in s.source) == sorted(
            f"{n}.mid" for n in range(8)
        )
    assert frames[0].sum() == frames[1].sum() == frames[2].sum()


SCRIPT = """
import os, signal, sys
from data_prep.midi import prepare_midi

def progress(done, total, skipped):
    if done == 1000:
        os.kill(os.getpid(), signal.SIGKILL)

prepare_midi(sys.argv[1], sys.argv[2], progress=progress)
"""


def test_killed_and_called_again_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    """As `benchmarks/prepare.py kill` with 100,000 files."""
    small_files(tmp_path / "in", 6000)
    prepare_midi(tmp_path / "in", tmp_path / "whole.h5")
    output = tmp_path / "killed.h5"
    words = [sys.executable, "-c", SCRIPT, str(tmp_path / "in"), str(output)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)}
    journal = tmp_path / ".killed.h5.work"
    assert subprocess.run(words, env=environment).returncode == -signal.SIGKILL
    assert not output.exists() and journal.exists()
    calls: list[int] = []
    prepare_midi(tmp_path / "in", output, progress=lambda done, total, skipped: calls.append(done))
    assert 5000 <= len(calls) < 6000  # what was not written down in time is read again
    first, second = (p.read_bytes() for p in (tmp_path / "whole.h5", output))
    assert hashlib.sha256(first).digest() == hashlib.sha256(second).digest()
    assert not journal.exists()


def small_files(folder: Path, count: int) -> None:
    """Different files: a note for each digit of their number."""
    folder.mkdir()
    header = b"MThd\0\0\0\6\0\0\0\1\0\x60"
    for n in range(count):
        keys = [40 + 12 * place + int(digit) for place, digit in enumerate(f"{n:04}")]
        track = b"".join(bytes((0, 0x90, key, 90, 96, 0x80, key, 0)) for key in keys)
        track += b"\0\xff\x2f\0"
        content = header + b"MTrk" + len(track).to_bytes(4, "big") + track
        (folder / f"{n:04}.mid").write_bytes(content)


def test_nothing_readable_is_one_clear_line_and_no_file(tmp_path: Path) -> None:
    folder, output = tmp_path / "in", tmp_path / "x.h5"
    folder.mkdir()
    with pytest.raises(ValueError, match=r"in: no .mid or .midi file found"):
        prepare_midi(folder, output)
    (folder / "text.mid").write_text("this is no MIDI file")
    with pytest.raises(ValueError, match=r"text.mid: .*none of 1 files could") as caught:
        prepare_midi(folder, output)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"text.mid: not a readable MIDI file"):
        read_roll(folder / "text.mid")
    with pytest.raises(FileNotFoundError, match=r"none.mid: no such file"):
        read_roll(folder / "none.mid")
    assert not output.exists()


def test_refuses_settings_that_make_no_sense(tmp_path: Path) -> None:
    path, output = song(tmp_path / "good.mid", 60), tmp_path / "x.h5"
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
    for folder in ("one", "two/deeper"):
        prepare_midi(tmp_path / folder, tmp_path / folder / "x.h5", seed=3)
    one, two = (tmp_path / folder / "x.h5" for folder in ("one", "two/deeper"))
    assert one.read_bytes() == two.read_bytes()


def test_the_command_takes_every_option(tmp_path: Path, command: Callable[..., Any]) -> None:
    for n in range(8):
        song(tmp_path / f"in/{n}.mid", 60 + n, frames=20)
    words = "--frames-per-beat 3 --lowest-pitch 30 --highest-pitch 90 --segment-seconds 1 --seed 4"
    words += " --tails drop --drums all --pedal ignore --transpose c --minimum-notes 2"
    words += " --fractions 0.5 0.25 0.25"
    outcome = command("prepare", "midi", tmp_path / "in", "-o", tmp_path / "x.h5", *words.split())
    assert outcome.code == 0
    request = Request(4.0, 3.0, 30, 90, "all", "ignore", "c", 2)
    prepare_midi(
        tmp_path / "in",
        tmp_path / "y.h5",
        request,
        segment_seconds=1.0,
        tails="drop",
        fractions=(0.5, 0.25, 0.25),
        seed=4,
    )
    assert (tmp_path / "x.h5").read_bytes() == (tmp_path / "y.h5").read_bytes()
