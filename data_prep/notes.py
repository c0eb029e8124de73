"""MIDI files as sequences of notes and chords, for models that predict the next from a window.

Durations and rests are left out, as in the baselines on Chopin's nocturnes. Notes that start
together are a chord, whichever instruments play them; drums are left out. A token is a note
("60") or a chord ("48.52.55"), its pitches upwards. The tokens of the training split are the
classes; what the other splits hold besides is class 0. For models of pitches as integers the
file also holds every note by itself, the notes of a chord upwards.

Layout: ``/{train,valid,test}/frames`` (classes of all tokens end to end, (total, 1) int32),
``/lengths``, ``/source``, ``/pitches`` (all notes end to end, uint8), ``/pitch_lengths``;
``/vocabulary`` (texts of the classes); attributes ``kind`` = 'notes', ``name``, ``frame_unit``,
``seed`` and ``fingerprint``.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from data_prep import files, store
from data_prep.harvest import Harvest, Progress, harvest, read_one
from data_prep.midi_sets import pieces
from data_prep.splits import split_by
from data_prep.summary import summary

if TYPE_CHECKING:
    import h5py

PathLike = str | os.PathLike[str]

KIND = "notes"
UNKNOWN = 0  # the class of tokens that the training split does not hold
SECONDS_A_FILE = 30.0

_DRUMS = 9  # the channel
_TASKS = ("data_prep.notes:by_mido", "data_prep.notes:by_symusic")


def by_mido(content: bytes, request: None) -> np.ndarray:
    """The notes of a MIDI file, see `onsets`: those of no length too, as grace notes often are.

    The faster readers drop these, and some of what never ends.
    """
    import mido

    starts, pitches = [], []
    for track in mido.MidiFile(file=io.BytesIO(content), clip=True).tracks:
        tick = 0
        for message in track:
            tick += message.time
            if message.type == "note_on" and message.velocity and message.channel != _DRUMS:
                starts.append(tick)
                pitches.append(message.note)
    return onsets(np.array(starts), np.array(pitches))


def by_symusic(content: bytes, request: None) -> np.ndarray:
    """The same by symusic, which reads some files that mido refuses; it may crash on one."""
    from symusic import Score

    score: Any = Score.from_midi(content)
    notes = [track.notes.numpy() for track in score.tracks if not track.is_drum]
    none = [np.zeros(0)]
    return onsets(
        *(np.concatenate(none + [part[key] for part in notes]) for key in ("time", "pitch"))
    )


def onsets(start: np.ndarray, pitch: np.ndarray) -> np.ndarray:
    """The notes in order as (notes, 2) int32: the number of the onset, and the pitch.

    Args:
        start: of each note of all instruments, in any unit.
        pitch: of the same notes; one that two instruments start together counts once.

    Raises:
        ValueError: there is no note, or a pitch is not of MIDI.

    >>> onsets(np.array([0.5, 0.0]), np.array([60, 62])).tolist()
    [[0, 62], [1, 60]]
    """
    if not len(start):
        raise ValueError("holds no note, drums aside")
    if pitch.min() < 0 or pitch.max() > 127:
        raise ValueError("holds pitches outside 0 to 127: likely corrupt")
    notes = np.unique(np.stack([start, pitch], axis=1), axis=0)
    _, onset = np.unique(notes[:, 0], return_inverse=True)
    return np.stack([onset, notes[:, 1]], axis=1).astype(np.int32)


def tokens(notes: np.ndarray) -> list[str]:
    """The texts of notes and chords.

    >>> tokens(np.array([[0, 62], [1, 48], [1, 52]]))
    ['62', '48.52']
    """
    edges = np.flatnonzero(np.diff(notes[:, 0])) + 1
    return [".".join(map(str, chord)) for chord in np.split(notes[:, 1], edges)]


def prepare_notes(
    paths: PathLike | Iterable[PathLike],
    output: PathLike,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the note sequences of MIDI files to `output`, a sequence a piece, split by piece.

    One piece are files of a folder that differ in a number before the suffix (`Title.mid`,
    `Title.1.mid`), and files with the same notes.

    Args:
        paths: files, folders and archives, see `files.find`.
        output: HDF5 file to make; see the module.
        seed: of the split.
        progress: called with (done, total, skipped) after each file.

    Returns:
        The summary of `prepare --json`, ``classes`` (unknown included) and ``unknown``, the
        share of such tokens in each split.

    Raises:
        ValueError: no MIDI file, or none that can be read; nothing is written.
    """
    import h5py

    store.check_output(output)
    found = files.find(paths, (".mid", ".midi"), "MIDI")
    with harvest(output, _TASKS, found, None, SECONDS_A_FILE, progress) as read:
        names, digests = zip(
            *((read.files[n].name, read.digests[n]) for n in read.taken), strict=True
        )
        parts = split_by(pieces(names, digests), seed=seed)
        members = {
            split: [n for n, part in zip(read.taken, parts, strict=True) if part == split]
            for split in store.SPLITS
        }
        train = {token for n in members["train"] for token in tokens(read.array(n))}
        vocabulary = ["?", *sorted(train, key=lambda token: [*map(int, token.split("."))])]
        classes = {token: n for n, token in enumerate(vocabulary)}
        with store.replacing(output) as temporary, h5py.File(temporary, "w") as file:
            file.create_dataset("vocabulary", data=vocabulary, dtype=h5py.string_dtype())
            for split, numbers in members.items():
                _write_split(file.create_group(split), read, numbers, classes)
            file.attrs.update(kind=KIND, name="MIDI files", frame_unit="note or chord", seed=seed)
            file.attrs["fingerprint"] = _fingerprint(file, vocabulary)
    dataset = load(output)
    unknown = {
        name: float(np.mean(np.asarray(split.frames) == UNKNOWN)) if len(split.frames) else 0.0
        for name, split in dataset.splits.items()
    }
    made = summary(dataset, output, found=len(found), read=len(read.taken), skipped=read.skipped)
    return {**made, "classes": len(vocabulary), "unknown": unknown}


