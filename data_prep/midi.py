"""MIDI files to piano-rolls and back."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from data_prep import store, workers
from data_prep.midi_rolls import PITCHES, Request
from data_prep.splits import check_fractions, linked, same, split_by
from data_prep.summary import summary

SUFFIXES = (".mid", ".midi")
SECONDS_A_FILE = 30.0
TICKS_A_SECOND = 2048  # a power of two: every tick is an exact time, at 120 quarter notes a minute

PathLike = str | os.PathLike[str]


def find_midi(paths: PathLike | Iterable[PathLike]) -> list[Path]:
    """The MIDI files (.mid, .midi) in folders, at any depth, and those named themselves; sorted.

    Raises:
        FileNotFoundError: a path does not exist.
        ValueError: there is no MIDI file.
    """
    given = [Path(path) for path in _each(paths)]
    found: set[Path] = set()
    for path in given:
        if path.is_dir():
            found.update(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        elif path.is_file():
            found.add(path)
        else:
            raise FileNotFoundError(f"{path}: no such file or folder; give MIDI files or folders")
    if not found:
        where = ", ".join(map(str, given)) or "nothing"
        raise ValueError(f"{where}: no .mid or .midi file found; give a folder that holds some")
    return sorted(found)


def _each(paths: PathLike | Iterable[PathLike]) -> Iterable[PathLike]:
    return [paths] if isinstance(paths, (str, os.PathLike)) else paths


def read_roll(
    path: PathLike,
    frame_rate: float = 4.0,
    lowest_pitch: int = 21,
    highest_pitch: int = 108,
    drums: bool = False,
) -> np.ndarray:
    """The piano-roll of a MIDI file: (frames, keys) uint8, from time 0 to the last note's end.

    The rule is that of pretty_midi's ``get_piano_roll(frame_rate) > 0``; see `midi_rolls`. The
    file is read in another process, which a malformed file may kill.

    Args:
        path: the file.
        frame_rate: frames a second.
        lowest_pitch: MIDI note of key 0.
        highest_pitch: MIDI note of the last key; notes beyond either are left out.
        drums: take the drums' note numbers for pitches instead of leaving them out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no reader can read it; says why.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; give a MIDI file")
    request = _request(path, frame_rate, lowest_pitch, highest_pitch, drums)
    ((_, result),) = _read([request])
    if isinstance(result, workers.Failed):
        raise ValueError(f"{path}: not a readable MIDI file ({result.reason})")
    return result


def _request(
    path: PathLike, frame_rate: float, lowest_pitch: int, highest_pitch: int, drums: bool
) -> Request:
    _check_rate(frame_rate)
    if not 0 <= lowest_pitch <= highest_pitch < PITCHES:
        raise ValueError(f"pitches {lowest_pitch} to {highest_pitch}: need 0 <= low <= high <= 127")
    return Request(str(path), frame_rate, lowest_pitch, highest_pitch, drums)


def _check_rate(frame_rate: float) -> None:
    if not 0 < frame_rate <= TICKS_A_SECOND:
        raise ValueError(f"frame_rate is {frame_rate}; give 0 to {TICKS_A_SECOND} frames a second")


def _read(requests: Sequence[Request]) -> Iterator[tuple[int, Any]]:
    """(index, roll or Failed) for each request, in order of completion.

    What symusic refuses, or dies of, pretty_midi tries after it.
    """
    refused: dict[int, str] = {}
    for n, result in workers.run("data_prep.midi_rolls:by_symusic", requests, SECONDS_A_FILE):
        if isinstance(result, workers.Failed):
            refused[n] = result.reason
        else:
            yield n, result
    again, second = list(refused), "data_prep.midi_rolls:by_pretty_midi"
    for n, result in workers.run(second, [requests[n] for n in again], SECONDS_A_FILE):
        if isinstance(result, workers.Failed):
            reason = f"symusic: {refused[again[n]]}; pretty_midi: {result.reason}"
            result = workers.Failed(reason)
        yield again[n], result


