"""A data set of effects in the form of IDMT-SMT-Audio-Effects, made from dry notes."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_prep import effects, files, plucked, workers
from data_prep.audio import SUFFIXES, decode, write_wav
from data_prep.effects import SAMPLE_RATE, SETTINGS
from data_prep.harvest import Progress
from data_prep.idmt import EFFECTS

PathLike = str | os.PathLike[str]

SECONDS = 2.0
SECONDS_A_NOTE = 120.0
VARIANTS = 4  # plucked notes of each pitch

_FOLDERS = {"B": "Bass monophon", "G": "Gitarre monophon"}
_PITCH_SECONDS = (0.3, 1.5)  # after the attack, which has no clear one


class Note(NamedTuple):
    """A dry note that a worker sends through the effects.

    Attributes:
        number: among all notes.
        code: ABC and FF of its name, see `_codes`.
        source: the bytes of a recording, or (pitch, variant) of a string to pluck.
        seed: of the plucked notes, and of where oscillators begin.
        folder: what its files are put in.
    """

    number: int
    code: tuple[str, str]
    source: bytes | tuple[int, int]
    seed: int
    folder: str


def prepare_effects(
    output: PathLike,
    notes: PathLike | Iterable[PathLike] | None = None,
    pitches: Iterable[int] = range(plucked.LOWEST_PITCH, plucked.HIGHEST_PITCH + 1),
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Send dry notes through twelve classes of effects, for `prepare_idmt` to read.

    The files are WAVs of 2 s at 44.1 kHz, 16 bits and one channel, in
    ``{Bass,Gitarre} monophon/Samples/<Effect>``. In their names ``ABC-DDEFF-GHHI-KKKKK.wav`` DD
    is the pitch; string E is 0, since it is not known; BCFF counts the notes of an instrument.
    The same arguments give the same bytes.

    Args:
        output: the folder to make; it appears when it is complete.
        notes: recordings of single notes: folders, files, archives; those with "bass" in their
            path are of a bass, all others of a guitar. None: strings plucked here.
        pitches: of the strings, MIDI; below 40 they are of a bass.
        seed: of the draws.
        progress: called with (done, total, skipped) after each note.

    Returns:
        The summary of `prepare --json`, files being dry notes, and ``files_written``.

    Raises:
        ValueError: pedalboard is missing, the folder is not empty, or no note can be used.
    """
    if importlib.util.find_spec("pedalboard") is None:
        raise ValueError("effects need pedalboard, which is missing; pip install cgrnn[effects]")
    with _appearing(output) as folder:
        names, sources = _sources(notes, pitches)
        items = (
            Note(number, code, source, seed, str(folder))
            for number, code, source in zip(count(), _codes(names), sources, strict=False)
        )
        skipped, written = _render_all(items, names, progress)
        if not written:
            raise ValueError(f"{skipped[0][0]}: {skipped[0][1]}; none of {len(names)} is usable")
    return {
        "files_found": len(names),
        "files_read": len(names) - len(skipped),
        "files_skipped": [{"path": path, "reason": reason} for path, reason in skipped],
        "files_written": written,
        "sequences": {},
        "frames": {},
        "output": str(output),
    }


def _sources(
    notes: PathLike | Iterable[PathLike] | None, pitches: Iterable[int]
) -> tuple[list[str], Iterable[Any]]:
    """Names of the notes, and what `Note.source` is of each in turn."""
    if notes is None:
        strings = [(pitch, number) for pitch in pitches for number in range(VARIANTS)]
        return [
            f"{'bass' if pitch < 40 else 'guitar'} {pitch} {n}" for pitch, n in strings
        ], strings
    found = files.find(notes, SUFFIXES, "audio")
    return [file.name for file in found], files.contents(found)


