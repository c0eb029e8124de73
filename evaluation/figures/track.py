"""A sequence of frames as it is drawn: piano-roll, waveform, notes, or a map of its units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from evaluation.figures.style import COLOURS, SEQUENTIAL, Figure, bound_of, diverging, scale

NOTES = ("C", "C♯", "D", "D♯", "E", "F", "F♯", "G", "G♯", "A", "A♯", "B")
SOUNDING = 0.1  # probability from which a key is within the range of pitches that is shown


def note_name(pitch: int) -> str:
    """Scientific name of a MIDI note.

    Example:
        >>> note_name(60), note_name(69)
        ('C4', 'A4')
    """
    return f"{NOTES[pitch % 12]}{pitch // 12 - 1}"


@dataclass(frozen=True, eq=False)
class Track:
    """A sequence of frames, and what is known of time and units.

    Attributes:
        frames: `(frames, V)`, as in the data set, not normalised; of a roll also probabilities.
        kind: "binary", "continuous" or "notes".
        frame_rate: frames a second; None where they have no time.
        sample_rate: of audio, Hz: a frame is V samples.
        lowest_pitch: of a roll, the MIDI note of key 0.
        frame_unit: what a frame is, where it has no time.
    """

    frames: np.ndarray
    kind: str
    frame_rate: float | None = None
    sample_rate: float | None = None
    lowest_pitch: int | None = None
    frame_unit: str = "frame"

    @classmethod
    def of(cls, frames: np.ndarray, attributes: Mapping[str, Any]) -> Track:
        """From the attributes of a data set (`data_prep.store`).

        Example:
            >>> Track.of(np.zeros((4, 150)), {"kind": "continuous", "sample_rate": 11025}).seconds
            0.05442176870748299
        """
        kind, pitch = attributes["kind"], attributes.get("lowest_pitch")
        if "sample_rate" in attributes:
            rate = float(attributes["sample_rate"])
            return cls(frames, kind, rate / frames.shape[1], rate)
        if pitch is not None:
            return cls(frames, kind, float(attributes["frame_rate"]), None, int(pitch))
        return cls(frames, kind, frame_unit=str(attributes.get("frame_unit", "frame")))

    def holding(self, frames: np.ndarray) -> Track:
        """Other frames of the same sort."""
        return replace(self, frames=frames)

    @property
    def seconds(self) -> float | None:
        """Seconds in all, None where frames have no time."""
        return len(self.frames) / self.frame_rate if self.frame_rate else None

    @property
    def end(self) -> float:
        """Where the time axis ends."""
        return self.seconds or float(len(self.frames))

    @property
    def times(self) -> np.ndarray:
        """The middle of every frame on the time axis, `(frames,)`."""
        return (np.arange(len(self.frames)) + 0.5) * self.end / len(self.frames)

    @property
    def time_label(self) -> str:
        return "time (s)" if self.frame_rate else f"number of the {self.frame_unit}"

    @property
    def unit_axis(self) -> tuple[tuple[float, float], str]:
        """Ends and label of an axis of a frame's units."""
        units = self.frames.shape[1]
        if self.sample_rate:
            return (0.0, 1000 * units / self.sample_rate), "time in frame (ms)"
        if self.lowest_pitch is not None:
            return (self.lowest_pitch - 0.5, self.lowest_pitch + units - 0.5), "pitch"
        return (-0.5, units - 0.5), "unit of the frame"

    @property
    def waveform(self) -> np.ndarray:
        """The frames joined, `(samples,)`."""
        return self.frames.ravel()

    def name(self, frame: int) -> str:
        """A frame's number, and when it begins."""
        if not self.frame_rate:
            return f"{self.frame_unit} {frame}"
        return f"frame {frame} ({frame / self.frame_rate:.3g} s)"


def draw(axis: Axes, track: Track) -> None:
    """Draw a track, its units on the vertical axis; time is labelled by `label_time`."""
    if track.sample_rate:
        times = np.arange(track.frames.size) / track.sample_rate
        axis.plot(times, track.waveform, color=COLOURS[0], linewidth=0.5)
        axis.set_ylabel("amplitude")
    elif track.kind == "notes":
        axis.plot(track.times, track.frames[:, 0], ".", color=COLOURS[0])
        axis.set_ylabel("class")
    else:
        _draw_map(axis, track)
    axis.set_xlim(0, track.end)


def label_time(axis: Axes, track: Track) -> None:
    """Label the horizontal axis."""
    axis.set_xlabel(track.time_label)


def _draw_map(axis: Axes, track: Track) -> None:
    (low, high), label = track.unit_axis
    where: dict[str, Any] = {"origin": "lower", "extent": (0, track.end, low, high)}
    if track.kind == "binary":
        settings: dict[str, Any] = {"aspect": "auto", "interpolation": "nearest", **where}
        axis.imshow(track.frames.T, cmap=SEQUENTIAL, vmin=0, vmax=1, **settings)
    else:
        diverging(axis, track.frames.T, bound_of(track.frames, 0.995), **where)
    axis.set_ylabel(label)
    if track.lowest_pitch is not None:
        label_pitches(axis, *sounding([track]))


def probability_scale(figure: Figure, axes: np.ndarray) -> None:
    """The colour scale of rolls, beside them."""
    image = axes[0].images[0]
    scale(figure, image, axes, "probability", aspect=20 * len(axes), ticks=[0, 0.5, 1])


def sounding(tracks: list[Track]) -> tuple[int, int]:
    """Lowest and highest pitch that is heard in any of the rolls, with a little room."""
    lowest = tracks[0].lowest_pitch or 0
    heard = np.flatnonzero(sum((t.frames > SOUNDING).any(axis=0).astype(int) for t in tracks))
    low, high = (heard[0], heard[-1]) if len(heard) else (0, 11)
    return lowest + int(low) - 2, lowest + int(high) + 2


def label_pitches(axis: Axes, low: int, high: int) -> None:
    """Show this range of pitches, the Cs named."""
    axis.set_ylim(low, high)
    ticks = [pitch for pitch in range(low, high + 1) if pitch % 12 == 0]
    axis.set_yticks(ticks, [note_name(pitch) for pitch in ticks])
    for pitch in ticks:  # between B and C, where it crosses no note
        axis.axhline(pitch - 0.5, color="0.8", linewidth=0.6)
    axis.set_ylabel("pitch")