def prepare_midi(
    paths: PathLike | Iterable[PathLike],
    output: PathLike,
    frame_rate: float = 4.0,
    lowest_pitch: int = 21,
    highest_pitch: int = 108,
    segment_seconds: float | None = 60.0,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    progress: Callable[[int, int, int], None] | None = None,
) -> dict[str, Any]:
    """Write the piano-rolls of MIDI files to the data file `output`, split by piece.

    One piece are the files of a folder that differ in a number before the suffix (`Title.mid`,
    `Title.1.mid`), and files with the same roll. Files that cannot be read, or hold no note on
    the keys asked for, are skipped and named in the summary.

    Args:
        paths: files and folders, see `find_midi`.
        output: HDF5 file to make.
        frame_rate: frames a second.
        lowest_pitch: MIDI note of key 0.
        highest_pitch: MIDI note of the last key.
        segment_seconds: what pieces are cut into, the last segment being what is left; None or 0
            leaves them whole.
        fractions: of the pieces for train, valid and test.
        seed: of the split.
        progress: called with (done, total, skipped) after each file.

    Returns:
        The summary of `prepare --json`.

    Raises:
        ValueError: no MIDI file, or none that can be read; nothing is written.
    """
    store.check_output(output)
    check_fractions(fractions)
    template = _request("", frame_rate, lowest_pitch, highest_pitch, drums=False)
    segment = _segment_frames(segment_seconds, frame_rate)
    files = find_midi(paths)
    rolls, skipped = _read_all(files, template, progress)
    names = [_name(files[n], files) for n in rolls]
    split = split_by(_pieces(names, list(rolls.values())), fractions, seed)
    sequences: dict[str, list[tuple[str, np.ndarray]]] = {part: [] for part in store.SPLITS}
    for name, roll, part in zip(names, rolls.values(), split, strict=True):
        for start in range(0, len(roll), segment or len(roll)):
            sequences[part].append((name, roll[start : start + (segment or len(roll))]))
    dataset = store.write(
        output,
        sequences,
        kind="binary",
        name="MIDI files",
        frame_unit="second",
        frame_rate=float(frame_rate),
        lowest_pitch=lowest_pitch,
        seed=seed,
    )
    return summary(dataset, output, found=len(files), read=len(rolls), skipped=skipped)


def _segment_frames(seconds: float | None, frame_rate: float) -> int:
    """Frames in a segment; 0 for whole pieces."""
    if not seconds:
        return 0
    if seconds * frame_rate < 1:
        raise ValueError(f"segment_seconds is {seconds}; give one frame or more, or 0 for no cuts")
    return round(seconds * frame_rate)


def _read_all(
    files: list[Path], template: Request, progress: Callable[[int, int, int], None] | None
) -> tuple[dict[int, np.ndarray], list[tuple[str, str]]]:
    """Rolls by the index of their file, and (path, reason) of the files skipped, both in order."""
    rolls: dict[int, np.ndarray] = {}
    skipped: dict[int, str] = {}
    requests = [replace(template, path=str(path)) for path in files]
    for n, result in _read(requests):
        if isinstance(result, workers.Failed):
            skipped[n] = result.reason
        elif not result.any():
            keys = f"{template.lowest_pitch} to {template.highest_pitch}"
            skipped[n] = f"no note of pitch {keys} that lasts to the next frame, drums aside"
        else:
            rolls[n] = result
        if progress:
            progress(len(rolls) + len(skipped), len(files), len(skipped))
    if not rolls:
        path, reason = files[min(skipped)], skipped[min(skipped)]
        raise ValueError(f"{path}: {reason}; none of {len(files)} MIDI files could be used")
    return dict(sorted(rolls.items())), [(str(files[n]), skipped[n]) for n in sorted(skipped)]


def _name(path: Path, files: list[Path]) -> str:
    """The path within what all files have in common: no machine's folders in the data."""
    return path.relative_to(os.path.commonpath([p.parent for p in files])).as_posix()


def _pieces(names: list[str], rolls: list[np.ndarray]) -> list[str]:
    """For each file what names its piece: what a split is made by."""
    titles = [re.sub(r"(\.\d+)?\.[^.]*$", "", name) for name in names]
    content = [hashlib.md5(roll.tobytes(), usedforsecurity=False).digest() for roll in rolls]
    first = linked(len(names), same(titles) + same(content))
    return [titles[n] for n in first]


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

    _check_rate(frame_rate)
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
