"""Recordings to frames of samples and back."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep import files, store
from data_prep.harvest import Harvest, Progress, harvest
from data_prep.splits import check_fractions, linked, same, split_by
from data_prep.summary import summary

PathLike = str | os.PathLike[str]

SUFFIXES = (".wav", ".flac", ".ogg")
SECONDS_A_FILE = 60.0
TASKS = ("data_prep.audio:to_frames",)

_FULL_SCALE = 1 << 15  # of 16 bits
_LOUDEST = 1e3  # times full scale; floats beyond are damage, and would be all of the mean
_UNKNOWN_SIZES = (0, 0xFFFFFFFF)  # what programs leave that write as they record


@dataclass(frozen=True)
class Framing:
    """How a recording becomes frames.

    Attributes:
        sample_rate: Hz that it is resampled to.
        seconds: how much of its beginning is taken; 0 takes it all.
        frame_size: samples in a frame; a last one that is not full is dropped.

    Raises:
        ValueError: one is out of range; says which.
    """

    sample_rate: int = 11025
    seconds: float = 2.0
    frame_size: int = 150

    def __post_init__(self) -> None:
        for name, value in (("sample_rate", self.sample_rate), ("frame_size", self.frame_size)):
            if value < 1:
                raise ValueError(f"{name} is {value}; give 1 or more")
        if not 0 <= self.seconds < math.inf:
            raise ValueError(f"seconds is {self.seconds}; give a length, or 0 for all")
        if 0 < round(self.seconds * self.sample_rate) < self.frame_size:
            frame = self.frame_size / self.sample_rate
            raise ValueError(f"seconds is {self.seconds}; a frame lasts {frame:g}, give more")


DEFAULT = Framing()


def read_audio(
    path: PathLike, sample_rate: int = 11025, seconds: float = 2.0, frame_size: int = 150
) -> np.ndarray:
    """The frames of a recording: (frames, samples) float32, full scale being 1.

    Channels are averaged. For the arguments see `Framing`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or holds nothing to use; says why.
    """
    framing = Framing(sample_rate, seconds, frame_size)
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; give a WAV, FLAC or OGG file")
    try:
        return to_frames(Path(path).read_bytes(), framing)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def to_frames(content: bytes, framing: Framing) -> np.ndarray:
    """The frames of the recording in the bytes of a file, see `read_audio`."""
    samples = decode(content, framing.sample_rate, framing.seconds)
    if len(samples) < framing.frame_size:
        raise ValueError(
            f"{len(samples)} samples at {framing.sample_rate} Hz, less than a frame of"
            f" {framing.frame_size}"
        )
    if not samples.any():
        raise ValueError("silent: every sample is 0")
    whole = len(samples) - len(samples) % framing.frame_size
    return samples[:whole].reshape(-1, framing.frame_size)


def decode(content: bytes, sample_rate: int, seconds: float) -> np.ndarray:
    """The samples of the beginning of a recording, as one channel at a rate: (samples,) float32.

    Raises:
        ValueError: libsndfile cannot read it, it is cut off, or a sample is not a number.
    """
    import soundfile
    import soxr

    if not content:
        raise ValueError("empty file")
    _check_whole_wav(content)
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            rate, frames = file.samplerate, file.frames
            wanted = min(frames, round(seconds * rate)) if seconds else frames
            channels = file.read(wanted, dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        # Its text begins with the object that was read, which says nothing.
        reason = str(error).rpartition(">: ")[2].rstrip(".")
        raise ValueError(f"not a readable recording ({reason})") from error
    if len(channels) < wanted:
        raise ValueError(f"cut off: {len(channels)} of {wanted} samples are there")
    if not (np.abs(channels) < _LOUDEST).all():  # nor where they are no numbers
        raise ValueError("holds samples that are not numbers, or far beyond full scale")
    samples = channels.mean(axis=1)
    if rate != sample_rate and len(samples):
        samples = soxr.resample(samples, rate, sample_rate, quality="HQ")
    return np.ascontiguousarray(samples, dtype=np.float32)


def _check_whole_wav(content: bytes) -> None:
    """Raise ValueError where a WAV file ends before its samples do: libsndfile says nothing."""
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        return
    place = 12
    while place + 8 <= len(content):
        size = int.from_bytes(content[place + 4 : place + 8], "little")
        if content[place : place + 4] == b"data":
            there = len(content) - place - 8
            if size not in _UNKNOWN_SIZES and size > there:
                raise ValueError(f"cut off: {there} of {size} bytes of samples are there")
            return
        place += 8 + size + size % 2
    raise ValueError("cut off before its samples")


def prepare_audio(
    paths: PathLike | Iterable[PathLike],
    output: PathLike,
    framing: Framing = DEFAULT,
    segment_frames: int = 0,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the frames of recordings to the data file `output`, split by file.

    Files with equal frames share a split. Those that cannot be read, are silent or are shorter
    than a frame are skipped and named in the summary.

    Args:
        paths: files, folders and archives, see `files.find`.
        output: HDF5 file to make.
        framing: how recordings become frames.
        segment_frames: what recordings are cut into, the last segment being what is left; 0
            leaves them whole.
        fractions: of the files for train, valid and test.
        seed: of the split.
        progress: called with (done, total, skipped) after each file.

    Returns:
        The summary of `prepare --json`.

    Raises:
        ValueError: no recording, or none that can be used; nothing is written.
    """
    store.check_output(output)
    check_fractions(fractions)
    found = files.find(paths, SUFFIXES, "audio")
    with harvest(output, TASKS, found, framing, SECONDS_A_FILE, progress) as read:
        first = linked(len(read.taken), same([read.digests[n] for n in read.taken]))
        keys = [read.files[read.taken[n]].name for n in first]
        parts = dict(zip(read.taken, split_by(keys, fractions, seed), strict=True))
        dataset = write_sequences(
            output, read, parts, framing, segment_frames, name="audio files", seed=seed
        )
        return summary(
            dataset, output, found=len(found), read=len(read.taken), skipped=read.skipped
        )


