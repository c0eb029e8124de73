"""Recordings: the samples librosa would give, whatever the format; damaged files named."""

import struct
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
from conftest import Command

from data_prep import audio, store
from data_prep.audio import Framing, prepare_audio, read_audio, write_wav

DATA = Path(__file__).resolve().parents[2].parent / "shared/data/audio"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real recordings at {DATA}")


def sine(hertz: float, rate: int, seconds: float = 2.5, peak: float = 0.5) -> np.ndarray:
    return peak * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, samples)


@needs_data
@pytest.mark.parametrize("name", ["notes/guitar/c3_f_rr1.wav", "notes/bass/a3_f_rr2.wav"])
def test_real_notes_are_what_librosa_reads(name: str) -> None:
    samples, _ = librosa.load(DATA / name, sr=11025, mono=True, duration=2.0)
    frames = read_audio(DATA / name)
    assert frames.shape == (147, 150) and frames.dtype == np.float32
    np.testing.assert_array_equal(frames, samples.reshape(147, 150))


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100, 48000, 96000])
def test_stereo_of_any_rate_is_what_librosa_reads(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([noise(3 * rate), noise(3 * rate, 1)], axis=1), rate)
    expected, _ = librosa.load(path, sr=11025, mono=True, duration=2.0)
    frames = read_audio(path)
    assert frames.shape == (147, 150)
    np.testing.assert_allclose(frames.ravel(), expected[:22050], atol=1e-6)


@pytest.mark.parametrize(
    "suffix, subtype, tolerance",
    [
        ("wav", "PCM_U8", 2.0**-7),
        ("wav", "PCM_16", 2.0**-15),
        ("wav", "PCM_24", 2.0**-23),
        ("wav", "FLOAT", 1e-7),
        ("wav", "DOUBLE", 1e-7),
        ("flac", "PCM_16", 2.0**-15),
        ("flac", "PCM_24", 2.0**-23),
        ("ogg", "VORBIS", 0.05),
    ],
)
def test_formats(tmp_path: Path, suffix: str, subtype: str, tolerance: float) -> None:
    path = tmp_path / f"a.{suffix}"
    samples = sine(440, 11025)
    soundfile.write(path, samples, 11025, subtype=subtype)
    frames = read_audio(path)
    assert frames.shape == (147, 150)
    assert np.abs(frames.ravel() - samples[:22050]).max() <= tolerance


def test_resampling_keeps_what_can_be_heard_and_nothing_else(tmp_path: Path) -> None:
    """A sine below half the new rate stays; one above it is gone, not folded down."""
    for hertz in (440.0, 3000.0, 4800.0, 6500.0, 9000.0):
        soundfile.write(tmp_path / "a.wav", sine(hertz, 44100), 44100, subtype="FLOAT")
        middle = read_audio(tmp_path / "a.wav").ravel()[1000:-1000]
        if hertz < 11025 / 2:
            times = (1000 + np.arange(len(middle))) / 11025
            np.testing.assert_allclose(
                middle, 0.5 * np.sin(2 * np.pi * hertz * times), atol=1e-3, err_msg=str(hertz)
            )
        else:
            assert np.abs(middle).max() < 1e-4, hertz


