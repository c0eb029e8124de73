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

import contextlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PITCHES = 128
LONGEST_HOURS = 6  # a stray event days later is damage; rolls of it would eat the memory
_SUSTAIN, _PEDAL_DOWN = 64, 64


@dataclass
class Part:
    """What one instrument plays.

    Attributes:
        notes: (notes, 3) float64: start and end in seconds, and MIDI pitch.
        pedal: (events, 2) float64: time in seconds, and value, of the sustain pedal, in order.
        bends: (events, 2) float64: time in seconds, and bend in -8192..8191, in order.
        is_drum: whether the pitches are drums.
    """

    notes: np.ndarray
    pedal: np.ndarray
    bends: np.ndarray
    is_drum: bool


@dataclass
class Request:
    """A file to read and how."""

    path: str
    frame_rate: float
    lowest_pitch: int
    highest_pitch: int
    drums: bool


def by_symusic(request: Request) -> np.ndarray:
    """The roll (frames, keys) uint8 of a file; symusic is fast but may crash: call in a worker.

    A file in which symusic may have missed notes is read by pretty_midi if that can read it.
    """
    from symusic import Score

    score: Any = Score(request.path)
    seconds = _seconds(score)
    parts, complete = [], True
    for track in score.tracks:
        note, control, bend = track.notes.numpy(), track.controls.numpy(), track.pitch_bends.numpy()
        lasts = note["duration"] > 0
        pitch, start = note["pitch"][lasts], note["time"][lasts]
        end = start + note["duration"][lasts]
        if request.drums or not track.is_drum:
            complete &= not _may_lack_notes(pitch, start, end)
        pedal = control["number"] == _SUSTAIN
        parts.append(
            Part(
                np.stack([seconds(start), seconds(_first_ends(pitch, start, end)), pitch], axis=1),
                np.stack([seconds(control["time"]), control["value"]], axis=1)[pedal],
                np.stack([seconds(bend["time"]), bend["value"]], axis=1),
                track.is_drum,
            )
        )
    if not complete:
        with contextlib.suppress(Exception):  # whatever stops it, there is a roll to fall back on
            return by_pretty_midi(request)
    return roll(parts, request)


def _may_lack_notes(pitch: np.ndarray, start: np.ndarray, end: np.ndarray) -> bool:
    """Whether a note that never ends may have cost later ones.

    symusic gives the first end after it to such a note, the next end to the next note, and so on:
    every note to the end of the track lasts into the one that follows it on its key, and the last
    gets no end and is dropped. So it shows in the last two notes on a key.

    >>> times = np.array([0, 4]), np.array([5, 9])
    >>> _may_lack_notes(np.array([60, 60]), *times), _may_lack_notes(np.array([60, 61]), *times)
    (True, False)
    """
    order = np.lexsort((end, start, pitch))
    pitch, start, end = pitch[order], start[order], end[order]
    is_last = np.append(pitch[1:] != pitch[:-1], True)[1:]
    overlaps = (pitch[1:] == pitch[:-1]) & (end[:-1] > start[1:])
    doubled = end[:-1] == end[1:]  # two voices on one key, both of which end
    return bool((is_last & overlaps & ~doubled).any())


