"""Rolls as they are played: notes, voices, MIDI and sound."""

import librosa
import numpy as np
import pretty_midi
import pytest

from data_prep.midi import Meter, read_meter, read_roll, write_midi
from data_prep.playing import PEAK, SAMPLE_RATE, notes_of, render, roll_of_tokens, voices_of


def random_roll(frames: int = 40, keys: int = 30, share: float = 0.15) -> np.ndarray:
    return (np.random.default_rng(0).random((frames, keys)) < share).astype(np.uint8)


def key_of(pitch: int, frames: int = 8) -> np.ndarray:
    roll = np.zeros((frames, 128), np.uint8)
    roll[:, pitch] = 1
    return roll


@pytest.mark.parametrize("restrike", [False, True])
def test_notes_make_the_roll_again(restrike: bool) -> None:
    roll = random_roll(share=0.6)
    notes, made = notes_of(roll, restrike), np.zeros_like(roll)
    for key, start, end in notes:
        made[start:end, key] += 1
    np.testing.assert_array_equal(made, roll)
    assert (np.diff(notes[:, 1]) >= 0).all()
    if restrike:
        assert len(notes) == roll.sum()
    else:
        assert all(end == len(roll) or not roll[end, key] for key, _, end in notes)


def test_voices_are_ranks_from_the_top() -> None:
    roll = random_roll(share=0.2)
    voices = voices_of(roll, 3)
    np.testing.assert_array_equal(voices.sum(axis=0), roll)
    for frame, keys in enumerate(roll):
        downwards = np.flatnonzero(keys)[::-1].tolist()
        for n in range(2):
            assert np.flatnonzero(voices[n, frame]).tolist() == downwards[n : n + 1]
        assert np.flatnonzero(voices[2, frame])[::-1].tolist() == downwards[2:]
    np.testing.assert_array_equal(voices_of(roll, 1)[0], roll)


@pytest.mark.parametrize("how", [{}, {"voices": 4}, {"restrike": True}, {"tempo": 97.3}])
def test_midi_reads_back_as_the_roll_however_it_is_played(tmp_path, how: dict) -> None:
    roll = random_roll()
    roll[-1, 3] = 1
    write_midi(tmp_path / "x.mid", roll, 6.0, 40, **how)
    read = read_roll(tmp_path / "x.mid", lowest_pitch=40, highest_pitch=69, frames_per_beat=3.0)
    np.testing.assert_array_equal(read, roll)


def test_midi_says_tempo_velocity_voices_and_strokes(tmp_path) -> None:
    roll = random_roll(share=0.5)
    write_midi(tmp_path / "x.mid", roll, 4.0, 40, 33, tempo=60.0, restrike=True, voices=3)
    file = pretty_midi.PrettyMIDI(str(tmp_path / "x.mid"))
    assert file.get_tempo_changes()[1].tolist() == [60.0]
    assert [track.name for track in file.instruments] == ["voice 1", "voice 2", "voice 3"]
    notes = [note for track in file.instruments for note in track.notes]
    assert len(notes) == roll.sum() and {note.velocity for note in notes} == {33}
    assert {round(note.end - note.start, 6) for note in notes} == {0.5}  # 4 a second at 120


@pytest.mark.parametrize(("name", "value"), [("tempo", 3), ("voices", 0), ("voices", 16)])
def test_what_midi_cannot_say_is_refused(tmp_path, name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}; give "):
        write_midi(tmp_path / "x.mid", random_roll(), **{name: value})
    assert not list(tmp_path.iterdir())


def test_the_meter_is_what_the_file_says_first(tmp_path) -> None:
    path = tmp_path / "x.mid"
    file = pretty_midi.PrettyMIDI(initial_tempo=93.0)
    file.time_signature_changes.append(pretty_midi.TimeSignature(6, 8, 0.0))
    file.time_signature_changes.append(pretty_midi.TimeSignature(2, 2, 5.0))
    file.write(str(path))
    assert read_meter(path) == pytest.approx(Meter(3.0, 93.0), rel=1e-5)
    path.write_bytes(b"no events of this kind")
    assert read_meter(path) == Meter(4.0, 120.0)


def test_tokens_are_frames_of_their_pitches() -> None:
    roll = roll_of_tokens(["60", "?", "0.127"])
    assert np.argwhere(roll).tolist() == [[0, 60], [2, 0], [2, 127]]


@pytest.mark.parametrize("pitch", [40, 69, 84])
def test_a_string_sounds_at_its_pitch(pitch: int) -> None:
    sound = render(key_of(pitch), 4.0, 0)
    assert (sound.shape, sound.dtype) == ((2 * SAMPLE_RATE,), np.float32)
    expected = 440.0 * 2 ** ((pitch - 69) / 12)
    heard = librosa.yin(sound[2000:20000], fmin=60, fmax=2000, sr=SAMPLE_RATE, frame_length=4096)
    assert np.median(heard) == pytest.approx(expected, rel=0.01)


def test_silence_is_silent_and_music_is_not_clipped() -> None:
    silence = render(np.zeros((6, 88)), 3.0)
    assert silence.shape == (2 * SAMPLE_RATE,) and not silence.any()
    loud = render(np.ones((4, 88)), 2.0)
    assert np.abs(loud).max() == pytest.approx(PEAK) and np.isfinite(loud).all()
    assert render(np.zeros((0, 88))).shape == (0,)
    assert not render(key_of(127), 4.0, 0).any()  # above what the sample rate can hold


def test_a_note_sounds_while_it_is_on_and_fades_without_a_click() -> None:
    roll = np.zeros((6, 128), np.uint8)
    roll[2:4, 60] = 1
    level = np.abs(render(roll, 10.0, 0)).reshape(6, -1)
    assert level[[0, 1, 4, 5]].max() == 0 and level[2:4].max(axis=1).min() > 0.1
    assert level[3, -30:].max() < 0.1 * level[3, :500].max() and level[3, -1] == 0


def test_notes_struck_anew_are_heard_anew() -> None:
    held, struck = (render(key_of(69), 2.0, 0, restrike=again) for again in (False, True))
    late = slice(-SAMPLE_RATE // 2, None)
    assert np.abs(struck[late]).max() > 2 * np.abs(held[late]).max()


def test_a_note_longer_than_a_string_vibrates_ends_in_silence() -> None:
    sound = render(key_of(60, 12), 2.0, 0)
    assert not sound[5 * SAMPLE_RATE :].any() and sound[: 3 * SAMPLE_RATE].any()