def test_lengths(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    samples = noise(1000).astype(np.float32)
    soundfile.write(path, samples, 11025, subtype="FLOAT")
    np.testing.assert_array_equal(read_audio(path), samples[:900].reshape(6, 150))
    assert read_audio(path, seconds=0.05).shape == (3, 150)
    assert read_audio(path, frame_size=1000, seconds=0).shape == (1, 1000)
    with pytest.raises(ValueError, match="1000 samples at 11025 Hz, less than a frame of 1001"):
        read_audio(path, frame_size=1001, seconds=0)
    soundfile.write(path, noise(11025 * 5), 11025)
    assert read_audio(path, seconds=0).shape == (367, 150)


@pytest.mark.parametrize(
    "values, says",
    [
        ({"sample_rate": 0}, "sample_rate is 0; give 1 or more"),
        ({"frame_size": -1}, "frame_size is -1; give 1 or more"),
        ({"seconds": float("nan")}, "seconds is nan; give a length"),
        ({"seconds": 0.01}, "seconds is 0.01; a frame lasts 0.0136"),
    ],
)
def test_framings_that_cannot_be(values: dict[str, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Framing(**values)  # type: ignore[arg-type]


def malformed(folder: Path) -> dict[str, str]:
    """Files that are no use, and what is said of each."""
    whole = folder / "whole.wav"
    soundfile.write(whole, noise(44100), 22050)
    content = whole.read_bytes()
    soundfile.write(folder / "flac.flac", noise(44100), 22050)
    flac = (folder / "flac.flac").read_bytes()
    (folder / "flac.flac").write_bytes(flac[: len(flac) // 2])
    (folder / "cut.wav").write_bytes(content[:20000])
    (folder / "cut early.wav").write_bytes(content[:30])
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_bytes(b"this is no sound\n" * 100)
    (folder / "damaged.wav").write_bytes(content[:12] + b"\xff" * 32 + content[44:])
    nan = noise(22050)
    nan[77] = np.nan
    soundfile.write(folder / "nan.wav", nan, 11025, subtype="FLOAT")
    soundfile.write(folder / "silent.wav", np.zeros(22050), 11025)
    soundfile.write(folder / "short.wav", noise(100), 11025)
    soundfile.write(folder / "nothing.wav", noise(0), 11025)
    whole.unlink()
    return {
        "cut early.wav": "cut off before its samples",
        "cut.wav": "cut off: 19956 of 88200 bytes of samples are there",
        "damaged.wav": "cut off before its samples",
        "empty.wav": "empty file",
        "flac.flac": "",
        "nan.wav": "holds samples that are not numbers, or far beyond full scale",
        "nothing.wav": "0 samples at 11025 Hz, less than a frame of 150",
        "short.wav": "100 samples at 11025 Hz, less than a frame of 150",
        "silent.wav": "silent: every sample is 0",
        "text.wav": "not a readable recording (Format not recognised)",
    }


def test_malformed_files_are_named_and_skipped(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    expected = malformed(folder)
    for n in range(4):
        soundfile.write(folder / f"good{n}.wav", noise(22050, n), 11025)
    made = prepare_audio(folder, tmp_path / "out.h5")
    assert (made["files_found"], made["files_read"]) == (14, 4)
    reasons = {item["path"]: item["reason"] for item in made["files_skipped"]}
    assert list(reasons) == list(expected)
    for name, says in expected.items():
        assert says in reasons[name]
        with pytest.raises(ValueError, match=name) as error:
            read_audio(folder / name)
        assert "\n" not in str(error.value)


def test_a_recorder_that_left_no_size(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(22050), 11025)
    expected, content = read_audio(path), bytearray(path.read_bytes())
    content[40:44] = struct.pack("<I", 0xFFFFFFFF)
    path.write_bytes(content)
    np.testing.assert_array_equal(read_audio(path), expected)


def test_data_set(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for n in range(20):
        copy = n - n % 4 if n % 4 == 1 else n  # each fourth file is there twice
        soundfile.write(folder / f"{n:02}.wav", noise(3000 + 150 * n, copy)[:3000], 11025)
    made = prepare_audio(folder, tmp_path / "out.h5", segment_frames=8, seed=3)
    dataset = store.read(tmp_path / "out.h5")
    assert made["sequences"] == {name: len(s.lengths) for name, s in dataset.splits.items()}
    assert sum(made["sequences"].values()) == 60
    assert dataset.attributes["kind"] == "continuous"
    assert dataset.attributes["sample_rate"] == 11025
    side = {source: name for name, split in dataset.splits.items() for source in split.source}
    assert set(side.values()) == set(store.SPLITS)
    for n in range(0, 20, 4):
        assert side[f"{n:02}.wav"] == side[f"{n + 1:02}.wav"]
    split = dataset.splits["train"]
    assert split.lengths.tolist() == [8, 8, 4] * (len(split.lengths) // 3)
    expected = np.concatenate([read_audio(folder / name) for name in split.source[::3]])
    np.testing.assert_array_equal(np.asarray(split.frames), expected)
    np.testing.assert_allclose(dataset.attributes["mean"], expected.astype(float).mean())
    np.testing.assert_allclose(dataset.attributes["std"], expected.astype(float).std())


def test_written_sound_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    levels = np.arange(-(1 << 15), 1 << 15) / (1 << 15)
    write_wav(path, levels.reshape(256, 256), 44100)
    assert soundfile.info(path).subtype == "PCM_16" and soundfile.info(path).channels == 1
    samples, rate = soundfile.read(path, dtype="int16")
    np.testing.assert_array_equal(samples, np.arange(-(1 << 15), 1 << 15))
    assert rate == 44100
    np.testing.assert_array_equal(read_audio(path, 44100, 0, 256), levels.reshape(256, 256))


def test_what_is_too_loud_is_clipped(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", np.array([[1.0, 1.5, 1e9, -1.0, -1.5, -1e9]]), 8000)
    samples, _ = soundfile.read(tmp_path / "a.wav", dtype="int16")
    assert samples.tolist() == [32767] * 3 + [-32768] * 3


@pytest.mark.parametrize(
    "frames, says", [(np.zeros(5), "need .frames, samples."), ([[np.nan]], "not a finite number")]
)
def test_what_is_no_sound_is_not_written(tmp_path: Path, frames: np.ndarray, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        write_wav(tmp_path / "a.wav", frames, 8000)
    assert list(tmp_path.iterdir()) == []


def test_command(tmp_path: Path, command: Command) -> None:
    for n in range(3):
        soundfile.write(tmp_path / f"{n}.wav", noise(16000, n), 8000)
    words = ("--sample-rate", 4000, "--frame-size", 100, "--seconds", 1.5)
    paths = [tmp_path / f"{n}.wav" for n in range(3)]
    done = command("prepare", "audio", *paths, *words, "-o", tmp_path / "out.h5")
    assert done.code == 0 and "3 of 3 files read" in done.out
    dataset = store.read(tmp_path / "out.h5")
    assert [split.frames.shape for split in dataset.splits.values()] == [(60, 100)] * 3
    bad = command("prepare", "audio", *paths, "--fractions", 0.5, 0.1, 0.1, "-o", tmp_path / "x.h5")
    assert bad.code == 2 and bad.err.count("\n") == 1 and "sum 1" in bad.err
    assert not (tmp_path / "x.h5").exists()


def test_only_the_beginning_is_decoded(tmp_path: Path) -> None:
    """What comes later does not matter, be it not a number."""
    samples = noise(44100)
    samples[30000] = np.inf
    soundfile.write(tmp_path / "a.wav", samples, 11025, subtype="FLOAT")
    assert len(audio.decode((tmp_path / "a.wav").read_bytes(), 11025, 2.0)) == 22050
    with pytest.raises(ValueError, match="not numbers"):
        read_audio(tmp_path / "a.wav", seconds=0)