def _first_ends(pitch: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The end, in ticks, of each note: the first on its key after it starts.

    Where notes on one key overlap symusic ends the first that started; pretty_midi ends all.

    >>> _first_ends(np.array([60, 60, 61]), np.array([0, 1, 0]), np.array([3, 5, 9]))
    array([3, 3, 9])
    """
    key = pitch.astype(np.int64) << 32
    ends = np.sort(key + end)
    return ends[np.searchsorted(ends, key + start, side="right")] - key


def _seconds(score: Any) -> Any:
    """A function from ticks to seconds, to the last bit as pretty_midi works it out.

    To the last bit, because a note on the boundary of two frames falls into either by it.
    """
    starts, scales = [0], [60.0 / (120.0 * score.ticks_per_quarter)]
    for tempo in score.tempos:
        scale = 60.0 / ((6e7 / tempo.mspq) * score.ticks_per_quarter)
        if tempo.time == 0:
            starts, scales = [0], [scale]
        elif scale != scales[-1]:
            starts.append(tempo.time)
            scales.append(scale)
    times = [0.0]
    for n in range(1, len(starts)):
        times.append(times[-1] + scales[n - 1] * (starts[n] - starts[n - 1]))
    start, scale, time = np.array(starts), np.array(scales), np.array(times)

    def seconds(ticks: np.ndarray) -> np.ndarray:
        at = np.maximum(np.searchsorted(start, ticks, side="right") - 1, 0)
        return time[at] + scale[at] * (ticks - start[at])

    return seconds


def by_pretty_midi(request: Request) -> np.ndarray:
    """The same by pretty_midi: slower, and reads some files that symusic refuses."""
    import pretty_midi

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says what is odd about a file it reads all the same
        file = pretty_midi.PrettyMIDI(Path(request.path))

    parts = [
        Part(
            np.array([(n.start, n.end, n.pitch) for n in track.notes], float).reshape(-1, 3),
            np.array(
                [(c.time, c.value) for c in track.control_changes if c.number == _SUSTAIN], float
            ).reshape(-1, 2),
            np.array([(b.time, b.pitch) for b in track.pitch_bends], float).reshape(-1, 2),
            track.is_drum,
        )
        for track in file.instruments
    ]
    return roll(parts, request)


def roll(parts: list[Part], request: Request) -> np.ndarray:
    """The roll (frames, keys) uint8 of all parts, on the keys asked for."""
    notes = np.concatenate([np.zeros((0, 3)), *(part.notes for part in parts)])
    if (notes[:, 0] < 0).any() or (notes[:, 1] < notes[:, 0]).any():
        raise ValueError("has notes that end before they start: likely corrupt")
    end = notes[:, 1].max(initial=0.0)
    last = max([end, *(part.pedal[:, 0].max(initial=0.0) for part in parts)])
    if last > LONGEST_HOURS * 3600:
        raise ValueError(f"lasts {last / 3600:.0f} hours, over {LONGEST_HOURS}: likely corrupt")
    frames = int(last * request.frame_rate)
    sounding = np.zeros((PITCHES, frames), dtype=bool)
    for part in parts:
        if len(part.notes) and (request.drums or not part.is_drum):
            sounding |= _part_roll(part, frames, request.frame_rate)
    wanted = sounding[request.lowest_pitch : request.highest_pitch + 1]
    active = np.flatnonzero(wanted.any(axis=0))
    length = max(int(end * request.frame_rate), 1 + active.max(initial=-1))
    return np.ascontiguousarray(wanted[:, :length].T, dtype=np.uint8)


def _part_roll(part: Part, frames: int, rate: float) -> np.ndarray:
    start, end = (part.notes[:, :2] * rate).astype(int).T
    pitch = part.notes[:, 2].astype(int)
    edges = np.zeros((PITCHES, frames + 1), dtype=np.int32)
    np.add.at(edges, (pitch, start), 1)
    np.add.at(edges, (pitch, end), -1)
    sounding = edges.cumsum(axis=1)[:, :frames] > 0
    _sustain(sounding, part.pedal, rate)
    _bend(sounding, part.bends, rate)
    return sounding


def _sustain(sounding: np.ndarray, pedal: np.ndarray, rate: float) -> None:
    """Hold what sounds, in place, while the pedal is down; one never released holds nothing."""
    pressed = None
    for time, value in pedal:
        down, frame = value >= _PEDAL_DOWN, int(time * rate)
        if pressed is None and down:
            pressed = frame
        elif pressed is not None and not down:
            held = sounding[:, pressed:frame]
            np.logical_or.accumulate(held, axis=1, out=held)
            pressed = None


def _bend(sounding: np.ndarray, bends: np.ndarray, rate: float) -> None:
    """Move keys by pitch bends (a full bend is two semitones), in place."""
    bends = bends[np.argsort(bends[:, 0], kind="stable")]
    edges = np.append((bends[:, 0] * rate).astype(int), sounding.shape[1])
    for n, bend in enumerate(bends[:, 1]):
        if abs(bend) < 1 or edges[n] >= edges[n + 1]:
            continue
        whole, rest = divmod(abs(2.0 * bend / 8192.0), 1.0)
        block = sounding[:, edges[n] : edges[n + 1]]
        if bend < 0:
            block = block[::-1]
        moved = np.zeros_like(block)
        moved[int(whole) :] = block[: PITCHES - int(whole)]
        if rest:
            moved[1:] |= moved[:-1].copy()
        block[:] = moved
