"""Figures out of what runs have written: metrics, evaluations, statistics of music."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgrnn.cli.runs import folder_of, normalisation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Named = Sequence[tuple[str, str]]
"""A short name for each run, and the run."""

PANELS = {
    "notes_per_frame": ("Notes in a frame", "notes"),
    "pitch_class": ("Pitch classes", "pitch class"),
    "melodic_interval": ("Steps of the top voice", "semitones"),
    "harmonic_interval": ("Intervals of chords, without octaves", "semitones"),
    "duration": ("Length of notes", "frames"),
}


def curves(named: Named) -> Figure:
    """Validation likelihood and loss, from `metrics.csv`."""
    from cgrnn import checkpoint, units
    from cgrnn.models import MODELS
    from evaluation import figures

    rows, losses, seen = {}, {}, set()
    for name, path in named:
        folder = folder_of(path)
        rows[name] = _metrics(folder)
        head = checkpoint.read(checkpoint.find(folder))["cgrnn"]
        losses[name] = figures.LOSSES[MODELS[head["model"]]().likelihood_kind]
        seen.add(units.frame(*normalisation(head["data"])))
    return figures.curves(rows, losses, " or ".join(sorted(seen)))


def _metrics(folder: Path) -> list[dict[str, float]]:
    file = folder / "metrics.csv"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no training metrics; is {folder} a run directory?")
    try:
        with file.open(newline="") as lines:
            return [
                {name: float(value) for name, value in row.items() if value}
                for row in csv.DictReader(lines)
            ]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file}: not the metrics of a run ({error}); train again") from error


def recursive(named: Named) -> Figure:
    """Accuracy k steps ahead, from `evaluation.json`."""
    from evaluation import figures

    steps, protocols, data = {}, {}, {}
    for name, path in named:
        file = folder_of(path) / "evaluation.json"
        found = _content(file)
        if "recursive" not in found:
            raise ValueError(f"{file}: has no recursive accuracies; run `cgrnn evaluate {path}`")
        steps[name] = found["recursive"]
        protocols[name] = found.get("accuracy") or found["rmse"]
        data[path] = found["data"]["fingerprint"], found["split"]
    first = named[0][1]
    for path, mark in data.items():
        if mark != data[first]:
            raise ValueError(f"{path}: evaluated on other data than {first}; plot them apart")
    return figures.recursive(steps, protocols)


def statistics(named: Named) -> Figure:
    """Histograms of generated music beside the training set's, from `statistics.json`."""
    from evaluation import figures
    from evaluation.figures.track import NOTES
    from evaluation.music import WIDEST

    series: dict[str, Any] = {}
    for name, path in named:
        file = folder_of(path) / "statistics.json"
        found = _content(file)
        if not found.get("training", {}).get("histograms"):
            raise ValueError(
                f"{file}: has no histograms of notes beside a training set's; let a model of "
                f"piano-rolls make music with `cgrnn generate RUN -o {path}`"
            )
        series["training set"] = found["training"]["histograms"]
        series[name] = found["generated"]["histograms"]
    titles = {kind: title for kind, (title, _) in PANELS.items()}
    return figures.histograms(
        {
            title: {name: counts[kind] for name, counts in series.items()}
            for kind, title in titles.items()
        },
        labels=dict(PANELS.values()),
        ticks={titles["pitch_class"]: list(NOTES)},
        firsts={titles["melodic_interval"]: -WIDEST},
    )


def _content(file: Path) -> dict[str, Any]:
    """A JSON file; nothing where there is none."""
    try:
        found: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    except ValueError as error:
        raise ValueError(f"{file}: damaged, not JSON; make it again") from error
    return found
