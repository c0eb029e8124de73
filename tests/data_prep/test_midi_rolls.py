"""Rolls of one file: the rule of pretty_midi, by both readers, and what may be asked of it."""

import random
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mido
import music21
import numpy as np
import pretty_midi
import pytest

from data_prep import midi_events, midi_keys, midi_symusic
from data_prep.midi_rolls import Request

DATA = Path(__file__).resolve().parents[2].parent / "shared/data/midi"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real MIDI files at {DATA}")
Reader = Callable[[bytes, Request], np.ndarray]
by_events = midi_events.by_events
both_readers = pytest.mark.parametrize("reader", [midi_symusic.by_symusic, midi_events.by_events])


def all_keys(rate: float = 4.0, **options: object) -> Request:
    return Request(rate, lowest_pitch=0, highest_pitch=127, **options)  # type: ignore[arg-type]


def oracle(path: Path, rate: float, **options: object) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return (pretty_midi.PrettyMIDI(str(path)).get_piano_roll(rate, **options) > 0).T


def differing_cells(one: np.ndarray, other: np.ndarray) -> int:
    """Cells that differ, the shorter roll being silent where it has ended."""
    frames = max(len(one), len(other))
    one, other = (np.pad(r.astype(bool), ((0, frames - len(r)), (0, 0))) for r in (one, other))
    return int((one != other).sum())


def some_files(folder: str, count: int) -> list[Path]:
    return random.Random(folder).sample(sorted((DATA / folder).rglob("*.mid")), count)


@needs_data
@both_readers
@pytest.mark.parametrize("rate", [4.0, 10.0])
@pytest.mark.parametrize("folder", ["pop909", "nottingham", "drums"])
def test_real_files_give_pretty_midis_rolls(folder: str, rate: float, reader: Reader) -> None:
    for path in some_files(folder, 4):
        roll = reader(path.read_bytes(), all_keys(rate))
        assert differing_cells(roll, oracle(path, rate)) == 0, path


@needs_data
@pytest.mark.parametrize("folder", ["pop", "chopin-nocturnes"])
def test_messy_files_give_pretty_midis_rolls(folder: str) -> None:
    """Overlapping notes, notes that never end, drums, many instruments."""
    wrong = total = 0
    for path in some_files(folder, 15):
        try:
            expected = oracle(path, 4.0)
        except (OSError, ValueError):
            continue  # those that pretty_midi refuses
        content = path.read_bytes()
        assert differing_cells(midi_events.by_events(content, all_keys()), expected) == 0, path
        wrong += differing_cells(midi_symusic.by_symusic(content, all_keys()), expected)
        total += int(expected.sum())
    assert wrong <= 5e-4 * total > 0


@needs_data
def test_where_the_readers_differ_from_pretty_midi() -> None:
    """The tempo is in another track than the first: pretty_midi plays at 120 beats a minute."""
    path = DATA / "pop/Winds_Of_Fjords.mid"
    tempi = [m for track in mido.MidiFile(path).tracks[1:] for m in track if m.type == "set_tempo"]
    assert [tempo.tempo for tempo in tempi] == [263158]
    ours = [f(path.read_bytes(), all_keys()) for f in (midi_symusic.by_symusic, by_events)]
    assert differing_cells(*ours) == 0
    stretched = oracle(path, 4.0 * 263158 / 500000)  # so many frames a second at 120
    assert differing_cells(ours[0], stretched) <= 0.01 * stretched.sum()
    assert differing_cells(ours[0], oracle(path, 4.0)) > 0.5 * stretched.sum()


@needs_data
def test_files_that_pretty_midi_refuses_are_read() -> None:
    """Programs and velocities above 127, a key signature that is none, a false chunk length."""
    for name in ("Everybody Wants To Rule The World", "Rush E (2)", "Jingle-Bells-1"):
        path = DATA / f"pop/{name}.mid"
        with pytest.raises((OSError, ValueError)):
            oracle(path, 4.0)
        one, other = (
            f(path.read_bytes(), all_keys()) for f in (midi_symusic.by_symusic, by_events)
        )
        assert one.any() and differing_cells(one, other) <= 1e-3 * one.sum()
    damaged = (DATA / "pop/Nirvana - Smells Like Teen Spirit.mid").read_bytes()
    with pytest.raises(RuntimeError):
        midi_symusic.read(damaged)
    assert midi_symusic.by_symusic(damaged, all_keys()).any()


