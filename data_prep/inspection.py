"""What a data set holds: counts, notes, levels, and what it holds twice; and how it sounds."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from data_prep import notes, store

SILENCE = 1e-3  # of full scale: 60 dB below it

PathLike = str | os.PathLike[str]


def digest(frames: np.ndarray) -> bytes:
    """What tells sequences of one kind and width apart: equal for equal content."""
    return hashlib.blake2b(np.ascontiguousarray(frames).data, digest_size=16).digest()


class _Tally(Protocol):
    def add(self, frames: np.ndarray) -> None: ...

    def result(self) -> dict[str, Any]: ...


class _Rolls:
    """Of piano-rolls: notes a frame, silence, and how often each key is on."""

    def __init__(self, attributes: Mapping[str, Any]) -> None:
        self.lowest, self.frames, self.silent = int(attributes.get("lowest_pitch", 0)), 0, 0
        self.keys: Any = 0

    def add(self, frames: np.ndarray) -> None:
        self.frames += len(frames)
        self.silent += int((~frames.any(axis=1)).sum())
        self.keys = self.keys + frames.sum(axis=0, dtype=np.int64)

    def result(self) -> dict[str, Any]:
        used = np.flatnonzero(self.keys)
        return {
            "notes_per_frame": float(self.keys.sum() / self.frames),
            "silent_frames": self.silent / self.frames,
            "range": [int(self.lowest + key) for key in used[[0, -1]]] if len(used) else None,
            "pitches": {str(self.lowest + key): int(self.keys[key]) for key in used},
        }


class _Levels:
    """Of continuous frames: root mean square, peak, silence."""

    def __init__(self, attributes: Mapping[str, Any]) -> None:
        self.frames = self.silent = self.values = 0
        self.squares = self.peak = 0.0

    def add(self, frames: np.ndarray) -> None:
        size = np.abs(frames)
        self.frames += len(frames)
        self.values += frames.size
        self.silent += int((size.max(axis=1) < SILENCE).sum())
        self.squares += float(np.square(size, dtype=np.float64).sum())
        self.peak = max(self.peak, float(size.max()))

    def result(self) -> dict[str, Any]:
        rms = float(np.sqrt(self.squares / self.values))
        return {"rms": rms, "peak": self.peak, "silent_frames": self.silent / self.frames}


class _Tokens:
    """Of notes and chords as classes: how many the training split knows."""

    def __init__(self, attributes: Mapping[str, Any]) -> None:
        self.frames = self.unknown = 0

    def add(self, frames: np.ndarray) -> None:
        self.frames += len(frames)
        self.unknown += int((frames == notes.UNKNOWN).sum())

    def result(self) -> dict[str, Any]:
        return {"unknown": self.unknown / self.frames}


_TALLIES: dict[str, type[Any]] = {"binary": _Rolls, "continuous": _Levels, "notes": _Tokens}


def info(path: PathLike) -> dict[str, Any]:
    """All there is to say of a data set, as plain values for JSON; see `cgrnn data info`.

    Returns:
        ``attributes``; ``splits``, each with its ``sequences``, ``frames``, ``lengths`` (min,
        median, max), ``repeated`` (sequences whose content came before in the split) and
        ``labels`` (counts); rolls have ``notes_per_frame``, ``silent_frames`` (a share),
        ``range`` (lowest and highest pitch) and ``pitches`` (frames in which each sounds);
        continuous frames ``rms``, ``peak`` and ``silent_frames`` (a share: all below 60 dB under
        full scale); notes ``unknown`` (a share). ``shared`` is what two splits have in common,
        ``warnings`` a line for each thing that makes a test dishonest.

    Raises:
        FileNotFoundError, ValueError: as `store.read`.
    """
    dataset = notes.load(path) if notes.holds_notes(path) else store.read(path, in_memory=False)
    attributes = dict(dataset.attributes)
    vocabulary = attributes.pop("vocabulary", None)
    if vocabulary is not None:
        attributes["classes"] = len(vocabulary)
    splits, contents = {}, {}
    for name, split in dataset.splits.items():
        tally: _Tally = _TALLIES[attributes["kind"]](attributes)
        splits[name], contents[name] = _of_split(split, tally)
    shared = _shared(dataset, contents)
    return {
        "file": str(path),
        "visible": int(dataset.splits["train"].frames.shape[1]),
        "attributes": attributes,
        "splits": splits,
        "shared": shared,
        "warnings": [
            f"{pair}: {found[what]} {text} on both sides: a test of one is not a test"
            for pair, found in shared.items()
            for what, text in (("sequences", "sequences"), ("sources", "sources"))
            if found[what]
        ],
    }


def _of_split(split: store.Split, tally: _Tally) -> tuple[dict[str, Any], Counter[bytes]]:
    content: Counter[bytes] = Counter()
    for frames in split.sequences():
        tally.add(frames)
        content[digest(frames)] += 1
    result: dict[str, Any] = {"sequences": len(split.lengths), "frames": int(split.lengths.sum())}
    if len(split.lengths):
        low, middle, high = (f(split.lengths) for f in (np.min, np.median, np.max))
        result["lengths"] = {"min": int(low), "median": float(middle), "max": int(high)}
        result.update(tally.result())
    result["repeated"] = sum(content.values()) - len(content)
    result["labels"] = {name: dict(Counter(values)) for name, values in split.labels.items()}
    return result, content


def _shared(
    dataset: store.Dataset, contents: Mapping[str, Counter[bytes]]
) -> dict[str, dict[str, Any]]:
    """For each pair of splits: sequences of the second that are in the first, common sources."""
    result = {}
    for one, other in combinations(dataset.splits, 2):
        sources = set(dataset.splits[one].source) & set(dataset.splits[other].source)
        result[f"{one} and {other}"] = {
            "sequences": sum(n for key, n in contents[other].items() if key in contents[one]),
            "sources": len(sources),
            "examples": sorted(sources)[:3],
        }
    return result


def listen(path: PathLike, output: PathLike, index: int = 0, split: str = "test") -> dict[str, Any]:
    """Write a sequence of a data set as a MIDI file, or as a WAV file to hear it.

    Piano-rolls become MIDI, or sound of plucked strings (`data_prep.playing`); frames of samples
    become a WAV file at the set's own rate.

    Args:
        path: the data set.
        output: file to make, .mid or .wav.
        index: which sequence, from 0.
        split: of which split.

    Returns:
        What `data listen --json` prints.

    Raises:
        FileNotFoundError, ValueError: as `store.read`; no such sequence; or no such sound.
    """
    suffix = Path(output).suffix.lower()
    if suffix not in (".mid", ".wav"):
        raise ValueError(f"{output}: give a name that ends in .mid or .wav")
    store.check_output(output)
    if notes.holds_notes(path):
        raise ValueError(f"{path}: notes without times; listen to a set of piano-rolls or audio")
    dataset = store.read(path, split, in_memory=False)
    part = dataset.splits[split]
    if not 0 <= index < len(part.lengths):
        has = f"sequences 0 to {len(part.lengths) - 1}" if len(part.lengths) else "no sequence"
        raise ValueError(f"--index is {index}: the {split} split of {path} has {has}")
    frames = part.sequence(index)
    if dataset.attributes["kind"] == "binary":
        _write_roll(path, output, frames, dataset.attributes)
    else:
        _write_samples(path, output, frames, dataset.attributes)
    return {
        "files": [str(output)],
        "source": part.source[index],
        "frames": len(frames),
        "seconds": _seconds(frames, dataset.attributes),
    }


def _seconds(frames: np.ndarray, attributes: Mapping[str, Any]) -> float:
    if "sample_rate" in attributes:
        return frames.size / float(attributes["sample_rate"])
    return len(frames) / float(attributes["frame_rate"])


def _write_roll(
    path: PathLike, output: PathLike, roll: np.ndarray, attributes: Mapping[str, Any]
) -> None:
    from data_prep.midi import write_midi

    if "lowest_pitch" not in attributes:
        raise ValueError(f"{path}: has no lowest_pitch, its frames are not notes")
    sound = float(attributes["frame_rate"]), int(attributes["lowest_pitch"])
    if Path(output).suffix.lower() == ".mid":
        write_midi(output, roll, *sound)
        return
    if not roll.any():
        raise ValueError(f"{path}: this sequence is silent; choose another --index")
    from data_prep.audio import write_wav
    from data_prep.playing import SAMPLE_RATE, render

    write_wav(output, render(roll, *sound)[:, None], SAMPLE_RATE)


def _write_samples(
    path: PathLike, output: PathLike, frames: np.ndarray, attributes: Mapping[str, Any]
) -> None:
    from data_prep.audio import write_wav

    if "sample_rate" not in attributes:
        raise ValueError(f"{path}: has no sample_rate, its frames are not sound")
    if Path(output).suffix.lower() != ".wav":
        raise ValueError(f"{output}: sound has no notes; give a name that ends in .wav")
    write_wav(output, frames, int(attributes["sample_rate"]))
