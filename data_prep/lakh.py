"""The Lakh MIDI set as the CGRNN paper prepares it, but split by song.

Four frames a second, segments of 240 frames, 128 keys, drums left out; 90, 5 and 5 % to train,
validate and test. `clean_midi`, as it is shipped, holds a song up to dozens of times (`Artist/
Title.mid`, `Title.1.mid`, …) under names that vary. The paper deals the segments out one by one,
so that most of what it tests on it has trained on, in another file or another minute of the song:
numbers of such a split say little. It can be had for comparison, and says what it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any, Literal

from data_prep.harvest import Progress
from data_prep.midi_rolls import Request
from data_prep.midi_sets import Cut, make, titles
from data_prep.splits import linked, same, sharing, split_by

FRACTIONS = (0.9, 0.05, 0.05)
SEGMENT_FRAMES = 240
LEAKING = "segment (leaking, as in the paper)"

PathLike = str | os.PathLike[str]


def prepare_lakh(
    paths: PathLike | Iterable[PathLike],
    output: PathLike,
    split: Literal["song", "segment"] = "song",
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the Lakh set, or any folder of `Artist/Title.mid`, to the data file `output`.

    Args:
        paths: the folder, or the archive as it was downloaded.
        output: HDF5 file to make.
        split: 'song', see `songs`; 'segment' deals out segments, whatever song they are of.
        seed: of the split.
        progress: called with (done, total, skipped) after each file.

    Returns:
        The summary of `prepare --json`.

    Raises:
        ValueError: no MIDI file, or none that can be read; nothing is written.
    """

    def by_song(names: list[str], digests: list[bytes], segments: list[int]) -> list[list[str]]:
        its = split_by(songs(names, digests), FRACTIONS, seed)
        return [[part] * count for part, count in zip(its, segments, strict=True)]

    def by_segment(names: list[str], digests: list[bytes], segments: list[int]) -> list[list[str]]:
        its = iter(split_by(range(sum(segments)), FRACTIONS, seed))
        return [[next(its) for _ in range(count)] for count in segments]

    request = Request(frame_rate=4.0, lowest_pitch=0, highest_pitch=127)
    how, assign = {"song": ("song", by_song), "segment": (LEAKING, by_segment)}[split]
    named = {"name": f"Lakh MIDI, split by {how}", "split": how, "seed": seed}
    return make(
        paths, output, request, Cut(SEGMENT_FRAMES, keep_tail=True), assign, named, progress
    )


def songs(names: list[str], digests: list[bytes]) -> list[str]:
    """For each file what names its song: a song has one whatever its files are called.

    Files are of one song whose artist and title are the same letters and digits, or the same
    words of the artist in another order; a number before the suffix is no part of the title. So
    are files of the same content.

    Args:
        names: as `…/Artist/Title.N.mid`.
        digests: of the content of each.

    >>> songs(["Elton John/Blue Eyes.mid", "JOHN, ELTON/Blue  Eyes.2.mid"], [b"a", b"b"])
    ['eltonjohn/blueeyes', 'eltonjohn/blueeyes']
    """
    labels = [_labels(name) for name in names]
    first = linked(len(names), sharing(labels) + same(digests))
    return [labels[n][0] for n in first]


def _labels(name: str) -> list[str]:
    """What files of the same song share at least one of."""
    *_, artist, _ = ("", "", *name.split("/"))
    spelled = "".join(_words(artist))
    any_order = " ".join(sorted(set(_words(artist)) - {"the"}))
    both = [title.rpartition("/")[2] for title in reversed(titles(name))]
    tight = ["".join(_words(title)) or title for title in both]
    return [f"{who}/{title}" for who in (spelled, any_order) for title in tight]


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.casefold())
