"""MIDI files to piano-rolls and back."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy as np

from data_prep import store
from data_prep.harvest import Progress, read_one
from data_prep.midi_rolls import FASTEST, PITCHES, Drums, Request, check_rate
from data_prep.midi_sets import SECONDS_A_FILE, TASKS, Cut, make, pieces
from data_prep.splits import check_fractions, split_by

TICKS_A_SECOND = FASTEST  # a power of two: every tick is an exact time, at 120 quarters a minute

PathLike = str | os.PathLike[str]


def read_roll(
    path: PathLike,
    frame_rate: float = 4.0,
    lowest_pitch: int = 21,
    highest_pitch: int = 108,
    drums: Drums = "none",
) -> np.ndarray:
    """The piano-roll of a MIDI file: (frames, keys) uint8, from time 0 to the last note's end.

    The rule is that of pretty_midi's ``get_piano_roll(frame_rate) > 0``; see `midi_rolls`. The
    file is read in another process, which a malformed file may kill. Where nothing sounds there
    are no frames.

    Args:
        path: the file.
        frame_rate: frames a second.
        lowest_pitch: MIDI note of key 0.
        highest_pitch: MIDI note of the last key; notes beyond either are left out.
        drums: 'none' leaves them out, 'only' takes nothing else, 'all' takes all; the drums' note
            numbers are pitches then.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no reader can read it; says why.
    """
    request = Request(frame_rate, None, lowest_pitch, highest_pitch, drums)
    return read_one(path, TASKS, request, SECONDS_A_FILE, "MIDI")


def prepare_midi(
    paths: PathLike | Iterable[PathLike],
    output: PathLike,
    request: Request = Request(),  # noqa: B008  # it is frozen
    *,
    segment_seconds: float = 60.0,
    tails: Literal["keep", "drop"] = "keep",
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the piano-rolls of MIDI files to the data file `output`, split by piece.

    One piece are the files of a folder that differ in a number before the suffix (`Title.mid`,
    `Title.1.mid`), and files with the same roll. Files that cannot be read, or hold too few notes
    on the keys asked for, are skipped and named in the summary. A run that was stopped goes on
    where it was when called again.

    Args:
        paths: files, folders and archives, see `files.find`.
        output: HDF5 file to make.
        request: frames, keys and what sounds.
        segment_seconds: what pieces are cut into; 0 leaves them whole. With frames a beat, seconds
            at 120 beats a minute.
        tails: what is left after the last whole segment of a piece: 'keep' or 'drop'.
        fractions: of the pieces for train, valid and test.
        seed: of the split.
        progress: called with (done, total, skipped) after each file.

    Returns:
        The summary of `prepare --json`.

    Raises:
        ValueError: no MIDI file, or none that can be read; nothing is written.
    """
    check_fractions(fractions)

    def split(names: list[str], digests: list[bytes], segments: list[int]) -> list[list[str]]:
        its = split_by(pieces(names, digests), fractions, seed)
        return [[part] * count for part, count in zip(its, segments, strict=True)]

    cut = Cut(_segment_frames(segment_seconds, request), tails == "keep")
    named = {"name": "MIDI files", "split": "piece", "seed": seed}
    return make(paths, output, request, cut, split, named, progress)


def _segment_frames(seconds: float, request: Request) -> int:
    """Frames in a segment; 0 for whole pieces."""
    if seconds and seconds * request.frames_a_second < 1:
        raise ValueError(f"segment_seconds is {seconds}; give one frame or more, or 0 for no cuts")
    return round(seconds * request.frames_a_second)


def write_midi(
    path: PathLike,
    roll: np.ndarray,
    frame_rate: float = 4.0,
    lowest_pitch: int = 21,
    velocity: int = 80,
    program: int = 0,
) -> None:
    """Write a piano-roll as a MIDI file; `read_roll` at the same rate gives it back.

    A key that is on in consecutive frames becomes one note. A text event at the end keeps the
    length of a roll that ends in silence, for readers that heed it.

    Args:
        path: file to make; an older one is replaced.
        roll: (frames, keys), on where above zero.
        frame_rate: frames a second, up to 2048.
        lowest_pitch: MIDI note of key 0.
        velocity: of every note, 1 to 127.
        program: General MIDI instrument, 0 to 127.

    Raises:
        ValueError: something is out of range; says which.
    """
    import pretty_midi

    check_rate("frame_rate", frame_rate)
    roll = np.asarray(roll)
    if roll.ndim != 2 or lowest_pitch < 0 or lowest_pitch + roll.shape[1] > PITCHES:
        shape = f"{roll.shape} from pitch {lowest_pitch}"
        raise ValueError(f"roll is {shape}; need (frames, keys) within pitches 0 to 127")
    for name, value, low in (("velocity", velocity, 1), ("program", program, 0)):
        if not low <= value <= 127:
            raise ValueError(f"{name} is {value}; give {low} to 127")
    file = pretty_midi.PrettyMIDI(resolution=TICKS_A_SECOND // 2, initial_tempo=120.0)
    track = pretty_midi.Instrument(program)
    for pitch, start, end in _runs(roll > 0):
        times = (_first_tick(frame, frame_rate) for frame in (start, end))
        track.notes.append(pretty_midi.Note(velocity, lowest_pitch + pitch, *times))
    file.instruments.append(track)
    file.text_events.append(pretty_midi.Text("end", _first_tick(len(roll), frame_rate)))
    with store.replacing(path) as temporary:
        file.write(str(temporary))


def _runs(on: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """(key, start, end) of each run of frames in which a key is on, in order of start."""
    padded = np.zeros((len(on) + 2, on.shape[1]), dtype=np.int8)
    padded[1:-1] = on
    change = np.diff(padded, axis=0)
    keys, starts = np.nonzero(change.T == 1)
    _, ends = np.nonzero(change.T == -1)  # of each key in turn, as the starts are
    for n in np.lexsort((keys, starts)):
        yield int(keys[n]), int(starts[n]), int(ends[n])


def _first_tick(frame: int, frame_rate: float) -> float:
    """The time, in seconds, of the first tick in a frame: never a rounding before it.

    >>> _first_tick(3, 10.0) >= 0.3
    True
    """
    return float(np.ceil(frame * TICKS_A_SECOND / frame_rate)) / TICKS_A_SECOND
