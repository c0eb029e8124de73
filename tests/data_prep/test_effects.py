"""Each effect does what its name says, by measures of the signal; and the set made of them."""

import hashlib
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import librosa
import numpy as np
import pytest
import scipy.signal
import soundfile
from conftest import Command

from data_prep import effects, plucked, store
from data_prep.audio import decode
from data_prep.effects_set import measured_pitch, prepare_effects
from data_prep.idmt import labels, prepare_idmt

pytest.importorskip("pedalboard", reason="pedalboard, of the extra `effects`, is not installed")

DATA = Path(__file__).resolve().parents[2].parent / "shared/data/audio/notes"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real recordings at {DATA}")
RATE = effects.SAMPLE_RATE
SETTINGS = (1, 2, 3)


def sine(hertz: float, peak: float = 0.5) -> np.ndarray:
    return (peak * np.sin(2 * np.pi * hertz * np.arange(2 * RATE) / RATE)).astype(np.float32)


def click() -> np.ndarray:
    dry = np.zeros(2 * RATE, np.float32)
    dry[100] = 0.1
    return dry


def hiss() -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.3, 0.3, 2 * RATE).astype(np.float32)


def parameters(effect: str, setting: int) -> dict[str, float]:
    return effects.SETTINGS[effect][1][setting - 1]


def strongest_rate(signal: np.ndarray, least: float = 0.4) -> float:
    """Hz of the strongest component of what varies slowly."""
    part = (signal - signal.mean()) * np.hanning(len(signal))
    spectrum = np.abs(np.fft.rfft(part, 1 << 20))
    hertz = np.fft.rfftfreq(1 << 20, 1 / RATE)
    return float(hertz[np.argmax(np.where((hertz > least) & (hertz < 40), spectrum, 0))])


def response_db(effect: str, setting: int, hertz: float) -> float:
    spectrum = np.abs(np.fft.rfft(effects.apply(effect, setting, click()))) / 0.1
    return float(20 * np.log10(spectrum[round(hertz * 2)]))


def test_no_effect_is_the_dry_note() -> None:
    dry = plucked.variant(45, 0, 0)
    np.testing.assert_array_equal(effects.apply("NoFX", 1, dry), dry)


def test_all_classes_and_settings_differ() -> None:
    dry = plucked.variant(45, 0, 0)
    heard = set()
    for effect, (_, settings) in effects.SETTINGS.items():
        for setting in range(1, len(settings) + 1):
            wet = effects.apply(effect, setting, dry, 0.3)
            assert wet.shape == dry.shape and wet.dtype == np.float32
            assert 0.02 < np.abs(wet).max() <= 1, (effect, setting)
            heard.add(wet.tobytes())
    assert len(heard) == 34


@pytest.mark.parametrize("setting", SETTINGS)
def test_tremolo_moves_loudness(setting: int) -> None:
    its = parameters("Tremolo", setting)
    envelope = np.abs(scipy.signal.hilbert(effects.apply("Tremolo", setting, sine(440), 0.2)))
    assert strongest_rate(envelope) == pytest.approx(its["rate_hz"], rel=0.02)
    middle = envelope[2000:-2000]
    assert middle.min() / middle.max() == pytest.approx(1 - its["depth"], abs=0.02)


@pytest.mark.parametrize("setting", SETTINGS)
def test_vibrato_moves_pitch_and_not_loudness(setting: int) -> None:
    its = parameters("Vibrato", setting)
    wet = effects.apply("Vibrato", setting, sine(440), 0.7).astype(np.float64)
    wave = scipy.signal.hilbert(wet)[15000:-15000]
    hertz = np.diff(np.unwrap(np.angle(wave))) * RATE / (2 * np.pi)
    assert strongest_rate(hertz) == pytest.approx(its["rate_hz"], rel=0.02)
    cents = 1200 * np.log2(hertz / 440)
    assert cents.max() == pytest.approx(its["cents"], rel=0.05)
    assert cents.min() == pytest.approx(-its["cents"], rel=0.05)
    loudness = np.abs(wave)
    assert loudness.max() / loudness.min() < 1.02


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("effect", ["SlapbackDelay", "FeedbackDelay"])
def test_delays_repeat(effect: str, setting: int) -> None:
    its = parameters(effect, setting)
    wet = effects.apply(effect, setting, click()) / 0.1
    places = np.flatnonzero(np.abs(wet) > 1e-4) - 100
    late = round(its["seconds"] * RATE)
    if effect == "SlapbackDelay":
        assert len(places) == 2 and places[0] == 0 and abs(places[1] - late) <= 1
    else:
        np.testing.assert_allclose(places / late, np.arange(len(places)), atol=1e-3)
        assert len(places) >= 4
        echoes = wet[places[1:] + 100]
        np.testing.assert_allclose(echoes[1:] / echoes[:-1], its["feedback"], rtol=1e-3)


