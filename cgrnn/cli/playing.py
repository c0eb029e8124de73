"""What `cgrnn generate` does with each kind of frames: reads, writes and measures them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgrnn.cli import say
from cgrnn.cli.parsing import pick
from cgrnn.cli.runs import normalisation, playback
from cgrnn.settings import Limit, option

if TYPE_CHECKING:
    import numpy as np

    from cgrnn.checkpoint import Run
    from data_prep.store import Dataset, Split

MOST_CELLS = 20_000_000  # of the data compared with: minutes of sound, hours of music


@dataclass(frozen=True)
class PlayingOptions:
    """How notes are written."""

    tempo: float = option(
        120.0,
        "quarter notes a minute; at 120 frames last as long as in the data",
        Limit("4 to 1000", lambda x: 4 <= x <= 1000),
    )
    velocity: int = option(80, "of every note", Limit("1 to 127", lambda x: 1 <= x <= 127))
    restrike: bool = option(False, "strike notes anew in every frame; else frames are joined")
    voices: int = option(
        1,
        "tracks: the highest key of each frame, the next, …; the last has the rest",
        Limit("1 to 15", lambda x: 1 <= x <= 15),
    )
    wav: bool = option(False, "write the sound beside each MIDI file, played on plucked strings")


class Kind(ABC):
    """How frames of a kind are read from a file, written to one and measured."""

    def __init__(self, trained: Run, options: Any) -> None:
        self.trained, self.options = trained, options

    def prime(self) -> np.ndarray:
        """The frames to go on from."""
        file, bars = self.options.prime, self.options.prime_bars
        frames = self.read(file)
        if not len(frames):
            raise ValueError(f"{file}: holds nothing that lasts to the next frame; give another")
        if bars is None:
            return self.fit(frames[: self.options.prime_frames])
        return self.fit(self._filled(frames[: self.bars(bars)]))

    def _filled(self, frames: np.ndarray) -> np.ndarray:
        """With silence to the end of its last bar: a file ends with its last note."""
        import numpy as np

        asked = self.options.prime_bars
        has = next(n for n in range(1, asked + 1) if self.bars(n) >= len(frames))
        if has < asked:
            say(f"note: {self.options.prime} has {has} bars of the {asked} asked for")
        return np.pad(frames, ((0, self.bars(has) - len(frames)), (0, 0)))

    @abstractmethod
    def bars(self, count: int) -> int:
        """Frames of so many bars."""

    @abstractmethod
    def read(self, path: str) -> np.ndarray:
        """What a file holds, in frames."""

    @abstractmethod
    def fit(self, frames: np.ndarray) -> np.ndarray:
        """Frames that were read as frames of the model; says what is lost."""

    @abstractmethod
    def write(self, path: Path, frames: np.ndarray) -> list[Path]:
        """Write frames of the model to files of this name and the right suffix."""

    def statistics(self, made: list[np.ndarray], data: Dataset | None) -> dict[str, Any] | None:
        """What was made, beside the training set if there is one; None: there is no measure."""
        return None


class Rolls(Kind):
    """Piano-rolls, from MIDI files to MIDI files."""

    def __init__(self, trained: Run, options: Any) -> None:
        super().__init__(trained, options)
        self.sound = playback(trained)

    @property
    def in_beats(self) -> bool:
        return bool(self.trained.data.get("frame_unit", "second") != "second")

    def bars(self, count: int) -> int:
        from data_prep.midi import Meter, read_meter

        meter = read_meter(self.options.prime) if self.options.prime else Meter(4.0, 120.0)
        a_minute = 120.0 if self.in_beats else meter.tempo
        return max(1, round(count * meter.quarters * 60.0 / a_minute * self.sound["frame_rate"]))

    def read(self, path: str) -> np.ndarray:
        from data_prep.midi import read_roll

        rate = self.sound["frame_rate"]
        a_beat = rate / 2 if self.in_beats else None  # frame rates are at 120 beats a minute
        return read_roll(path, rate, 0, 127, frames_per_beat=a_beat)

    def fit(self, frames: np.ndarray) -> np.ndarray:
        from data_prep.playing import notes_of

        low = self.sound["lowest_pitch"]
        high = low + self.trained.model.visible_dim - 1
        inside = frames[:, low : high + 1]
        notes = len(notes_of(frames))
        if lost := notes - len(notes_of(inside)):
            where = f"pitches {low} to {high}"
            say(f"note: {lost} of the prime's {notes} notes are left out; the model has {where}")
        return inside

    def write(self, path: Path, frames: np.ndarray) -> list[Path]:
        return _play(path, frames, **self.sound, **pick(self.options, PlayingOptions))

    def statistics(self, made: list[np.ndarray], data: Dataset | None) -> dict[str, Any] | None:
        from evaluation import music

        measure = partial(music.statistics, lowest_pitch=self.sound["lowest_pitch"])
        found = _compared(measure, made, data, self.options.seed)
        if data:
            training, unheard = data.splits["train"], data.splits["test"]
            parts = {"generated": made, "unheard": _some(unheard, self.options.seed)}
            shares = {n: music.copying(part, training.sequences()) for n, part in parts.items()}
            found["copied"] = music.finite(shares)
        return found


class Notes(Kind):
    """Sequences of notes and chords, which have no durations: a quarter of a second each."""

    def __init__(self, trained: Run, options: Any) -> None:
        super().__init__(trained, options)
        self.vocabulary = trained.data["vocabulary"]

    def bars(self, count: int) -> int:
        raise ValueError("bars: the notes of this model have no durations; count in frames")

    def read(self, path: str) -> np.ndarray:
        from data_prep.notes import read_classes

        return read_classes(path, self.vocabulary)

    def fit(self, frames: np.ndarray) -> np.ndarray:
        from data_prep.notes import UNKNOWN

        if self.vocabulary[UNKNOWN] == "?" and (unknown := int((frames == UNKNOWN).sum())):
            say(f"note: {unknown} of the prime's {len(frames)} notes and chords are unknown")
        return frames

    def write(self, path: Path, frames: np.ndarray) -> list[Path]:
        from data_prep.playing import roll_of_tokens

        roll = roll_of_tokens([self.vocabulary[n] for n in frames.ravel().astype(int)])
        how = pick(self.options, PlayingOptions) | {"restrike": True}
        return _play(path, roll, frame_rate=4.0, lowest_pitch=0, **how)


class Audio(Kind):
    """Frames of samples, from recordings to WAV files."""

    def __init__(self, trained: Run, options: Any) -> None:
        super().__init__(trained, options)
        if "sample_rate" not in trained.data:
            path = trained.data["path"]
            raise ValueError(f"{path}: has no sample_rate, its frames are not audio")
        for field in fields(PlayingOptions):
            if options[field.name] != field.default:
                raise ValueError(f"--{field.name}: this model makes sound, not notes; leave it out")
        self.rate = int(trained.data["sample_rate"])
        self.mean, self.std = normalisation(trained.data)

    def bars(self, count: int) -> int:
        raise ValueError("bars: this model makes sound, which has no bars; count in frames")

    def read(self, path: str) -> np.ndarray:
        from data_prep.audio import read_audio

        return read_audio(path, self.rate, 0, self.trained.model.visible_dim)

    def fit(self, frames: np.ndarray) -> np.ndarray:
        return (frames - self.mean) / self.std

    def write(self, path: Path, frames: np.ndarray) -> list[Path]:
        from data_prep.audio import write_wav

        file = path.with_name(path.name + ".wav")
        write_wav(file, frames * self.std + self.mean, self.rate)
        return [file]

    def statistics(self, made: list[np.ndarray], data: Dataset | None) -> dict[str, Any]:
        from evaluation.music import sound_statistics

        sounds = [frames * self.std + self.mean for frames in made]
        measure = partial(sound_statistics, sample_rate=self.rate)
        return _compared(measure, sounds, data, self.options.seed)


KINDS: dict[str, type[Kind]] = {"binary": Rolls, "continuous": Audio, "notes": Notes}


def _play(
    path: Path, roll: np.ndarray, frame_rate: float, lowest_pitch: int, wav: bool, **how: Any
) -> list[Path]:
    """Write a roll as a MIDI file and, if asked for, as sound."""
    from data_prep.audio import write_wav
    from data_prep.midi import write_midi
    from data_prep.playing import SAMPLE_RATE, render

    midi, sound = path.with_name(path.name + ".mid"), path.with_name(path.name + ".wav")
    write_midi(midi, roll, frame_rate, lowest_pitch, **how)
    if not wav:
        return [midi]
    rate = frame_rate * how["tempo"] / 120.0
    samples = render(roll, rate, lowest_pitch, restrike=how["restrike"])
    write_wav(sound, samples[:, None], SAMPLE_RATE)
    return [midi, sound]


def _compared(
    measure: Any, made: list[np.ndarray], data: Dataset | None, seed: int
) -> dict[str, Any]:
    from evaluation.music import compare

    if data is None:
        return {"generated": measure(made).plain()}
    training, unheard = (_some(data.splits[name], seed) for name in ("train", "test"))
    return compare(measure, made, training, unheard, seed)


def _some(split: Split, seed: int) -> list[np.ndarray]:
    """Sequences of a split: all, or so many at random as can be measured in seconds."""
    import numpy as np

    order = np.random.default_rng(seed).permutation(len(split.lengths))
    cells = np.cumsum(split.lengths[order]) * split.frames.shape[1]
    return [split.sequence(number) for number in order[: 1 + int((cells < MOST_CELLS).sum())]]