def _render_all(
    items: Iterable[Note], names: list[str], progress: Progress | None
) -> tuple[list[tuple[str, str]], int]:
    """(name, reason) of the notes that are no use, in order; and how many files there are."""
    skipped: dict[int, str] = {}
    written = 0
    # Closed at once on an interrupt: a worker that still wrote would outlive the folder's removal.
    with closing(workers.run(f"{__name__}:render", items, SECONDS_A_NOTE)) as results:
        for done, (n, result) in enumerate(results, start=1):
            if isinstance(result, workers.Failed):
                skipped[n] = result.reason
            else:
                written += result
            if progress:
                progress(done, len(names), len(skipped))
    return [(names[n], skipped[n]) for n in sorted(skipped)], written


def _codes(names: list[str]) -> list[tuple[str, str]]:
    """ABC and FF for each note: the instrument, and BCFF its number among the same.

    >>> _codes(["bass/a3.wav", "guitar/a3.wav", "bass/a4.wav"])
    [('B00', '00'), ('G00', '00'), ('B00', '01')]
    """
    seen: Counter[str] = Counter()
    codes = []
    for name in names:
        instrument = "B" if "bass" in name.lower() else "G"
        number = f"{seen[instrument]:04}"
        if len(number) > 4:
            raise ValueError(f"{name}: more than 10000 notes of an instrument; give fewer")
        seen[instrument] += 1
        codes.append((instrument + number[:2], number[2:]))
    return codes


@contextmanager
def _appearing(output: PathLike) -> Iterator[Path]:
    """Yield a folder of another name that becomes `output` if all goes well."""
    output = Path(output)
    if not output.parent.is_dir():
        raise FileNotFoundError(f"{output}: the folder {output.parent} does not exist; make it")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output} is there already; remove it or name a new folder")
    temporary = output.with_name(f".{output.name}.{os.getpid()}.part")
    temporary.mkdir()
    try:
        yield temporary
        os.replace(temporary, output)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def render(note: Note) -> int:
    """Write a note through all effects and settings; the number of files."""
    if isinstance(note.source, workers.Failed):
        raise ValueError(note.source.reason)
    if isinstance(note.source, bytes):
        dry = decode(note.source, SAMPLE_RATE, SECONDS)
        pitch = measured_pitch(dry)
    else:
        pitch = note.source[0]
        dry = plucked.variant(*note.source, note.seed)
    dry = np.pad(dry, (0, round(SECONDS * SAMPLE_RATE) - len(dry)))
    abc, ff = note.code
    written, each = 0, sum(len(settings) for _, settings in SETTINGS.values())
    for code, effect in EFFECTS.items():
        folder = Path(note.folder, _FOLDERS[abc[0]], "Samples", effect)
        folder.mkdir(parents=True, exist_ok=True)
        for setting in range(1, len(SETTINGS[effect][1]) + 1):
            written += 1
            number = note.number * each + written
            phase = np.random.default_rng([note.seed, number]).random()
            wet = effects.apply(effect, setting, dry, phase)
            name = f"{abc}-{pitch:02}0{ff}-{code[0]}{code}{setting}-{number:05}.wav"
            write_wav(folder / name, wet[None], SAMPLE_RATE)
    return written


def measured_pitch(dry: np.ndarray) -> int:
    """The MIDI pitch of a note; names are no help, a bass being written an octave higher.

    Raises:
        ValueError: there is none of two digits.
    """
    import librosa

    start, end = (round(seconds * SAMPLE_RATE) for seconds in _PITCH_SECONDS)
    part = dry[start:end]
    if len(part) < 8192 or not part.any():
        raise ValueError("too short or silent: no pitch can be heard")
    track = librosa.yin(part, fmin=25, fmax=2000, sr=SAMPLE_RATE, frame_length=4096)
    pitch = round(float(librosa.hz_to_midi(np.median(track))))
    if not 10 <= pitch <= 99:
        raise ValueError(f"sounds of pitch {pitch}; names hold 10 to 99")
    return pitch
