"""A reader of MIDI files that takes what there is: for files that symusic refuses.

It stops a track where it makes no sense, keeps what came before, and looks for the next one.
pretty_midi, the natural second reader, rescues nothing: of 450 pop files symusic refuses one, whose
first track gives a false length, and pretty_midi twelve, that one among them. It also takes 25 ms
for a file that this reads in 6 and symusic in 0.1.

What plays is as pretty_midi has it: an end ends all notes on its key that began before it; notes
belong to the program in force when they end; a pedal or a bend before the first note of a channel
belongs to all its programs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from data_prep.midi_rolls import SUSTAIN, Events, Notes, Request, Song, roll

_DRUM_CHANNEL = 9
_META, _TEMPO, _END_OF_TRACK = 0xFF, 0x51, 0x2F
_OFF, _ON, _CONTROL, _PROGRAM, _BEND = 0x80, 0x90, 0xB0, 0xC0, 0xE0
_SYSTEM = {0xF1: 1, 0xF2: 2, 0xF3: 1}  # bytes after a system message; others have none
_ONE_BYTE = (0xC0, 0xD0)  # program and pressure of a channel; others have two

Message = tuple[int, int, int, int]  # tick, status, and two values


def by_events(content: bytes, request: Request) -> np.ndarray:
    """The roll (frames, keys) uint8 of a file."""
    return roll(read(content), request)


def read(content: bytes) -> Song:
    """What a file plays, as far as it can be read.

    Raises:
        ValueError: it is no MIDI file.
    """
    at = content.find(b"MThd")
    if at < 0 or len(content) < at + 14:
        raise ValueError("has no MIDI header")
    quarter = int.from_bytes(content[at + 12 : at + 14], "big", signed=True)
    tempi: list[tuple[int, int]] = []
    parts: list[_Part] = []
    while (at := content.find(b"MTrk", at)) >= 0:
        size = int.from_bytes(content[at + 4 : at + 8], "big")
        track = _Track(content, at + 8, min(at + 8 + size, len(content)))
        parts += _parts(track)
        tempi += track.tempi
        at = track.at
    notes = [(n, *note) for n, part in enumerate(parts) for note in part.notes]
    pedal = [(n, *event) for n, part in enumerate(parts) for event in part.pedal]
    bends = [(n, *event) for n, part in enumerate(parts) for event in part.bends]
    return Song(
        Notes(*np.array(notes, np.int64).reshape(-1, 4).T),
        Events(*np.array(pedal, np.int64).reshape(-1, 3).T),
        Events(*np.array(bends, np.int64).reshape(-1, 3).T),
        np.array([part.channel == _DRUM_CHANNEL for part in parts], bool),
        sorted(tempi, key=lambda tempo: tempo[0]),
        quarter,
    )


class _Track:
    """A track: iterate for its channel messages; `tempi` and `at`, where it stopped, fill up."""

    def __init__(self, content: bytes, at: int, end: int) -> None:
        self.content, self.at, self.end = content, at, end
        self.tempi: list[tuple[int, int]] = []

    def __iter__(self) -> Iterator[Message]:
        """Messages until the end, or to where it is damaged."""
        tick, status = 0, 0
        try:
            while self.at < self.end:
                tick += self._number()
                first = self._byte()
                if first >= 0xF0:
                    if self._system(first, tick) == _END_OF_TRACK:
                        return
                    continue
                if first >= 0x80:
                    status, first = first, self._byte()
                elif not status:
                    return  # a value of nothing
                second = 0 if status & 0xF0 in _ONE_BYTE else self._byte()
                yield tick, status, min(first, 127), min(second, 127)
        except IndexError:  # ends in the middle of a message
            return

    def _byte(self) -> int:
        if self.at >= self.end:
            raise IndexError
        self.at += 1
        return self.content[self.at - 1]

    def _number(self) -> int:
        """A number of up to four bytes, seven bits each."""
        value = 0
        for _ in range(4):
            byte = self._byte()
            value = value << 7 | byte & 0x7F
            if byte < 0x80:
                break
        return value

    def _system(self, status: int, tick: int) -> int:
        """Pass over what is no channel message; the kind of a meta event, else -1."""
        if status not in (_META, 0xF0, 0xF7):
            self.at += _SYSTEM.get(status, 0)
            return -1
        kind = self._byte() if status == _META else -1
        size = self._number()
        value = self.content[self.at : self.at + size]
        if self.at + size > self.end:
            raise IndexError
        self.at += size
        if kind == _TEMPO and size == 3:
            self.tempi.append((tick, int.from_bytes(value, "big")))
        return kind


class _Part(NamedTuple):
    """One program on one channel of a track: (pitch, start, end) and (tick, value)."""

    channel: int
    notes: list[tuple[int, int, int]]
    pedal: list[tuple[int, int]]
    bends: list[tuple[int, int]]


def _parts(track: _Track) -> list[_Part]:
    programs = [0] * 16
    sounding: dict[tuple[int, int], list[int]] = {}
    made: dict[tuple[int, int], _Part] = {}
    early: dict[int, _Part] = {}

    def part(channel: int, has_notes: bool) -> _Part:
        key = channel, programs[channel]
        if key not in made:
            if not has_notes:
                return early.setdefault(channel, _Part(channel, [], [], []))
            before = early.get(channel, _Part(channel, [], [], []))
            made[key] = before._replace(notes=[])
        return made[key]

    for tick, status, first, second in track:
        kind, channel = status & 0xF0, status & 0x0F
        if kind == _ON and second:
            sounding.setdefault((channel, first), []).append(tick)
        elif kind in (_ON, _OFF):
            starts = sounding.pop((channel, first), [])
            ended = [(first, start, tick) for start in starts if start != tick]
            if ended:
                part(channel, has_notes=True).notes.extend(ended)
                if len(ended) < len(starts):  # one begins as the others end
                    sounding[channel, first] = [tick] * (len(starts) - len(ended))
        elif kind == _CONTROL and first == SUSTAIN:
            part(channel, has_notes=False).pedal.append((tick, second))
        elif kind == _PROGRAM:
            programs[channel] = first
        elif kind == _BEND:
            part(channel, has_notes=False).bends.append((tick, (second << 7 | first) - 8192))
    return list(made.values())
