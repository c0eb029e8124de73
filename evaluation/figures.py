"""Figures of data and of trained models. Each function returns a matplotlib Figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ACCENT = "#d1603d"
_NOTES = ("C", "C♯", "D", "D♯", "E", "F", "F♯", "G", "G♯", "A", "A♯", "B")


def note_name(pitch: int) -> str:
    """Scientific name of a MIDI note.

    Example:
        >>> note_name(60), note_name(69)
        ('C4', 'A4')
    """
    return f"{_NOTES[pitch % 12]}{pitch // 12 - 1}"


def pianoroll(
    rolls: Mapping[str, np.ndarray], lowest_pitch: int, frame_rate: float, prime_frames: int = 0
) -> Figure:
    """Piano-rolls beneath each other, on one scale of pitch.

    Args:
        rolls: title and `(frames, keys)`, zeros and ones or probabilities.
        lowest_pitch: MIDI note of key 0.
        frame_rate: frames a second.
        prime_frames: frames of the last roll that were given to the model; a line marks their end.
    """
    figure = Figure(figsize=(9, 0.6 + 2.1 * len(rolls)), layout="constrained")
    axes = figure.subplots(len(rolls), 1, squeeze=False, sharex=True)[:, 0]
    sounding = np.flatnonzero(sum((roll > 0.1).any(axis=0).astype(int) for roll in rolls.values()))
    low, high = (sounding[0], sounding[-1]) if len(sounding) else (0, 11)
    for axis, (title, roll) in zip(axes, rolls.items(), strict=True):
        extent = (0, len(roll) / frame_rate, lowest_pitch - 0.5, lowest_pitch + roll.shape[1] - 0.5)
        axis.imshow(
            roll.T,
            origin="lower",
            aspect="auto",
            extent=extent,
            cmap="Blues",
            vmin=0,
            vmax=1,
            interpolation="nearest",
        )
        _pitch_axis(axis, lowest_pitch + int(low) - 2, lowest_pitch + int(high) + 2)
        axis.set_title(title, loc="left")
    if prime_frames:
        axes[-1].axvline(prime_frames / frame_rate, color=ACCENT, label="end of the prime")
        axes[-1].legend(loc="upper right", fontsize="small")
    axes[-1].set_xlabel("time (s)")
    return figure


def _pitch_axis(axis: Axes, low: int, high: int) -> None:
    axis.set_ylim(low, high)
    ticks = [pitch for pitch in range(low, high + 1) if pitch % 12 == 0]
    axis.set_yticks(ticks, [note_name(pitch) for pitch in ticks])
    for pitch in ticks:  # between B and C, where it crosses no note
        axis.axhline(pitch - 0.5, color="0.8", linewidth=0.6)
    axis.set_ylabel("pitch")


def curves(runs: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Validation log-likelihood, training loss and, with Gaussian latents, the KL over the epochs.

    Args:
        runs: name of each run and the rows of its `metrics.csv`.
    """
    latent = any("kl" in row for rows in runs.values() for row in rows)
    figure = Figure(figsize=(13 if latent else 9, 3.4), layout="constrained")
    left, right, *third = figure.subplots(1, 3 if latent else 2)
    for name, rows in runs.items():
        scored = [row for row in rows if "valid_log_likelihood" in row]
        left.plot(
            [row["epoch"] for row in scored],
            [row["valid_log_likelihood"] for row in scored],
            marker="o",
            markersize=3,
            label=name,
        )
        right.plot([row["epoch"] for row in rows], [row["train_loss"] for row in rows], label=name)
        kl = [row for row in rows if "kl" in row]
        for axis in third if kl else ():
            epochs = [row["epoch"] for row in kl]
            axis.plot(epochs, [row["kl"] for row in kl], label=f"{name}: KL, nats a frame")
            weights = [row["kl_weight"] for row in kl]
            axis.plot(epochs, weights, linestyle="--", label=f"{name}: its weight")
    left.set(xlabel="epoch", ylabel="nats a frame", title="Validation log-likelihood")
    right.set(xlabel="epoch", ylabel="loss", title="Training loss (contrastive: no likelihood)")
    for axis in third:
        axis.set(xlabel="epoch", title="Divergence of posterior from prior")
    for axis in (left, right, *third):
        axis.grid(color="0.9", linewidth=0.6)
        axis.legend()
    return figure


def activations(features: np.ndarray, roll: np.ndarray, frame_rate: float, what: str) -> Figure:
    """Hidden activations over time under the frames that caused them.

    Args:
        features: `(frames, hidden)`.
        roll: `(frames, keys)`.
        frame_rate: frames a second.
        what: name of the activations.
    """
    figure = Figure(figsize=(9, 6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
    span = (0, len(roll) / frame_rate)
    top.imshow(
        roll.T,
        origin="lower",
        aspect="auto",
        cmap="Blues",
        interpolation="nearest",
        extent=(*span, 0, roll.shape[1]),
    )
    top.set(ylabel="key", title="Frames")
    # Units in the order of their mean; a scale that a few large values do not empty.
    ordered = features[:, np.argsort(features.mean(axis=0))]
    bound = float(np.quantile(np.abs(ordered), 0.995)) or 1.0
    image = bottom.imshow(
        ordered.T,
        origin="lower",
        aspect="auto",
        cmap="RdBu_r",
        vmin=-bound,
        vmax=bound,
        interpolation="nearest",
        extent=(*span, 0, features.shape[1]),
    )
    bottom.set(xlabel="time (s)", ylabel="hidden unit, by its mean", title=what)
    figure.colorbar(image, ax=bottom, extend="both")
    return figure
