"""Data sets of piano-rolls from any number of MIDI files, in constant memory."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_prep import files, store
from data_prep.harvest import Harvest, Progress, harvest
from data_prep.midi_rolls import Request
from data_prep.splits import linked, same, sharing
from data_prep.summary import summary

SUFFIXES = (".mid", ".midi")
SECONDS_A_FILE = 30.0
TASKS = ("data_prep.midi_symusic:by_symusic", "data_prep.midi_events:by_events")

PathLike = str | os.PathLike[str]
# From the names of the files, the digests of their rolls and the number of segments in each: the
# split of each segment.
Assign = Callable[[list[str], list[bytes], list[int]], list[list[str]]]


@dataclass(frozen=True)
class Cut:
    """How rolls are cut.

    Attributes:
        frames: in a segment; 0 leaves rolls whole.
        keep_tail: whether what is left after the last whole segment is one too.

    >>> Cut(4, keep_tail=True).segments(9), Cut(4, keep_tail=False).segments(9)
    (3, 2)
    """

    frames: int
    keep_tail: bool

    def segments(self, length: int) -> int:
        """How many a roll of so many frames gives."""
        if not self.frames:
            return min(1, length)
        return -(-length // self.frames) if self.keep_tail else length // self.frames

    def __call__(self, roll: np.ndarray) -> list[np.ndarray]:
        size = self.frames or len(roll)
        return [roll[n * size : (n + 1) * size] for n in range(self.segments(len(roll)))]


def titles(name: str) -> tuple[str, str]:
    """The names of the piece that a file may be of: without its suffix, and without the number
    that tells takes of a piece apart. `Waltz Nr.7.mid` may be a take of another, or have some.

    >>> titles("Artist/Title.2.mid")
    ('Artist/Title.2', 'Artist/Title')
    """
    bare = re.sub(r"\.[^./]*$", "", name)
    return bare, re.sub(r"\.\d+$", "", bare)


def pieces(names: Sequence[str], digests: Sequence[bytes]) -> list[str]:
    """For each file what names its piece: what a split is made by.

    Args:
        names: of files; those of a piece share one of their `titles`.
        digests: of what they hold; equal ones are of a piece too.

    >>> pieces(["A/Title.mid", "A/Title.2.mid", "B/Other.mid"], [b"1", b"2", b"3"])
    ['A/Title', 'A/Title', 'B/Other']
    """
    both = [titles(name) for name in names]
    first = linked(len(names), sharing(both) + same(digests))
    return [both[n][1] for n in first]


def make(
    paths: PathLike | Iterable[PathLike],
    output: PathLike,
    request: Request,
    cut: Cut,
    assign: Assign,
    attributes: dict[str, Any],
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the rolls of all MIDI files to `output`.

    Args:
        paths: files, folders and archives.
        output: HDF5 file to make.
        request: of each roll.
        cut: of each roll into sequences.
        assign: the split.
        attributes: of the data set, besides those that the request gives.
        progress: called with (done, total, skipped) after each file.

    Returns:
        The summary of `prepare --json`.

    Raises:
        ValueError: no MIDI file, or none that can be used; nothing is written.
    """
    store.check_output(output)
    found = files.find(paths, SUFFIXES, "MIDI")
    with harvest(output, TASKS, found, request, SECONDS_A_FILE, progress) as read:
        segments = {n: cut.segments(read.lengths[n]) for n in read.taken}
        used = [n for n in read.taken if segments[n]]
        left_out = [
            (found[n].name, _reason(read.lengths[n], request, cut))
            for n in read.taken
            if not segments[n]
        ]
        skipped = sorted(read.skipped + left_out)
        if not used:
            name, reason = skipped[0]
            raise ValueError(f"{name}: {reason}; none of {len(found)} files could be used")
        names = [found[n].name for n in used]
        splits = assign(names, [read.digests[n] for n in used], [segments[n] for n in used])
        homes = dict(zip(used, splits, strict=True))
        dataset = store.write(
            output,
            {split: _sequences(read, homes, cut, split) for split in store.SPLITS},
            kind="binary",
            frame_unit=request.frame_unit,
            frame_rate=float(request.frames_a_second),
            lowest_pitch=request.lowest_pitch,
            drums=request.drums,
            pedal=request.pedal,
            transpose=request.transpose,
            **attributes,
        )
    return summary(dataset, output, found=len(found), read=len(used), skipped=skipped)


def _reason(length: int, request: Request, cut: Cut) -> str:
    """Why a file that could be read is left out."""
    if length:
        return f"its {length} frames are less than a segment of {cut.frames}"
    keys = f"of pitch {request.lowest_pitch} to {request.highest_pitch}"
    kinds = {"none": ", drums aside", "only": " of drums", "all": ""}[request.drums]
    least = request.minimum_notes
    few = "no note" if least == 1 else f"fewer than {least} notes"
    return f"{few} {keys} that lasts to the next frame{kinds}"


def _sequences(
    read: Harvest, homes: dict[int, list[str]], cut: Cut, split: str
) -> Iterator[tuple[str, np.ndarray]]:
    """The segments of a split, read as they are asked for."""
    for n, its in homes.items():
        if split in its:
            for segment, home in zip(cut(read.array(n)), its, strict=True):
                if home == split:
                    yield read.files[n].name, segment