@both_readers
def test_a_note_that_never_ends_costs_no_other(tmp_path: Path, reader: Reader) -> None:
    file = mido.MidiFile(ticks_per_beat=1024)
    file.tracks.append(mido.MidiTrack())
    # Beats 0 (never ends), 1 to 2, 4 to 5, 7 to 8, of half a second each.
    for kind, beats in (("on", 0), ("on", 1), ("off", 1), ("on", 2), ("off", 1), ("on", 2)):
        file.tracks[0].append(mido.Message(f"note_{kind}", note=60, time=1024 * beats))
    file.tracks[0].append(mido.Message("note_off", note=60, time=1024))
    file.tracks[0].append(mido.Message("note_on", note=62, time=0))  # nor does this one
    file.save(tmp_path / "hanging.mid")
    roll = reader((tmp_path / "hanging.mid").read_bytes(), all_keys(2.0))
    assert roll[:, 60].tolist() == [1, 1, 0, 0, 1, 0, 0, 1]
    assert roll.sum() == 4


def messy_file(path: Path, seed: int) -> Path:
    """Overlapping notes, pedals and bends at random times, drums, and programs on one channel."""
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


@both_readers
@pytest.mark.parametrize("seed", range(6))
def test_pedals_bends_and_overlaps_follow_the_rule(
    tmp_path: Path, seed: int, reader: Reader
) -> None:
    path = messy_file(tmp_path / "messy.mid", seed)
    content = path.read_bytes()
    assert differing_cells(reader(content, all_keys(7.0)), oracle(path, 7.0)) == 0
    without = oracle(path, 7.0, pedal_threshold=None)
    assert differing_cells(oracle(path, 7.0), without) > 0
    assert differing_cells(reader(content, all_keys(7.0, pedal="ignore")), without) == 0


@both_readers
def test_drums_alone_or_with_the_rest(tmp_path: Path, reader: Reader) -> None:
    content = messy_file(tmp_path / "messy.mid", 0).read_bytes()
    file = pretty_midi.PrettyMIDI(str(tmp_path / "messy.mid"))
    drums = [track for track in file.instruments if track.is_drum]
    for track in file.instruments:
        track.is_drum = False  # pretty_midi gives drums no roll
    everything = (file.get_piano_roll(7.0) > 0).T
    file.instruments = drums
    alone = (file.get_piano_roll(7.0) > 0).T
    assert alone.any() and differing_cells(everything, alone) > 0
    assert differing_cells(reader(content, all_keys(7.0, drums="all")), everything) == 0
    assert differing_cells(reader(content, all_keys(7.0, drums="only")), alone) == 0


def notes_file(path: Path, notes: Sequence[tuple[int, float, float]], channel: int = 0) -> bytes:
    """(pitch, start, end) in beats, with tempo changes on the way."""
    file = mido.MidiFile(ticks_per_beat=480)
    moments = [(start, 1, pitch) for pitch, start, _ in notes]
    moments += [(end, 0, pitch) for pitch, _, end in notes]
    events: list[tuple[float, mido.Message]] = [
        (beat, mido.Message("note_on", note=pitch, velocity=80 * on, channel=channel))
        for beat, on, pitch in sorted(moments)
    ]
    events += [(b, mido.MetaMessage("set_tempo", tempo=400_000 + 90_000 * b)) for b in (0, 2, 5)]
    track, now = mido.MidiTrack(), 0
    for beat, message in sorted(events, key=lambda event: event[0]):
        track.append(message.copy(time=round(480 * beat) - now))
        now = round(480 * beat)
    file.tracks.append(track)
    file.save(path)
    return path.read_bytes()


@both_readers
def test_frames_of_beats_follow_the_tempo(tmp_path: Path, reader: Reader) -> None:
    rng = np.random.default_rng(0)
    starts = rng.uniform(0, 20, 40)
    notes = [(40 + n % 30, s, s + rng.uniform(0.1, 3)) for n, s in enumerate(starts)]
    content = notes_file(tmp_path / "x.mid", notes)
    file = mido.MidiFile(tmp_path / "x.mid")
    file.tracks[0] = mido.MidiTrack(
        m if m.type != "set_tempo" else mido.MetaMessage("text", time=m.time)
        for m in file.tracks[0]
    )
    file.save(tmp_path / "plain.mid")  # 120 beats a minute throughout
    roll = reader(content, all_keys(frames_per_beat=3))
    assert differing_cells(roll, oracle(tmp_path / "plain.mid", 6.0)) == 0
    assert differing_cells(roll, oracle(tmp_path / "x.mid", 6.0)) > 0


