"""A thousand damaged MIDI files and as many WAV files: each is read or named, and nothing falls."""

import io
import random
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mido
import numpy as np
import pytest
import soundfile

from data_prep import store
from data_prep.audio import prepare_audio
from data_prep.midi import prepare_midi

DATA = Path(__file__).resolve().parents[2].parent / "shared/data"
FILES = 1000
SECONDS = 60.0  # many times what it takes: a file that hangs costs the limit of its reader
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
CHUNKS = (b"MThd", b"MTrk", b"RIFF", b"fmt ", b"data")


def midi_files() -> list[bytes]:
    """Sound files with all sorts of messages; and real ones, where they are."""
    pick, made = random.Random(0), []
    for kind in (0, 1, 1):
        file = mido.MidiFile(type=kind, ticks_per_beat=pick.choice([96, 480]))
        for part in range(1 + 2 * kind):
            track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=400000)])
            track.append(mido.Message("sysex", data=[1, 2, 3]))
            for pitch in pick.sample(range(30, 90), 20):
                its: dict[str, Any] = {"channel": (part, 9)[part == 2]}
                track.append(mido.Message("note_on", note=pitch, time=pick.randrange(99), **its))
                track.append(mido.Message("pitchwheel", pitch=pick.randrange(-8192, 8192), **its))
                pedal = pick.choice([0, 127])
                track.append(mido.Message("control_change", control=64, value=pedal, **its))
                track.append(mido.Message("note_off", note=pitch, time=50, **its))
            file.tracks.append(track)
        stream = io.BytesIO()
        file.save(file=stream)
        made.append(stream.getvalue())
    folders = ("nottingham", "malformed") if DATA.is_dir() else ()
    real = [p for name in folders for p in sorted((DATA / "midi" / name).glob("*.mid"))]
    small = [p.read_bytes() for p in real if p.stat().st_size < 5000]
    return made + pick.sample(small, min(20, len(small)))


def wav_files() -> list[bytes]:
    """Sound files of every common form; and excerpts of real ones, where they are."""
    rng, made = np.random.default_rng(0), []
    for form in ("PCM_16", "PCM_24", "PCM_U8", "FLOAT", "DOUBLE", "ULAW", "IMA_ADPCM"):
        for rate, channels in ((8000, 1), (44100, 2)):
            stream = io.BytesIO()
            sound = rng.uniform(-0.5, 0.5, (700, channels))
            soundfile.write(stream, sound, rate, subtype=form, format="WAV")
            made.append(stream.getvalue())
    folder = DATA / "audio/notes"
    for path in sorted(folder.rglob("*.wav"))[::30] if DATA.is_dir() else ():
        stream, (sound, rate) = io.BytesIO(), soundfile.read(path, frames=1000)
        soundfile.write(stream, sound, rate, subtype="PCM_16", format="WAV")
        made.append(stream.getvalue())
    return made


def flip(pick: random.Random, content: bytearray, others: list[bytes]) -> None:
    for _ in range(pick.choice([1, 1, 3, 30])):
        content[pick.randrange(len(content))] ^= 1 << pick.randrange(8)


def truncate(pick: random.Random, content: bytearray, others: list[bytes]) -> None:
    del content[pick.randrange(len(content)) :]


def insert(pick: random.Random, content: bytearray, others: list[bytes]) -> None:
    place = pick.randrange(len(content))
    content[place:place] = pick.randbytes(pick.choice([1, 4, 100]))


def delete(pick: random.Random, content: bytearray, others: list[bytes]) -> None:
    place = pick.randrange(len(content))
    del content[place : place + pick.choice([1, 4, 100])]


def repeat(pick: random.Random, content: bytearray, others: list[bytes]) -> None:
    place = pick.randrange(len(content))
    content[place:place] = content[place : place + 200]


def header(pick: random.Random, content: bytearray, others: list[bytes]) -> None:
    """A field of the first bytes at its extreme."""
    size = pick.choice([1, 2, 4])
    place = pick.randrange(min(len(content), 44))
    value = pick.choice(EXTREMES) & (256**size - 1)
    content[place : place + size] = value.to_bytes(size, pick.choice(["little", "big"]))


def length(pick: random.Random, content: bytearray, others: list[bytes]) -> None:
    """The length of a chunk at its extreme."""
    places = [place for name in CHUNKS if (place := content.find(name)) >= 0]
    place = pick.choice(places or [0]) + 4
    content[place : place + 4] = pick.choice(EXTREMES).to_bytes(4, pick.choice(["little", "big"]))


def join(pick: random.Random, content: bytearray, others: list[bytes]) -> None:
    content += pick.choice(others)


def noise(pick: random.Random, content: bytearray, others: list[bytes]) -> None:
    """Noise after the first bytes, which say what it is."""
    content[pick.randrange(60) :] = pick.randbytes(pick.randrange(600))


def nothing(pick: random.Random, content: bytearray, others: list[bytes]) -> None:
    content.clear()


MUTATIONS = (flip, truncate, insert, delete, repeat, header, length, join, noise)


def write_damaged(folder: Path, sound: list[bytes], suffix: str) -> None:
    pick = random.Random(suffix)
    folder.mkdir()
    for n in range(FILES):
        content = bytearray(pick.choice(sound))
        for mutation in pick.choices(MUTATIONS, k=pick.choice([1, 1, 2, 3])):
            if content:
                mutation(pick, content, sound)
        if n % 100 == 0:
            nothing(pick, content, sound)
        (folder / f"{n:03d}{suffix}").write_bytes(content)


CASES: list[tuple[str, Callable[[], list[bytes]], Callable[..., dict[str, Any]]]] = [
    (".mid", midi_files, prepare_midi),
    (".wav", wav_files, prepare_audio),
]


def seconds_of_children() -> float:
    """Processor time of processes that have ended: on a busy machine as much as on a quiet one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize(("suffix", "sound", "prepare"), CASES)
def test_every_damaged_file_is_read_or_named(
    suffix: str,
    sound: Callable[[], list[bytes]],
    prepare: Callable[..., dict[str, Any]],
    tmp_path: Path,
) -> None:
    write_damaged(tmp_path / "in", sound(), suffix)
    before = seconds_of_children()
    result = prepare(tmp_path / "in", tmp_path / "x.h5")
    assert seconds_of_children() - before < SECONDS
    skipped = {Path(item["path"]).name: item["reason"] for item in result["files_skipped"]}
    assert result["files_found"] == FILES == result["files_read"] + len(skipped)
    assert len(skipped) == len(result["files_skipped"])
    assert skipped.keys() <= {path.name for path in (tmp_path / "in").iterdir()}
    assert {f"{n:03d}{suffix}" for n in range(0, FILES, 100)} <= skipped.keys()  # the empty ones
    for name, reason in skipped.items():
        assert reason.strip() and "\n" not in reason and "Traceback" not in reason, name
        assert "longer than" not in reason, f"{name} hangs"
    assert 0.1 < result["files_read"] / FILES < 0.9  # neither all refused nor all let through
    dataset = store.read(tmp_path / "x.h5")  # which checks every value
    assert sum(len(split.lengths) for split in dataset.splits.values()) >= result["files_read"]
