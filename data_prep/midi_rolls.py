"""From the events of a MIDI file to a piano-roll, by the rule of pretty_midi.

The rule is `pretty_midi.PrettyMIDI(path).get_piano_roll(frame_rate) > 0`. For each instrument, a
note sounds from frame floor(start · rate) up to, not including, floor(end · rate): a note that
starts and ends in one frame is not seen. While its sustain pedal (controller 64) is at 64 or more,
what sounded goes on to the pedal's release. A pitch bend of whole semitones moves the keys, the
rest of a bend lights the next key too. The instruments are then laid over one another.

Departures: the roll ends with the last note (drums included) or the last frame that sounds,
whichever is later, not with the last controller; and as symusic reads it, a tempo counts in any
track, not in the first alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from data_prep.midi_keys import to_c

PITCHES = 128
LONGEST_HOURS = 6  # a stray event days later is damage; rolls of it would eat the memory
FASTEST = 2048  # frames a second, or a beat
MOST_CELLS = 1 << 25  # that sound: hundreds of times a song's, and a gigabyte while it is worked on
SUSTAIN = 64  # the controller
_PEDAL_DOWN = 64

Drums = Literal["none", "only", "all"]
Pedal = Literal["follow", "ignore"]
Transpose = Literal["none", "c"]


@dataclass(frozen=True)
class Request:
    """How to make rolls of songs.

    Attributes:
        frame_rate: frames a second.
        frames_per_beat: frames a quarter note, whatever the tempo; in place of `frame_rate`.
        lowest_pitch: MIDI note of key 0.
        highest_pitch: MIDI note of the last key; notes beyond either are left out.
        drums: 'none' leaves them out, 'only' takes nothing else (note numbers are keys then).
        pedal: whether the sustain pedal holds notes.
        transpose: 'c' moves the song to C major or A minor, drums aside; see `midi_keys`.
        minimum_notes: songs with fewer on the keys asked for give a roll without frames.

    Raises:
        ValueError: something is out of range; says which.
    """

    frame_rate: float = 4.0
    frames_per_beat: float | None = None
    lowest_pitch: int = 21
    highest_pitch: int = 108
    drums: Drums = "none"
    pedal: Pedal = "follow"
    transpose: Transpose = "none"
    minimum_notes: int = 1

    def __post_init__(self) -> None:
        check_rate("frame_rate", self.frame_rate)
        check_rate("frames_per_beat", self.frames_per_beat or 1)
        low, high = self.lowest_pitch, self.highest_pitch
        if not 0 <= low <= high < PITCHES:
            raise ValueError(f"pitches {low} to {high}: need 0 <= low <= high <= 127")

    @property
    def frames_a_second(self) -> float:
        """Of frames in beats, at 120 beats a minute."""
        return self.frames_per_beat * 2.0 if self.frames_per_beat else self.frame_rate

    @property
    def frame_unit(self) -> str:
        """What the frames divide."""
        return f"beat/{self.frames_per_beat:g}" if self.frames_per_beat else "second"


def check_rate(name: str, rate: float) -> None:
    """Raise ValueError unless rolls can have so many frames a second."""
    if not 0 < rate <= FASTEST:
        raise ValueError(f"{name} is {rate}; give above 0, to {FASTEST}")


class Notes(NamedTuple):
    """Columns of integers: instrument, MIDI pitch, and first and last tick of each note."""

    part: np.ndarray
    pitch: np.ndarray
    start: np.ndarray
    end: np.ndarray

    def where(self, wanted: np.ndarray) -> Notes:
        """Those notes alone."""
        return Notes(*(column[wanted] for column in self))


class Events(NamedTuple):
    """Columns of integers: instrument, tick and value of each event, in order for each part."""

    part: np.ndarray
    tick: np.ndarray
    value: np.ndarray


@dataclass
class Song:
    """What a MIDI file plays.

    Attributes:
        notes: of all instruments.
        pedal: values of the sustain pedal, 0 to 127.
        bends: pitch bends, -8192 to 8191.
        is_drum: (instruments,) whether the pitches are drums.
        tempi: (tick, microseconds a quarter note) of each change, in order.
        ticks_per_quarter: ticks a quarter note.
    """

    notes: Notes
    pedal: Events
    bends: Events
    is_drum: np.ndarray
    tempi: list[tuple[int, int]]
    ticks_per_quarter: int


def roll(song: Song, request: Request) -> np.ndarray:
    """The roll (frames, keys) uint8 of a song; without frames where it has too few notes.

    Raises:
        ValueError: the song cannot be as it says.
    """
    _check(song)
    frame_of = _grid(song, request)
    notes = song.notes.where(_wanted(song, request))
    if request.transpose == "c":
        notes = _transposed(notes, song.is_drum)
    low, high = request.lowest_pitch, request.highest_pitch
    start, end = frame_of(notes.start), frame_of(notes.end)
    seen = end > start
    part, pitch, start, end = notes.part[seen], notes.pitch[seen], start[seen], end[seen]
    enough = np.count_nonzero((pitch >= low) & (pitch <= high)) >= request.minimum_notes
    pedal, bends = song.pedal, song.bends
    if request.pedal == "follow" and len(pedal.tick):
        end = _sustained(part, end, pedal.part, frame_of(pedal.tick), pedal.value)
    part, pitch, frame = _cells(part, pitch, start, end)
    if len(bends.tick):
        pitch, frame = _bent(part, pitch, frame, bends, frame_of(bends.tick))
    wanted = (pitch >= low) & (pitch <= high)
    pitch, frame = pitch[wanted], frame[wanted]
    if not enough or not len(frame):
        return np.zeros((0, high - low + 1), np.uint8)
    length = max(int(frame_of(song.notes.end.max())), 1 + int(frame.max()))
    result = np.zeros((length, high - low + 1), np.uint8)
    result[frame, pitch - low] = 1
    return result


def _check(song: Song) -> None:
    if song.ticks_per_quarter <= 0:
        raise ValueError(f"has {song.ticks_per_quarter} ticks a quarter note: likely corrupt")
    if (song.notes.start < 0).any() or (song.notes.end < song.notes.start).any():
        raise ValueError("has notes that end before they start: likely corrupt")
    last = max(song.notes.end.max(initial=0), song.pedal.tick.max(initial=0))
    hours = seconds(song)(last) / 3600
    if hours > LONGEST_HOURS:
        raise ValueError(f"lasts {hours:.0f} hours, over {LONGEST_HOURS}: likely corrupt")


def seconds(song: Song) -> Callable[[Any], Any]:
    """A function from ticks to seconds, to the last bit as pretty_midi works it out.

    To the last bit, because a note on the boundary of two frames falls into either by it.
    """
    quarter = song.ticks_per_quarter
    starts, scales = [0], [60.0 / (120.0 * quarter)]
    for tick, microseconds in song.tempi:
        scale = 60.0 / ((6e7 / max(1, microseconds)) * quarter)
        if tick == 0:
            starts, scales = [0], [scale]
        elif scale != scales[-1]:
            starts.append(tick)
            scales.append(scale)
    times = [0.0]
    for n in range(1, len(starts)):
        times.append(times[-1] + scales[n - 1] * (starts[n] - starts[n - 1]))
    start, scale_of, time = np.array(starts), np.array(scales), np.array(times)

    def function(ticks: Any) -> Any:
        at = np.maximum(np.searchsorted(start, ticks, side="right") - 1, 0)
        return time[at] + scale_of[at] * (ticks - start[at])

    return function


def _grid(song: Song, request: Request) -> Callable[[np.ndarray], np.ndarray]:
    """A function from ticks to frames."""
    if request.frames_per_beat:
        per_beat, quarter = request.frames_per_beat, song.ticks_per_quarter
        return lambda ticks: (ticks * per_beat / quarter).astype(np.int64)
    time_of = seconds(song)
    return lambda ticks: (time_of(ticks) * request.frame_rate).astype(np.int64)


def _wanted(song: Song, request: Request) -> np.ndarray:
    drum = song.is_drum[song.notes.part]
    return {"none": ~drum, "only": drum, "all": np.ones_like(drum)}[request.drums]


def _transposed(notes: Notes, is_drum: np.ndarray) -> Notes:
    tuned = ~is_drum[notes.part]
    lasts = (notes.end - notes.start)[tuned]
    pitch = notes.pitch + np.where(tuned, to_c(notes.pitch[tuned], lasts), 0)
    notes = notes._replace(pitch=pitch)
    return notes.where((pitch >= 0) & (pitch < PITCHES))


def _sustained(
    part: np.ndarray, end: np.ndarray, its: np.ndarray, frame: np.ndarray, value: np.ndarray
) -> np.ndarray:
    """The end of each note with its part's pedal; a pedal never released holds nothing.

    >>> pedal = np.zeros(3, int), np.array([2, 6, 8]), np.array([127, 0, 127])
    >>> _sustained(np.zeros(4, int), np.array([2, 3, 6, 9]), *pedal)
    array([2, 6, 6, 9])
    """
    down = value >= _PEDAL_DOWN
    same_part = its[1:] == its[:-1]
    was_down = np.append(False, down[:-1] & same_part)
    pressed, released = np.flatnonzero(down & ~was_down), np.flatnonzero(~down & was_down)
    # The release of a press is the first after it, if in its part.
    following = np.append(released, len(its))[np.searchsorted(released, pressed)]
    ends = np.append(its, -1)[following] == its[pressed]
    pressed, following = pressed[ends], following[ends]
    if not len(pressed):
        return end
    span = 1 + int(max(frame.max(initial=0), end.max(initial=0)))
    last = part * span + end - 1  # the last frame that sounds, of all parts on one line
    at = np.searchsorted(its[pressed] * span + frame[pressed], last, side="right") - 1
    until = (its[following] * span + frame[following])[at]
    return np.where((at >= 0) & (last < until), until - part * span, end)


def _cells(
    part: np.ndarray, pitch: np.ndarray, start: np.ndarray, end: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Part, pitch and frame of all that sounds, each cell once whatever notes overlap.

    >>> zero = np.zeros(2, int)
    >>> [column.tolist() for column in _cells(zero, zero + 60, np.array([0, 1]), np.array([2, 3]))]
    [[0, 0, 0], [60, 60, 60], [0, 1, 2]]
    """
    span = 1 + int(end.max(initial=0))
    line = (part * PITCHES + pitch) * span
    order = np.argsort(line + start)
    start, reach = (line + start)[order], np.maximum.accumulate((line + end)[order])
    first = np.append(True, start[1:] > reach[:-1])[: len(start)]
    last = np.append(first[1:], True)[: len(start)]
    start, size = start[first], reach[last] - start[first]
    if size.sum() > MOST_CELLS:
        raise ValueError("sounds on and on: likely corrupt; or give fewer frames a second")
    offset = np.cumsum(size) - size
    cells = np.repeat(start - offset, size) + np.arange(size.sum())
    line, frame = np.divmod(cells, span)
    return *np.divmod(line, PITCHES), frame


def _bent(
    part: np.ndarray, pitch: np.ndarray, frame: np.ndarray, bends: Events, edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pitch and frame of the cells after the bends (a full bend is two semitones).

    The last bend of a frame counts for it and those to the next bend.
    """
    span = 1 + int(max(edges.max(), frame.max(initial=0)))
    at = np.searchsorted(bends.part * span + edges, part * span + frame, side="right") - 1
    bend = np.where((at >= 0) & (bends.part[at] == part), bends.value[at], 0)
    whole, rest = np.divmod(np.abs(2.0 * bend / 8192.0), 1.0)
    sign = np.sign(bend)
    pitch = pitch + sign * whole.astype(np.int64)
    there = (pitch >= 0) & (pitch < PITCHES)
    beyond = there & (rest > 0)
    moved = np.concatenate([pitch[there], (pitch + sign)[beyond]])
    return moved, np.concatenate([frame[there], frame[beyond]])