def _write_split(
    group: h5py.Group, read: Harvest, numbers: Sequence[int], classes: Mapping[str, int]
) -> None:
    """Append piece after piece: one is in memory at a time."""
    import h5py

    frames = group.create_dataset("frames", (0, 1), "<i4", maxshape=(None, 1), chunks=(1 << 14, 1))
    pitches = group.create_dataset("pitches", (0,), "u1", maxshape=(None,), chunks=(1 << 16,))
    lengths, pitch_lengths = [], []
    for n in numbers:
        notes = read.array(n)
        ids = [[classes.get(token, UNKNOWN)] for token in tokens(notes)]
        for dataset, rows in ((frames, ids), (pitches, notes[:, 1])):
            dataset.resize(len(dataset) + len(rows), axis=0)
            dataset[-len(rows) :] = rows
        lengths.append(len(ids))
        pitch_lengths.append(len(notes))
    group.create_dataset("lengths", data=np.array(lengths, np.int64))
    group.create_dataset("pitch_lengths", data=np.array(pitch_lengths, np.int64))
    sources = [read.files[n].name for n in numbers]
    group.create_dataset("source", data=sources, dtype=h5py.string_dtype())


def _fingerprint(file: h5py.File, vocabulary: Sequence[str]) -> str:
    """sha256 (hex) of what the data are, however the file holds them."""
    digest = hashlib.sha256("\n".join([KIND, *vocabulary]).encode())
    for name in store.SPLITS:
        for member in ("lengths", "frames", "pitch_lengths", "pitches"):
            values = file[f"{name}/{member}"][:].astype("<i8")
            digest.update(f"\n{name} {member} {values.shape}\n".encode())
            digest.update(values.tobytes())
    return digest.hexdigest()


def read_classes(path: PathLike, vocabulary: Sequence[str]) -> np.ndarray:
    """The notes of a MIDI file as classes `(notes, 1)` of a vocabulary.

    The file is read in another process, which a malformed file may kill.

    Args:
        path: the file.
        vocabulary: the text of each class, of notes and chords or of pitches alone.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no reader can read it; says why.
    """
    result = read_one(path, _TASKS, None, SECONDS_A_FILE, "MIDI")
    classes = {token: n for n, token in enumerate(vocabulary)}
    pitches = classes.keys() >= {str(pitch) for pitch in range(128)}
    found = map(str, result[:, 1]) if pitches else tokens(result)
    return np.array([[classes.get(token, UNKNOWN)] for token in found], np.int32)


def write_midi(
    path: PathLike, classes: np.ndarray, vocabulary: Sequence[str], seconds: float = 0.25
) -> None:
    """Write notes and chords one after the other, all of one length, as a MIDI file.

    Args:
        path: file to make; an older one is replaced.
        classes: numbers in the vocabulary; the unknown class is a rest.
        vocabulary: the text of each class.
        seconds: that each lasts.
    """
    import pretty_midi

    file, track = pretty_midi.PrettyMIDI(), pretty_midi.Instrument(0)
    for n, number in enumerate(classes.ravel().astype(int)):
        text = vocabulary[number]
        for pitch in () if text == "?" else map(int, text.split(".")):
            track.notes.append(pretty_midi.Note(80, pitch, n * seconds, (n + 1) * seconds))
    file.instruments.append(track)
    with store.replacing(path) as temporary:
        file.write(str(temporary))


def holds_notes(path: PathLike) -> bool:
    """Whether this is a file of `prepare_notes`."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return bool(file.attrs.get("kind") == KIND)
    except OSError:
        return False


def load(path: PathLike, what: Literal["tokens", "pitches"] = "tokens") -> store.Dataset:
    """Read and verify a file of `prepare_notes`.

    Args:
        path: the file.
        what: tokens, as classes; or every note by itself, as its pitch.

    Returns:
        Splits with frames (total, 1) int32; among the attributes is ``vocabulary``, the text of
        each class.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is another kind of file, damaged or changed.
    """
    import h5py

    again = "make it with `cgrnn prepare notes`"
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; {again}")
    if not holds_notes(path):
        raise ValueError(f"{path}: not a file of note sequences; {again}")
    try:
        with h5py.File(path, "r") as file:
            vocabulary = [text.decode() for text in file["vocabulary"][:]]
            if _fingerprint(file, vocabulary) != file.attrs["fingerprint"]:
                raise ValueError(f"{path}: changed or damaged after it was prepared; {again}")
            attributes = dict(file.attrs)
            splits = {name: _read_split(file[name], what) for name in store.SPLITS}
    except (OSError, RuntimeError, KeyError) as error:  # h5py raises any on damaged blocks
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"{path}: damaged ({reason}); {again}") from error
    if what == "pitches":
        vocabulary = [str(pitch) for pitch in range(128)]
    return store.Dataset(
        splits, {**attributes, "seed": int(attributes["seed"]), "vocabulary": vocabulary}
    )


def _read_split(group: h5py.Group, what: str) -> store.Split:
    frames, lengths = ("pitches", "pitch_lengths") if what == "pitches" else ("frames", "lengths")
    return store.Split(
        group[frames][:].astype(np.int32).reshape(-1, 1),
        group[lengths][:].astype(np.int64),
        [source.decode() for source in group["source"][:]],
    )
