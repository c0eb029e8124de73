"""Bach's four-part chorales from the corpus that comes with music21: the default data set.

Which: the corpus holds 410 Bach scores; read are the 365 with exactly the parts Soprano, Alto,
Tenor and Bass. The Riemenschneider numbering would give 371 numbers for 350 of these scores (20
occur twice or more) and miss the rest. Three are another one note for note, perhaps in another
key, and are left out; versions of one chorale, and chorales with much the same beginning, share a
split.

How: the scores are MusicXML and are read directly. music21's parser gives the same notes (the tests
compare them) in nine times the time. Repeats are not played out.
"""

from __future__ import annotations

import importlib.util
import io
import os
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from data_prep import store
from data_prep.splits import linked, same, split_by
from data_prep.summary import summary

GRIDS = {"quarter": 1, "eighth": 2}  # frames a quarter note
VOICES = ["Soprano", "Alto", "Tenor", "Bass"]
LOWEST_PITCH, HIGHEST_PITCH = 21, 108
QUARTERS_A_SECOND = 2.0
_STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_TIMED = ("note", "backup", "forward")
_OPENING = 40  # eighth notes compared to tell versions of one chorale
_ALIKE = 0.7  # of the sounding cells shared; below are new harmonies to a tune, as in any set

Note = tuple[Fraction, Fraction, int]