def harmonics(effect: str, setting: int) -> float:
    """Share of the energy at multiples of 220 Hz above the first."""
    wet = effects.apply(effect, setting, sine(220))[RATE // 2 : RATE // 2 + RATE]
    energy = np.abs(np.fft.rfft(wet * np.hanning(RATE))) ** 2
    around = [energy[220 * n - 2 : 220 * n + 3].sum() for n in range(1, 30)]
    return float(sum(around[1:]) / sum(around))


def test_saturation_adds_harmonics_more_of_them_in_distortion() -> None:
    over = [harmonics("Overdrive", n) for n in SETTINGS]
    distorted = [harmonics("Distortion", n) for n in SETTINGS]
    assert harmonics("NoFX", 1) < 1e-8
    assert min(over) > 0.01
    assert min(distorted) > max(over)


@pytest.mark.parametrize("effect", ["Overdrive", "Distortion"])
def test_saturation_is_the_same_for_soft_notes(effect: str) -> None:
    loud, soft = (effects.apply(effect, 1, sine(220, peak)) for peak in (0.5, 0.05))
    np.testing.assert_allclose(soft * 10, loud, atol=1e-3)


def test_equaliser() -> None:
    for setting in SETTINGS:
        its = parameters("EQ", setting)
        # A resonance reaches up to where the shelves are: compare far from it, and at it.
        assert response_db("EQ", setting, 20) == pytest.approx(its["low_db"], abs=1)
        assert response_db("EQ", setting, 15000) == pytest.approx(its["high_db"], abs=1)
        middle = response_db("EQ", setting, its["middle_hz"])
        assert middle == pytest.approx(its["middle_db"], abs=2.5)


def test_reverb_rings_on_after_the_note() -> None:
    """Energy of the last second after a burst of 0.1 s; the larger the room the more."""
    dry = hiss()
    dry[RATE // 10 :] = 0
    left = {n: float((effects.apply("Reverb", n, dry)[RATE:] ** 2).sum()) for n in SETTINGS}
    rooms = sorted(SETTINGS, key=lambda n: parameters("Reverb", n)["room"])
    assert 0 < left[rooms[0]] < left[rooms[1]] < left[rooms[2]]
    assert left[rooms[2]] > 1e-3 * float((dry**2).sum())
    # It grows duller and softer steadily: dense, not a few echoes.
    tail = effects.apply("Reverb", rooms[2], dry)[RATE // 2 :]
    loudness = [float(np.sqrt((part**2).mean())) for part in np.array_split(tail, 6)]
    assert all(a > b for a, b in pairwise(loudness))


def transfer(effect: str, setting: int) -> tuple[np.ndarray, np.ndarray]:
    """Hz, and dB (hertz, times) of the ratio of short-time spectra of hiss with and without."""
    both = [effects.apply(effect, setting, hiss()), effects.apply("NoFX", 1, hiss())]
    hertz, _, wet = scipy.signal.stft(both[0], RATE, nperseg=2048, noverlap=1536)
    _, _, dry = scipy.signal.stft(both[1], RATE, nperseg=2048, noverlap=1536)
    smooth = np.ones((1, 12)) / 12
    power = [scipy.signal.convolve2d(np.abs(s) ** 2, smooth, "valid") for s in (wet, dry)]
    return hertz, 10 * np.log10(power[0] / power[1])


@pytest.mark.parametrize("effect", ["Chorus", "Flanger", "Phaser"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_modulations_move_the_spectrum(effect: str, setting: int) -> None:
    """A steady tone's neighbours: sidebands that a filter which stands still cannot make."""
    wet = effects.apply(effect, setting, sine(1000), 0.1)[RATE // 2 :]
    still = effects.apply("EQ", 1, sine(1000))[RATE // 2 :]

    def beside(signal: np.ndarray) -> float:
        energy = np.abs(np.fft.rfft(signal * np.blackman(len(signal)), 4 * RATE)) ** 2
        band = energy[4 * 950 : 4 * 1050]
        tone = energy[4 * 1000 - 9 : 4 * 1000 + 10].sum()
        return float(band.sum() / tone - 1)

    assert beside(wet) > 1e-3 > 1e-5 > abs(beside(still))


@pytest.mark.parametrize("effect", ["Flanger", "Phaser"])
def test_slow_sweeps_move_notches(effect: str) -> None:
    """Setting 1 swings once in 2 s: frequencies have times of dips and times of none."""

    def swings(effect: str) -> np.ndarray:
        hertz, gain = transfer(effect, 1)
        band = gain[(hertz > 300) & (hertz < 700)]
        return np.asarray(band.max(axis=1) - band.min(axis=1))

    assert np.median(swings(effect)) > 12
    assert np.median(swings("EQ")) < 0.5


def test_flanger_is_a_comb_and_chorus_is_later() -> None:
    """Their echoes of a click come when the settings say."""
    for effect, low, high in (("Flanger", 1, 5.5), ("Chorus", 8, 23)):
        for setting in SETTINGS:
            its = parameters(effect, setting)
            wet = effects.apply(effect, setting, click(), 0.4)
            second = (np.argmax(np.abs(wet[120:])) + 20) / RATE * 1000
            assert abs(second - its["delay_ms"]) <= its["depth_ms"] + 0.1
            assert low <= second <= high


@pytest.mark.parametrize("effect", ["Chorus", "Flanger", "Phaser", "Tremolo", "Vibrato"])
def test_oscillators_begin_anywhere(effect: str) -> None:
    """After a quarter of a cycle more, what comes is a quarter later: for a steady tone."""
    its = parameters(effect, 1)
    late = round(RATE / its["rate_hz"] / 4)
    one = effects.apply(effect, 1, hiss(), 0.0)
    early = np.concatenate([np.zeros(late, np.float32), hiss()])
    full = effects.apply(effect, 1, early, 0.0)[late:]
    shifted = effects.apply(effect, 1, hiss(), 0.25)
    # A quarter is not a whole number of samples: Vibrato's delays differ by 1 % of one.
    np.testing.assert_allclose(shifted[200:], full[200:], atol=0.01)
    assert np.abs(one - full)[200:].max() > 0.1


@pytest.mark.parametrize("pitch", [28, 33, 40, 45, 52, 57, 64, 69, 76])
def test_strings_are_in_tune(pitch: int) -> None:
    for number in range(2):
        dry = plucked.variant(pitch, number, seed=1)
        assert dry.shape == (2 * RATE,) and np.abs(dry).max() <= 0.8
        # The exact place of the partial next to where it must be, in half a minute of padding.
        part = dry[RATE // 4 : RATE] * np.hanning(RATE - RATE // 4)
        spectrum = np.abs(np.fft.rfft(part, 1 << 21))
        hertz = np.fft.rfftfreq(1 << 21, 1 / RATE)
        expected = librosa.midi_to_hz(pitch)
        near = np.abs(hertz / expected - 1) < 0.03
        found = hertz[near][np.argmax(spectrum[near])]
        assert abs(1200 * np.log2(found / expected)) < 3
        assert measured_pitch(dry) == pitch


def test_strings_decay_in_their_time() -> None:
    for seconds in (0.8, 3.0):
        random = np.random.default_rng(0)
        dry = plucked.pluck(45, random, decay_seconds=seconds, damping=0.0)
        tone = np.exp(-2j * np.pi * 110 * np.arange(RATE // 2) / RATE) * np.hanning(RATE // 2)
        level = [20 * np.log10(abs((part * tone).sum())) for part in np.split(dry, 4)]
        np.testing.assert_allclose(np.diff(level), -30 / seconds, rtol=0.01)


def test_the_pick_mutes_harmonics_with_a_node_there() -> None:
    dry = plucked.pluck(45, np.random.default_rng(0), pick=0.25, damping=0.0, seconds=1.0)
    energy = np.abs(np.fft.rfft(dry * np.hanning(len(dry)))) ** 2
    at = [energy[110 * n - 3 : 110 * n + 4].sum() for n in range(1, 17)]
    muted = [at[n - 1] for n in (4, 8, 12, 16)]
    others = [at[n - 1] for n in range(1, 17) if n % 4]
    assert np.mean(muted) < 0.02 * np.mean(others)


def contents(folder: Path) -> dict[str, str]:
    files = sorted(folder.rglob("*.wav"))
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    return {p.relative_to(folder).as_posix(): h for p, h in zip(files, hashes, strict=True)}


def test_a_set_of_plucked_strings(tmp_path: Path) -> None:
    calls: list[tuple[int, int, int]] = []
    made = prepare_effects(
        tmp_path / "a", pitches=[33, 60], seed=4, progress=lambda *now: calls.append(now)
    )
    assert (made["files_found"], made["files_written"], made["files_skipped"]) == (8, 272, [])
    assert calls[-1] == (8, 8, 0)
    first = contents(tmp_path / "a")
    assert len(first) == len(set(first.values())) == 272
    for name in first:
        its = labels(name)
        bass = its["instrument"] == "bass"
        assert (its["pitch"], its["string"]) == ("33" if bass else "60", "")
        folder = "Bass monophon" if bass else "Gitarre monophon"
        assert name.startswith(f"{folder}/Samples/{its['effect']}/")
        info = soundfile.info(tmp_path / "a" / name)
        assert (info.samplerate, info.channels, info.frames) == (44100, 1, 88200)
        assert info.subtype == "PCM_16"
    prepare_effects(tmp_path / "b", pitches=[33], seed=4)
    assert contents(tmp_path / "b") == {n: h for n, h in first.items() if n.startswith("Bass")}
    prepare_effects(tmp_path / "c", pitches=[33], seed=5)
    assert not set(contents(tmp_path / "c").values()) & set(first.values())
    read = prepare_idmt(tmp_path / "a", tmp_path / "a.h5")
    assert read["files_read"] == 272 and read["repeated"] == 0
    dataset = store.read(tmp_path / "a.h5")
    notes = [set(split.labels["note"]) for split in dataset.splits.values()]
    assert sum(map(len, notes)) == len(set.union(*notes)) == 8


@needs_data
def test_a_set_of_recordings(tmp_path: Path) -> None:
    """NoFX holds the samples of the recordings; what cannot be used is named."""
    folder = tmp_path / "notes"
    given = ["guitar/c3_f_rr1.wav", "guitar/a5_f_rr1.wav", "bass/a4_f_rr1.wav"]
    for name in given:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((DATA / name).read_bytes())
    (folder / "guitar/text.wav").write_text("no sound")
    soundfile.write(folder / "guitar/quiet.wav", np.zeros(88200), 44100)
    made = prepare_effects(tmp_path / "out", folder)
    assert (made["files_found"], made["files_read"], made["files_written"]) == (5, 3, 102)
    assert [(i["path"], i["reason"][:13]) for i in made["files_skipped"]] == [
        ("guitar/quiet.wav", "too short or "),
        ("guitar/text.wav", "not a readabl"),
    ]
    dry = {decode((DATA / name).read_bytes(), RATE, 0).tobytes() for name in given}
    clean = list((tmp_path / "out").rglob("NoFX/*.wav"))
    assert {decode(path.read_bytes(), RATE, 0).tobytes() for path in clean} == dry
    # The bass is named as written, an octave above the sound.
    assert sorted(labels(path.name)["pitch"] for path in clean) == ["48", "57", "81"]


@needs_data
def test_the_seed_says_where_oscillators_begin(tmp_path: Path) -> None:
    for seed in (0, 1):
        prepare_effects(tmp_path / f"{seed}", DATA / "guitar/c3_f_rr1.wav", seed=seed)
    one, other = (contents(tmp_path / seed) for seed in "01")
    swinging = {labels(name)["effect"] for name in one if one[name] != other[name]}
    assert swinging == {"Chorus", "Flanger", "Phaser", "Tremolo", "Vibrato"}


def test_pedalboard_is_asked_for(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pedalboard", None)  # as if it were not installed
    done = command("prepare", "effects", "-o", tmp_path / "out")
    assert done.code == 2 and done.err.count("\n") == 1 and "pip install cgrnn[effects]" in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arrange, says",
    [
        (lambda folder: (folder / "out").write_text("mine"), "out is there already; remove it"),
        (lambda folder: (folder / "out/x").mkdir(parents=True), "out is there already; remove it"),
        (
            lambda folder: (folder / "notes/a.wav").write_text("x"),
            "a.wav: not a readable recording",
        ),
        (lambda folder: (folder / "notes").rmdir(), "notes: no such file or folder"),
    ],
)
def test_refused(
    tmp_path: Path, command: Command, arrange: Callable[[Path], object], says: str
) -> None:
    (tmp_path / "notes").mkdir()
    arrange(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    done = command("prepare", "effects", "--notes", tmp_path / "notes", "-o", tmp_path / "out")
    assert done.code == 2 and done.err.count("\n") == 1 and says in done.err
    assert sorted(tmp_path.rglob("*")) == before


def test_what_was_begun_does_not_stay(tmp_path: Path) -> None:
    def interrupted(done: int, total: int, skipped: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_effects(tmp_path / "out", pitches=[40], progress=interrupted)
    assert list(tmp_path.iterdir()) == []