def write_sequences(
    output: PathLike,
    read: Harvest,
    parts: Mapping[int, str],
    framing: Framing,
    segment_frames: int = 0,
    labels: Callable[[str], Mapping[str, str]] | None = None,
    **attributes: Any,
) -> store.Dataset:
    """Write the recordings that `parts` gives a split, one in memory at a time."""

    def sequences(part: str) -> Iterator[tuple[str, np.ndarray]]:
        for n in (n for n, its in parts.items() if its == part):
            frames = read.array(n)
            step = segment_frames or len(frames)
            for start in range(0, len(frames), step):
                yield read.files[n].name, frames[start : start + step]

    return store.write(
        output,
        {part: sequences(part) for part in store.SPLITS},
        kind="continuous",
        labels=labels,
        frame_unit=f"{framing.frame_size} samples",
        sample_rate=framing.sample_rate,
        **attributes,
    )


def write_wav(path: PathLike, frames: np.ndarray | Sequence[Any], sample_rate: int) -> None:
    """Write frames end to end as a 16-bit WAV file of one channel.

    Args:
        path: file to make; an older one is replaced.
        frames: (frames, samples), full scale being 1; what is beyond is clipped.
        sample_rate: Hz.

    Raises:
        ValueError: frames have another shape, or hold what is not a finite number.
    """
    import soundfile

    frames = np.asarray(frames, dtype=np.float64)
    if frames.ndim != 2:
        raise ValueError(f"frames are {frames.shape}; need (frames, samples)")
    if not np.isfinite(frames).all():
        raise ValueError("frames hold what is not a finite number; nothing to write")
    # libsndfile would scale by 32767 here and by 32768 when reading: not the same sound again.
    scaled = np.rint(frames.ravel() * _FULL_SCALE)
    samples = np.clip(scaled, -_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)
    with store.replacing(path) as temporary:
        soundfile.write(temporary, samples, sample_rate, subtype="PCM_16", format="WAV")
