"""`cgrnn generate`: new music from a trained model, as MIDI or WAV files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgrnn.cli import say
from cgrnn.cli.parsing import Parser, add_options, make
from cgrnn.cli.playing import KINDS, PlayingOptions
from cgrnn.cli.runs import SWEEPS_HELP, make_folder, read_data
from cgrnn.settings import AT_LEAST_ONE, POSITIVE

if TYPE_CHECKING:
    from cgrnn.checkpoint import Run
    from data_prep.store import Dataset

LABELS = {
    "mean_notes": "notes in a frame",
    "mean_pitch": "mean pitch (MIDI)",
    "pitch_range": "range of a piece (semitones)",
    "silence": "silent share",
    "onsets": "share of frames with an onset",
    "mean_duration": "frames of a note",
    "repetition": "repeated patterns of 4 frames",
    "rms": "level (rms)",
    "peak": "peak of a piece",
    "centroid": "spectral centroid (Hz)",
    "notes_per_frame": "notes in a frame (bits)",
    "pitch_class": "pitch classes (bits)",
    "melodic_interval": "steps of the top voice (bits)",
    "harmonic_interval": "intervals of chords (bits)",
    "duration": "durations (bits)",
}


def parser(argv: Sequence[str]) -> Parser:
    result = make(
        "generate",
        "Draw music from silence or on from a prime; write MIDI files, or WAV for audio. What it "
        "is like, beside the training set, goes to statistics.json.",
    )
    result.add("run_directory", kind=str, metavar="RUN", help="run directory")
    result.add("-o", "--output", kind=str, required=True, help="folder for the files")
    result.add(
        "--frames", kind=int, default=64, help="frames to add to each piece", limit=AT_LEAST_ONE
    )
    bars = "the same in bars of the prime, or of 4/4 at 120"
    result.add("--bars", kind=int | None, help=bars, limit=AT_LEAST_ONE)
    result.add("--count", kind=int, default=4, help="pieces to draw", limit=AT_LEAST_ONE)
    result.add("--prime", kind=str, help="MIDI or audio file to go on from")
    result.add(
        "--prime-frames",
        kind=int,
        default=16,
        help="frames of the prime to keep, at the most",
        limit=AT_LEAST_ONE,
    )
    result.add("--prime-bars", kind=int | None, help="the same in bars", limit=AT_LEAST_ONE)
    result.add("--sweeps", kind=int, default=200, help=SWEEPS_HELP, limit=AT_LEAST_ONE)
    result.add(
        "--temperature",
        kind=float,
        default=1.0,
        help="of the frames' density: below 1 likelier frames, above 1 wilder ones",
        limit=POSITIVE,
    )
    result.add("--data", kind=str, help="data set to compare with; default: that of the run")
    add_options(result, PlayingOptions)
    given = {word.partition("=")[0] for word in argv}
    for frames in ("--frames", "--prime-frames"):
        if {frames, frames.replace("frames", "bars")} <= given:
            raise ValueError(f"{frames}: the number of bars is given too; leave out one of them")
    return result


def run(options: Any) -> dict[str, Any]:
    """Draw the pieces; return what `generate --json` prints."""
    import torch

    from cgrnn.checkpoint import open_run

    trained = open_run(options.run_directory)
    model = trained.model
    model.sweeps, model.temperature = options.sweeps, options.temperature
    kind = KINDS[model.visible](trained, options)
    frames = options.frames if options.bars is None else kind.bars(options.bars)
    prime = torch.from_numpy(kind.prime()).float() if options.prime else None
    data = _data(trained, options.data)
    folder = make_folder(options.output)
    generator = torch.Generator().manual_seed(options.seed)
    files: list[Path] = []
    pieces = list(model.generate(frames, options.count, prime, generator).numpy())
    for number, piece in enumerate(pieces):
        files += kind.write(folder / f"{model.name}-{options.seed}-{number}", piece)
    made = [piece[0 if prime is None else len(prime) :] for piece in pieces]
    statistics = kind.statistics(made, data)
    if statistics:
        _write_json(folder / "statistics.json", statistics)
    return {"files": [str(file) for file in files], "statistics": statistics}


def _data(trained: Run, path: str | None) -> Dataset | None:
    """What to compare with; None where the data set of the run is gone."""
    try:
        return read_data(trained, path, "train", others=True)
    except (OSError, ValueError) as error:
        if path:
            raise
        say(f"note: nothing to compare the music with: {error}")
        return None


def _write_json(path: Path, content: dict[str, Any]) -> None:
    from data_prep.store import replacing

    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content) + "\n")


def render(result: dict[str, Any]) -> str:
    lines = [f"wrote {file}" for file in result["files"]]
    rows = music_table(result["statistics"])
    if rows:
        lines += [
            "",
            *(f"{label:<31}" + "".join(f"{c:>11}" for c in cells) for label, *cells in rows),
        ]
        lines.append(
            "usual: the distance of as much real music, drawn at random, from the training set"
        )
        for name, share in result["statistics"].get("copied", {}).items():
            found = _number(share)
            lines.append(f"{found} of the {name} patterns of 8 frames are in the training set")
    return "\n".join(lines) + "\n"


def music_table(statistics: dict[str, Any] | None) -> list[list[str]]:
    """The statistics in rows, heads first; none where there is nothing to compare with."""
    if not statistics or "training" not in statistics:
        return []
    made, known = statistics["generated"]["scalars"], statistics["training"]["scalars"]
    rows = [["", "generated", "training", "distance", "usual"]]
    for name, label in LABELS.items():
        if name in statistics["distances"]:
            usual = statistics["usual_distances"][name]
            found = made.get(name, ""), known.get(name, ""), statistics["distances"][name], usual
            rows.append([label, *map(_number, found)])
    return rows


def _number(value: Any) -> str:
    return "–" if value is None else value if isinstance(value, str) else f"{value:.3g}"
