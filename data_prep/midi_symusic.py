"""MIDI files by symusic: a hundred times as fast as pretty_midi; what it takes to agree with it.

symusic may crash on a malformed file: call it in a worker. Values above 127, on which it gives
up unless told otherwise, are clamped, as mido does with ``clip=True``.

What is left of a difference are grace notes of no length: one that comes while a note on its key
lacks its end is dropped by pretty_midi and takes the next end here (13 of 450 pop files, 0.01 % of
all cells).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from data_prep import midi_events
from data_prep.midi_rolls import SUSTAIN, Events, Notes, Request, Song, roll

_END_OF_TRACK, _NO_TEXT = b"\xff\x2f\x00", b"\xff\x01\x00"
_LONGEST_WAIT = b"\xff\xff\xff\x7f"
_NEVER = (1 << 28) - 1  # the same in ticks: after all that is real
_COPIES = 16  # notes that may be left open on a key of a channel; 12 is the most in 450 pop files


def by_symusic(content: bytes, request: Request) -> np.ndarray:
    """The roll (frames, keys) uint8 of a file; what symusic refuses is read by `midi_events`.

    Raises:
        ValueError: no reader can read it.
    """
    try:
        song = read(content)
    except RuntimeError as refused:
        try:  # in this process: another takes longer to start than to read a hundred files
            song = midi_events.read(content)
        except ValueError:
            raise ValueError(str(refused)) from refused
    return roll(song, request)


def read(content: bytes) -> Song:
    """What a file plays.

    Raises:
        RuntimeError: or what else symusic raises; it cannot read the file.
    """
    from symusic import Score

    score: Any = Score.from_midi(content, sanitize_data=True)
    notes = _in_order(_notes(score))
    if len(pitches := _lacking(notes)):
        score = Score.from_midi(_with_ends(content, pitches), sanitize_data=True)
        notes = _in_order(_notes(score))
    notes = notes._replace(end=_first_ends(notes))
    pedal, bends = [], []
    for n, track in enumerate(score.tracks):
        if len(track.controls):
            control = track.controls.numpy()
            its = control["number"] == SUSTAIN
            pedal.append((n, control["time"][its], control["value"][its]))
        if len(track.pitch_bends):
            bend = track.pitch_bends.numpy()
            bends.append((n, bend["time"], bend["value"]))
    return Song(
        notes.where(notes.end < _NEVER),
        _events(pedal),
        _events(bends),
        np.array([track.is_drum for track in score.tracks], bool),
        [(tempo.time, tempo.mspq) for tempo in score.tempos],
        score.ticks_per_quarter,
    )


def _notes(score: Any) -> Notes:
    """The notes that last; each ends with the first end that no earlier note on its key took."""
    tracks = [track.notes.numpy() for track in score.tracks]
    part = np.repeat(np.arange(len(tracks)), [len(notes["time"]) for notes in tracks])
    pitch, start, lasts = (
        np.concatenate([np.zeros(0, np.int64), *(notes[name] for notes in tracks)])
        for name in ("pitch", "time", "duration")
    )
    return Notes(part, pitch, start, start + lasts).where(lasts > 0)


def _events(columns: list[tuple[int, np.ndarray, np.ndarray]]) -> Events:
    if not columns:
        return Events(*np.zeros((3, 0), np.int64))
    part = np.repeat([n for n, _, _ in columns], [len(tick) for _, tick, _ in columns])
    tick, value = (np.concatenate([c[n] for c in columns]).astype(np.int64) for n in (1, 2))
    return Events(part, tick, value)


def _key(notes: Notes) -> np.ndarray:
    return notes.part * 128 + notes.pitch


def _in_order(notes: Notes) -> Notes:
    """Key by key, by their starts."""
    return notes.where(np.argsort((_key(notes) << 32) + notes.start))


def _lacking(notes: Notes) -> np.ndarray:
    """The pitches on which a note that never ends may have cost later ones; notes in order.

    symusic gives the first end after it to such a note, the next end to the next note, and so on:
    every note to the end of the track lasts into the one that follows it on its key, and the last
    gets no end and is dropped. So it shows in the last two notes on a key.

    >>> two = np.array([0, 4]), np.array([5, 9])
    >>> [_lacking(Notes(np.array([0, 0]), np.array([60, p]), *two)).tolist() for p in (60, 61)]
    [[60], []]
    """
    key, start, end = _key(notes), notes.start, notes.end
    follows = key[1:] == key[:-1]
    is_last = np.append(~follows, True)[1:]
    doubled = end[:-1] == end[1:]  # two voices on one key, both of which end
    return np.unique(key[1:][follows & is_last & ~doubled & (end[:-1] > start[1:])] % 128)


def _with_ends(content: bytes, pitches: np.ndarray) -> bytes:
    """The file with ends for those pitches after the end of each track, so that none is dropped."""
    off = b"".join(bytes((0, pitch, 0)) for pitch in pitches.tolist()) * _COPIES
    at = 8 + int.from_bytes(content[4:8], "big")
    pieces = [content[:at]]
    while at + 8 <= len(content):
        kind, size = content[at : at + 4], int.from_bytes(content[at + 4 : at + 8], "big")
        body = content[at + 8 : at + 8 + size]
        if kind == b"MTrk":
            on = [status for status in range(0x90, 0xA0) if status in body]  # at least those played
            ends = b"\x00".join(bytes((status,)) + off[1:] for status in on)
            its_end = body.endswith(_END_OF_TRACK)  # and the time before it is the text's
            body = (body[: -len(_END_OF_TRACK)] if its_end else body + b"\x00") + _NO_TEXT
            body += (_LONGEST_WAIT + ends if on else b"") + b"\x00" + _END_OF_TRACK
        pieces += [kind, len(body).to_bytes(4, "big"), body]
        at += 8 + size
    return b"".join(pieces)


def _first_ends(notes: Notes) -> np.ndarray:
    """The end, in ticks, of each note: the first on its key after it starts; notes in order.

    Where notes on one key overlap symusic ends the first that started; pretty_midi ends all.

    >>> times = np.array([0, 1, 0]), np.array([3, 5, 9])
    >>> _first_ends(Notes(np.zeros(3, int), np.array([60, 60, 61]), *times))
    array([3, 3, 9])
    """
    line = _key(notes) << 32
    start, end = line + notes.start, line + notes.end
    reach = np.maximum.accumulate(end)
    overlaps = np.zeros(len(end), bool)
    overlaps[1:] = start[1:] < reach[:-1]
    overlaps[:-1] |= start[:-1] == start[1:]  # whichever comes first of those that tie
    ends = np.sort(end)
    end[overlaps] = ends[np.searchsorted(ends, start[overlaps], side="right")]
    return end - line
