"""`cgrnn prepare midi` against the plain loop over pretty_midi, in files a second."""

from __future__ import annotations

import tempfile
from pathlib import Path

import prepare
from harness import Row, apart, peaks

from data_prep.midi import prepare_midi


def rows(midi: str) -> list[Row]:
    count = len(prepare.midi_files(midi))
    ours, theirs = prepare.speed(midi)
    peak = apart("preparing:memory", midi=midi)
    against = "get_piano_roll of pretty_midi in a loop"
    return [Row("prepare MIDI files", count / ours, against, count / theirs, "files/s", peak)]


def memory(midi: str) -> float:
    """MB of the command's own process, without its workers'."""
    with tempfile.TemporaryDirectory() as place:
        return peaks([lambda: prepare_midi(midi, Path(place) / "x.h5")])[0]