def prepare_chorales(
    output: str | os.PathLike[str],
    grid: str = "quarter",
    seed: int = 0,
    progress: Callable[[int, int, int], None] | None = None,
) -> dict[str, Any]:
    """Write the chorales to the data file `output`; the same seed gives the same bytes.

    The split depends on the seed alone: it is the same on both grids.

    Args:
        output: HDF5 file to make.
        grid: 'quarter' or 'eighth': what a frame lasts. A frame holds the notes that sound at
            its start, on 88 keys from MIDI note 21.
        seed: of the split (eight tenths to train on, by piece).
        progress: called with (done, total, skipped) after each score.

    Returns:
        The summary of `prepare --json`.
    """
    rate = _frames_a_quarter(grid)
    store.check_output(output)
    rolls, skipped = _corpus_rolls(progress)
    names = list(rolls)
    split = split_by(_pieces(rolls), seed=seed)
    dataset = store.write(
        output,
        {
            part: [
                (name, rolls[name][:: GRIDS["eighth"] // rate])
                for name, its in zip(names, split, strict=True)
                if its == part
            ]
            for part in store.SPLITS
        },
        kind="binary",
        name="Bach chorales",
        frame_unit=f"{grid} note",
        frame_rate=QUARTERS_A_SECOND * rate,
        lowest_pitch=LOWEST_PITCH,
        seed=seed,
    )
    found = len(names) + len(skipped)
    return summary(dataset, output, found=found, read=len(names), skipped=skipped)


def _frames_a_quarter(grid: str) -> int:
    if grid not in GRIDS:
        raise ValueError(f"grid is {grid!r}; use one of {', '.join(GRIDS)}")
    return GRIDS[grid]


def _corpus_rolls(
    progress: Callable[[int, int, int], None] | None,
) -> tuple[dict[str, np.ndarray], list[tuple[str, str]]]:
    """Rolls on the eighth-note grid by name, and (path, reason) of the scores left out."""
    rolls: dict[str, np.ndarray] = {}
    skipped = []
    seen: dict[bytes, str] = {}
    paths = corpus_paths()
    for done, path in enumerate(paths, start=1):
        name = path.name.removesuffix(path.suffix)
        try:
            roll = read_chorale(path, "eighth")
            first = seen.setdefault(_in_one_key(roll), name)
            if first != name:
                raise ValueError(f"the same music as {first}")
            rolls[name] = roll
        except ValueError as error:
            skipped.append((str(path), str(error).removeprefix(f"{path}: ")))
        if progress:
            progress(done, len(paths), len(skipped))
    return rolls, skipped


def corpus_paths() -> list[Path]:
    """The MusicXML scores of Bach in music21's corpus, sorted; music21 is not imported.

    Raises:
        FileNotFoundError: music21 or its corpus is not installed.
    """
    spec = importlib.util.find_spec("music21")
    folders = spec.submodule_search_locations if spec else None
    scores = [
        path
        for folder in folders or []
        for path in Path(folder, "corpus", "bach").glob("bwv*.*")
        if path.suffix in (".mxl", ".xml")
    ]
    if not scores:
        raise FileNotFoundError("music21's Bach corpus is missing; run `pip install music21`")
    return sorted(scores, key=lambda path: path.name)


def read_chorale(path: str | os.PathLike[str], grid: str = "quarter") -> np.ndarray:
    """The piano-roll (frames, 88) uint8 of a MusicXML score (.xml or .mxl) of four voices.

    A frame holds the notes sounding at its start, so a note that starts and ends between two
    frames is not seen, as are grace notes. Notes beyond the 88 keys are left out.

    Raises:
        ValueError: the file is not such a score, or has other parts.
    """
    rate = _frames_a_quarter(grid)
    try:
        root = ET.fromstring(_xml(Path(path)))
        names = [part.findtext("part-name") for part in root.iterfind("part-list/score-part")]
        notes = [note for part in root.iterfind("part") for note in _notes(part)]
    except (ET.ParseError, zipfile.BadZipFile, LookupError, ValueError, StopIteration) as error:
        raise ValueError(f"{path}: not a readable MusicXML score ({error})") from error
    if names != VOICES:
        raise ValueError(f"{path}: {len(names)} parts, not {', '.join(VOICES)}")
    roll = np.zeros(
        (max((_ceil(end * rate) for _, end, _ in notes), default=0), HIGHEST_PITCH + 1), np.uint8
    )
    for start, end, pitch in notes:
        if pitch <= HIGHEST_PITCH:
            roll[_ceil(start * rate) : _ceil(end * rate), pitch] = 1
    return roll[:, LOWEST_PITCH:]


def _ceil(time: Fraction) -> int:
    return -(-time.numerator // time.denominator)


def _xml(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix != ".mxl":
        return data
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        container = ET.fromstring(archive.read("META-INF/container.xml"))
        score = next(element for element in container.iter() if element.tag.endswith("rootfile"))
        return archive.read(score.attrib["full-path"])


def _notes(part: ET.Element) -> Iterator[Note]:
    """(start, end, MIDI pitch) of the notes of a part, in quarter notes from its beginning."""
    now = bar_end = Fraction(0)
    divisions = 1
    for bar in part.iterfind("measure"):
        for element in bar:
            if element.tag == "attributes":
                divisions = int(element.findtext("divisions") or divisions)
            if element.tag not in _TIMED or element.find("grace") is not None:
                continue
            length = Fraction(element.findtext("duration") or 0) / divisions
            if element.find("chord") is not None:
                now -= length  # it starts with the note before it
            if (pitch := element.find("pitch")) is not None:
                yield now, now + length, _midi_pitch(pitch)
            now += -length if element.tag == "backup" else length
            bar_end = max(bar_end, now)
        now = bar_end


def _midi_pitch(pitch: ET.Element) -> int:
    step, octave = pitch.findtext("step") or "", int(pitch.findtext("octave") or 0)
    return 12 * (octave + 1) + _STEPS[step] + int(pitch.findtext("alter") or 0)


def _in_one_key(roll: np.ndarray) -> bytes:
    """The roll moved down to start at its lowest note: equal for transposed music."""
    return np.roll(roll, -int(np.argmax(roll.any(axis=0))), axis=1).tobytes()


def _pieces(rolls: dict[str, np.ndarray]) -> list[str]:
    """For each roll the name of the piece it is a version of: what a split is made by."""
    names = list(rolls)
    numbers = [name.partition("-")[0] for name in names]  # bwv248.42-s is of bwv248.42
    first = linked(len(names), same(numbers) + _alike(list(rolls.values())))
    return [names[n] for n in first]


def _alike(rolls: list[np.ndarray]) -> list[tuple[int, int]]:
    """Pairs of rolls whose openings agree, in some key."""
    openings = np.zeros((len(rolls), _OPENING, rolls[0].shape[1]), np.float32)
    for opening, roll in zip(openings, rolls, strict=True):
        opening[: len(roll)] = roll[:_OPENING]
    flat = openings.reshape(len(rolls), -1)
    size = flat.sum(axis=1)
    alike = np.zeros((len(rolls), len(rolls)), bool)
    for semitones in range(-6, 7):
        both = flat @ np.roll(openings, semitones, axis=2).reshape(len(rolls), -1).T
        alike |= both > _ALIKE * (size[:, None] + size - both)
    return [(int(i), int(j)) for i, j in np.argwhere(np.triu(alike, 1))]
