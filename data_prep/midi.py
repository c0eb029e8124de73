"""MIDI files to piano-rolls and back."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from data_prep import store
from data_prep.harvest import Progress, read_one
from data_prep.midi_rolls import FASTEST, PITCHES, Drums, Request, check_rate
from data_prep.midi_sets import SECONDS_A_FILE, TASKS, Cut, make, pieces
from data_prep.playing import notes_of, voices_of
from data_prep.splits import check_fractions, split_by

TICKS_A_SECOND = FASTEST  # a power of two: every tick is an exact time, at 120 quarters a minute
TEMPI = 4, 1000  # quarter notes a minute that a MIDI file can say, and that are music
MOST_VOICES = 15  # channels, drums aside

PathLike = str | os.PathLike[str]


def read_roll(
    path: PathLike,
    frame_rate: float = 4.0,
    lowest_pitch: int = 21,
    highest_pitch: int = 108,
    drums: Drums = "none",
    frames_per_beat: float | None = None,
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
        frames_per_beat: frames a quarter note, whatever the tempo; in place of `frame_rate`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no reader can read it; says why.
    """
    request = Request(frame_rate, frames_per_beat, lowest_pitch, highest_pitch, drums)
    return read_one(path, TASKS, request, SECONDS_A_FILE, "MIDI")


class Meter(NamedTuple):
    """How long the bars of a piece are.

    Attributes:
        quarters: quarter notes in a bar.
        tempo: quarter notes a minute.
    """

    quarters: float
    tempo: float


def read_meter(path: PathLike) -> Meter:
    """The first time signature and the first tempo that a MIDI file names; else 4/4, at 120.

    It looks for the bytes of the two events, which nothing else in a file should look like, and
    so needs no more of a damaged file than they.

    Raises:
        OSError: the file cannot be read.
    """
    content = Path(path).read_bytes()
    signature = re.search(rb"\xff\x58\x04(.)(.)", content, re.DOTALL)
    tempo = re.search(rb"\xff\x51\x03(...)", content, re.DOTALL)
    above, below = (signature[1][0], signature[2][0]) if signature else (4, 2)
    quarters = 4.0 * above / 2**below
    microseconds = int.from_bytes(tempo[1], "big") if tempo else 500_000
    return Meter(quarters or 4.0, 6e7 / (microseconds or 500_000))


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
    *,
    tempo: float = 120.0,
    restrike: bool = False,
    voices: int = 1,
) -> None:
    """Write a piano-roll as a MIDI file; `read_roll` at the same rate gives it back.

    A text event at the end keeps the length of a roll that ends in silence, for readers that heed
    it.

    Args:
        path: file to make; an older one is replaced.
        roll: (frames, keys), on where above zero.
        frame_rate: frames a second at 120 quarter notes a minute, up to 2048.
        lowest_pitch: MIDI note of key 0.
        velocity: of every note, 1 to 127.
        program: General MIDI instrument, 0 to 127.
        tempo: quarter notes a minute, 4 to 1000. A quarter note keeps its frames.
        restrike: strike a key anew in every frame, where else consecutive frames are one note.
        voices: tracks that the roll is split into, 1 to 15, see `playing.voices_of`.

    Raises:
        ValueError: something is out of range; says which.
    """
    import pretty_midi

    check_rate("frame_rate", frame_rate)
    roll = np.asarray(roll)
    if roll.ndim != 2 or lowest_pitch < 0 or lowest_pitch + roll.shape[1] > PITCHES:
        shape = f"{roll.shape} from pitch {lowest_pitch}"
        raise ValueError(f"roll is {shape}; need (frames, keys) within pitches 0 to 127")
    for name, value, low, high in (
        ("velocity", velocity, 1, 127),
        ("program", program, 0, 127),
        ("tempo", tempo, *TEMPI),
        ("voices", voices, 1, MOST_VOICES),
    ):
        if not low <= value <= high:
            raise ValueError(f"{name} is {value}; give {low} to {high}")

    def seconds(frame: int) -> float:
        return _first_tick(frame, frame_rate) * (120.0 / tempo)

    file = pretty_midi.PrettyMIDI(resolution=TICKS_A_SECOND // 2, initial_tempo=tempo)
    for number, voice in enumerate(voices_of(roll, voices), start=1):
        track = pretty_midi.Instrument(program, name=f"voice {number}" if voices > 1 else "")
        for key, start, end in notes_of(voice, restrike).tolist():
            note = pretty_midi.Note(velocity, lowest_pitch + key, seconds(start), seconds(end))
            track.notes.append(note)
        file.instruments.append(track)
    file.text_events.append(pretty_midi.Text("end", seconds(len(roll))))
    with store.replacing(path) as temporary:
        file.write(str(temporary))


def _first_tick(frame: int, frame_rate: float) -> float:
    """The time, in seconds, of the first tick in a frame: never a rounding before it.

    >>> _first_tick(3, 10.0) >= 0.3
    True
    """
    return float(np.ceil(frame * TICKS_A_SECOND / frame_rate)) / TICKS_A_SECOND
