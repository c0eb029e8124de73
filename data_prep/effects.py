"""The twelve classes of IDMT-SMT-Audio-Effects, three settings each, as functions of a dry note.

Each function takes samples (samples,) float32 at 44.1 kHz, full scale 1, and returns as many.
pedalboard does what it has, numpy the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

SAMPLE_RATE = 44100


def no_effect(dry: np.ndarray) -> np.ndarray:
    """The note as it is."""
    return dry


def equaliser(
    dry: np.ndarray, *, low_db: float, middle_hz: float, middle_db: float, high_db: float
) -> np.ndarray:
    """Gain below 200 Hz, around a middle frequency, and above 3 kHz."""
    import pedalboard

    return _through(
        dry,
        pedalboard.LowShelfFilter(200, low_db),
        pedalboard.PeakFilter(middle_hz, middle_db, 1.0),
        pedalboard.HighShelfFilter(3000, high_db),
    )


def delay(dry: np.ndarray, *, seconds: float, feedback: float, mix: float) -> np.ndarray:
    """Echoes every so many seconds, each `feedback` times the one before; 0: a single one."""
    import pedalboard

    return _through(dry, pedalboard.Delay(seconds, feedback, mix))


def reverb(dry: np.ndarray, *, room: float, damping: float, wet: float) -> np.ndarray:
    """A room of size 0 to 1, whose high frequencies decay faster by `damping`, 0 to 1."""
    import pedalboard

    return _through(dry, pedalboard.Reverb(room, damping, wet_level=wet, dry_level=1 - wet))


def chorus(
    dry: np.ndarray, *, rate_hz: float, depth_ms: float, delay_ms: float, mix: float, phase: float
) -> np.ndarray:
    """The note mixed with itself, later by `delay_ms` ± `depth_ms`."""
    return _swept_delay(dry, rate_hz, depth_ms, delay_ms, 0.0, mix, phase)


def flanger(
    dry: np.ndarray, *, rate_hz: float, depth_ms: float, delay_ms: float, feedback: float,
    phase: float,
) -> np.ndarray:  # fmt: skip
    """The same with a delay so short that it cuts notches, which feedback makes sharper."""
    return _swept_delay(dry, rate_hz, depth_ms, delay_ms, feedback, 0.5, phase)


def phaser(
    dry: np.ndarray, *, rate_hz: float, depth: float, centre_hz: float, feedback: float,
    phase: float,
) -> np.ndarray:  # fmt: skip
    """Notches of all-pass filters that move around a centre frequency."""
    import pedalboard

    return _modulated(
        dry, pedalboard.Phaser(rate_hz, depth, centre_hz, -feedback, 0.5), rate_hz, phase
    )


def tremolo(dry: np.ndarray, *, rate_hz: float, depth: float, phase: float) -> np.ndarray:
    """Loudness that falls to `1 - depth` and comes back."""
    return dry * (1 - depth * (0.5 - 0.5 * np.cos(_cycle(dry, rate_hz, phase))))


def vibrato(dry: np.ndarray, *, rate_hz: float, cents: float, phase: float) -> np.ndarray:
    """Pitch that goes up and down by so many cents."""
    from scipy.ndimage import map_coordinates

    width = (2 ** (cents / 1200) - 1) / (2 * np.pi * rate_hz) * SAMPLE_RATE
    late = width * (1 + np.sin(_cycle(dry, rate_hz, phase)))
    places = np.arange(len(dry)) - late
    return np.asarray(map_coordinates(dry, [places], order=3, mode="constant", prefilter=True))


def distortion(dry: np.ndarray, *, drive_db: float, low_hz: float, high_hz: float) -> np.ndarray:
    """Hard saturation of the note at full level, then a band of what comes out."""
    import pedalboard

    band = pedalboard.HighpassFilter(low_hz), pedalboard.LowpassFilter(high_hz)
    return _at_full_level(dry, lambda x: _through(x, pedalboard.Distortion(drive_db), *band))


def overdrive(dry: np.ndarray, *, drive_db: float, bias: float, high_hz: float) -> np.ndarray:
    """Soft saturation, by `bias` stronger on one side as in a tube: even harmonics too."""
    import pedalboard

    gain = 10 ** (drive_db / 20)

    def tube(x: np.ndarray) -> np.ndarray:
        bent = np.tanh(gain * x + bias) - np.tanh(bias)
        return _through(bent.astype(np.float32), pedalboard.LowpassFilter(high_hz))

    return _at_full_level(dry, tube)


Effect = Callable[..., np.ndarray]

# For each class its function and settings; one for NoFX, as there.
SETTINGS: dict[str, tuple[Effect, tuple[dict[str, float], ...]]] = {
    "NoFX": (no_effect, ({},)),
    "EQ": (
        equaliser,
        (
            {"low_db": 6, "middle_hz": 500, "middle_db": -8, "high_db": 9},
            {"low_db": -12, "middle_hz": 1500, "middle_db": 6, "high_db": -12},
            {"low_db": 9, "middle_hz": 800, "middle_db": -4, "high_db": -9},
        ),
    ),
    "FeedbackDelay": (
        delay,
        (
            {"seconds": 0.30, "feedback": 0.5, "mix": 0.4},
            {"seconds": 0.45, "feedback": 0.3, "mix": 0.4},
            {"seconds": 0.15, "feedback": 0.7, "mix": 0.4},
        ),
    ),
    "SlapbackDelay": (
        delay,
        (
            {"seconds": 0.08, "feedback": 0.0, "mix": 0.45},
            {"seconds": 0.12, "feedback": 0.0, "mix": 0.40},
            {"seconds": 0.20, "feedback": 0.0, "mix": 0.50},
        ),
    ),
    "Reverb": (
        reverb,
        (
            {"room": 0.35, "damping": 0.5, "wet": 0.35},
            {"room": 0.95, "damping": 0.3, "wet": 0.45},
            {"room": 0.70, "damping": 0.1, "wet": 0.40},
        ),
    ),
    "Chorus": (
        chorus,
        (
            {"rate_hz": 0.8, "depth_ms": 2.0, "delay_ms": 10, "mix": 0.5},
            {"rate_hz": 1.5, "depth_ms": 1.5, "delay_ms": 15, "mix": 0.4},
            {"rate_hz": 2.5, "depth_ms": 3.0, "delay_ms": 20, "mix": 0.5},
        ),
    ),
    "Flanger": (
        flanger,
        (
            {"rate_hz": 0.5, "depth_ms": 2.0, "delay_ms": 3.2, "feedback": 0.5},
            {"rate_hz": 0.25, "depth_ms": 2.5, "delay_ms": 4.0, "feedback": 0.7},
            {"rate_hz": 3.0, "depth_ms": 1.0, "delay_ms": 2.5, "feedback": 0.3},
        ),
    ),
    "Phaser": (
        phaser,
        (
            {"rate_hz": 0.5, "depth": 0.5, "centre_hz": 1000, "feedback": 0.3},
            {"rate_hz": 1.0, "depth": 0.8, "centre_hz": 1500, "feedback": 0.7},
            {"rate_hz": 4.0, "depth": 0.6, "centre_hz": 700, "feedback": 0.5},
        ),
    ),
    "Tremolo": (
        tremolo,
        (
            {"rate_hz": 6.0, "depth": 0.75},
            {"rate_hz": 3.0, "depth": 0.6},
            {"rate_hz": 10.0, "depth": 0.95},
        ),
    ),
    "Vibrato": (
        vibrato,
        (
            {"rate_hz": 5.5, "cents": 30},
            {"rate_hz": 3.5, "cents": 60},
            {"rate_hz": 8.0, "cents": 15},
        ),
    ),
    "Distortion": (
        distortion,
        (
            {"drive_db": 35, "low_hz": 80, "high_hz": 6000},
            {"drive_db": 45, "low_hz": 150, "high_hz": 9000},
            {"drive_db": 40, "low_hz": 60, "high_hz": 2500},
        ),
    ),
    "Overdrive": (
        overdrive,
        (
            {"drive_db": 12, "bias": 0.3, "high_hz": 7000},
            {"drive_db": 16, "bias": 0.2, "high_hz": 5000},
            {"drive_db": 8, "bias": 0.5, "high_hz": 9000},
        ),
    ),
}


def apply(effect: str, setting: int, dry: np.ndarray, phase: float = 0.0) -> np.ndarray:
    """A note through an effect: (samples,) float32, made quieter where it would clip.

    Args:
        effect: a key of `SETTINGS`.
        setting: the number of the setting, from 1.
        dry: (samples,) float32 at 44.1 kHz.
        phase: where in its cycle, 0 to 1, an effect that swings is as the note begins.
    """
    function, settings = SETTINGS[effect]
    parameters: dict[str, Any] = dict(settings[setting - 1])
    if "rate_hz" in parameters:
        parameters["phase"] = phase
    wet = function(dry, **parameters)
    peak = float(np.abs(wet).max())
    return (wet / peak if peak > 1 else wet).astype(np.float32)


def _cycle(dry: np.ndarray, rate_hz: float, phase: float) -> np.ndarray:
    """The angle of an oscillator at each sample."""
    angle: np.ndarray = 2 * np.pi * (np.arange(len(dry)) * (rate_hz / SAMPLE_RATE) + phase)
    return angle


def _through(dry: np.ndarray, *plugins: Any) -> np.ndarray:
    for plugin in plugins:
        dry = plugin.process(dry, SAMPLE_RATE, reset=True)
    return dry


def _modulated(dry: np.ndarray, plugin: Any, rate_hz: float, phase: float) -> np.ndarray:
    """An effect whose oscillator always starts at 0: let it run in silence first."""
    silence = np.zeros(round(phase / rate_hz * SAMPLE_RATE), dry.dtype)
    return _through(np.concatenate([silence, dry]), plugin)[len(silence) :]


def _swept_delay(
    dry: np.ndarray, rate_hz: float, depth_ms: float, delay_ms: float, feedback: float,
    mix: float, phase: float,
) -> np.ndarray:  # fmt: skip
    import pedalboard

    # There a depth of 1 is 10 ms each way, and feedback is subtracted, which would fill notches.
    plugin = pedalboard.Chorus(rate_hz, depth_ms / 10, delay_ms, -feedback, mix)
    return _modulated(dry, plugin, rate_hz, phase)


def _at_full_level(dry: np.ndarray, bend: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Drive a soft note as hard as a loud one, and give it its own level back."""
    peak = float(np.abs(dry).max())
    if peak == 0:
        return dry
    bent = bend(dry / peak)
    return bent * (peak / float(np.abs(bent).max()))