@both_readers
def test_transposed_to_c_drums_aside(tmp_path: Path, reader: Reader) -> None:
    d_major = [(62 + step, n, n + 1.0) for n, step in enumerate((0, 4, 7, 0, 5, 9, 11, 12, 7, 0))]
    content = notes_file(tmp_path / "d.mid", d_major)
    moved = reader(content, all_keys(transpose="c"))
    np.testing.assert_array_equal(moved, np.roll(reader(content, all_keys()), -2, axis=1))
    drums = notes_file(tmp_path / "drums.mid", d_major, channel=9)
    rolls = [reader(drums, all_keys(drums="all", transpose=t)) for t in ("none", "c")]
    np.testing.assert_array_equal(rolls[0], rolls[1])
    assert rolls[0].any()


@pytest.mark.parametrize("seed", range(4))
def test_the_key_is_the_one_that_music21_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scale = np.array([[0, 2, 4, 5, 7, 9, 11], [0, 2, 3, 5, 7, 8, 11]][seed % 2])
    tonic = int(rng.integers(12))
    pitch = 60 + tonic + np.append(rng.choice(scale, 30), [0, 7, scale[2]] * 3)
    duration = rng.integers(1, 9, len(pitch))
    score: Any = music21.stream.Stream()
    for note, lasts in zip(pitch.tolist(), duration.tolist(), strict=True):
        score.append(music21.note.Note(note, quarterLength=lasts))
    theirs = music21.analysis.discrete.KrumhanslKessler().getSolution(score)
    assert midi_keys.key(pitch, duration) == (theirs.tonic.pitchClass, theirs.mode)
    home = 0 if theirs.mode == "major" else 9
    assert (theirs.tonic.pitchClass + midi_keys.to_c(pitch, duration)) % 12 == home


@both_readers
def test_songs_with_too_few_notes_have_no_frames(tmp_path: Path, reader: Reader) -> None:
    content = notes_file(tmp_path / "x.mid", [(60, 0, 1), (62, 1, 2), (30, 2, 3)])
    assert len(reader(content, all_keys(minimum_notes=3))) > 0
    assert reader(content, all_keys(minimum_notes=4)).shape == (0, 128)
    request = Request(lowest_pitch=50, highest_pitch=70, minimum_notes=3)
    assert reader(content, request).shape == (0, 21)


def test_a_damaged_file_is_read_to_the_damage(tmp_path: Path) -> None:
    content = notes_file(tmp_path / "x.mid", [(60 + n, n, n + 1.0) for n in range(8)])
    whole = by_events(content, all_keys())
    for size in range(len(content)):
        try:
            roll = by_events(content[:size], all_keys())
        except ValueError as error:
            assert size < 14 and str(error) == "has no MIDI header"
            continue
        assert differing_cells(roll & whole[: len(roll)], roll) == 0
    assert by_events(content[:-4], all_keys()).sum() == whole.sum()
    for place, byte in ((30, 0xF4), (40, 0xFD), (45, 0x00)):
        spoilt = content[:place] + bytes([byte]) + content[place + 1 :]
        assert by_events(spoilt, all_keys()).ndim == 2


@pytest.mark.parametrize("seed", range(3))
def test_nonsense_ends_in_a_roll_or_one_clear_reason(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    content = messy_file(tmp_path / "x.mid", seed).read_bytes()
    for _ in range(30):
        spoilt = bytearray(content)
        for place in rng.integers(14, len(content), 20):
            spoilt[place] = rng.integers(256)
        try:
            assert set(np.unique(by_events(bytes(spoilt), all_keys()))) <= {0, 1}
        except ValueError as error:
            assert "corrupt" in str(error)


def test_refuses_what_no_roll_can_be() -> None:
    wrong: dict[str, Any]
    for wrong, reason in (
        ({"frame_rate": 0.0}, "frame_rate is 0"),
        ({"frames_per_beat": 5000.0}, "frames_per_beat is 5000"),
        ({"lowest_pitch": 100, "highest_pitch": 50}, "pitches 100 to 50"),
        ({"highest_pitch": 128}, "pitches 21 to 128"),
    ):
        with pytest.raises(ValueError, match=reason):
            Request(**wrong)


def test_what_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    content = notes_file(tmp_path / "x.mid", [(n, 0.0, 9000.0) for n in range(100)])
    assert len(by_events(content, all_keys(1.0))) > 3600
    with pytest.raises(ValueError, match="sounds on and on: likely corrupt"):
        by_events(content, all_keys(100.0))
    content = notes_file(tmp_path / "x.mid", [(60, 0.0, 60_000.0)])
    with pytest.raises(ValueError, match="lasts 14 hours, over 6: likely corrupt"):
        by_events(content, all_keys())
