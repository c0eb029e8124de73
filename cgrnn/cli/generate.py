"""`cgrnn generate`: new music from a trained model, as MIDI or WAV files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cgrnn.cli.parsing import Parser, make
from cgrnn.cli.runs import SWEEPS_HELP, make_folder, normalisation, playback
from cgrnn.settings import AT_LEAST_ONE

if TYPE_CHECKING:
    import numpy as np

    from cgrnn.checkpoint import Run


def parser(argv: Sequence[str]) -> Parser:
    result = make(
        "generate",
        "Draw music from silence or on from a prime; write MIDI files, or WAV for audio.",
    )
    result.add("run_directory", kind=str, metavar="RUN", help="run directory")
    result.add("-o", "--output", kind=str, required=True, help="folder for the files")
    result.add(
        "--frames", kind=int, default=64, help="frames to add to each piece", limit=AT_LEAST_ONE
    )
    result.add("--count", kind=int, default=4, help="pieces to draw", limit=AT_LEAST_ONE)
    result.add("--prime", kind=str, help="MIDI or audio file to go on from")
    result.add(
        "--prime-frames",
        kind=int,
        default=16,
        help="frames of the prime to keep, at the most",
        limit=AT_LEAST_ONE,
    )
    result.add("--sweeps", kind=int, default=200, help=SWEEPS_HELP, limit=AT_LEAST_ONE)
    return result


def run(options: Any) -> dict[str, Any]:
    """Draw the pieces; return what `generate --json` prints."""
    import torch

    from cgrnn.checkpoint import open_run

    trained = open_run(options.run_directory)
    model = trained.model
    model.sweeps = options.sweeps
    kind = {"binary": _rolls, "continuous": _audio, "notes": _notes}[model.visible](trained)
    prime = None
    if options.prime:
        prime = torch.from_numpy(kind.read(options.prime)[: options.prime_frames]).float()
    folder = make_folder(options.output)
    generator = torch.Generator().manual_seed(options.seed)
    files = []
    for number, frames in enumerate(
        model.generate(options.frames, options.count, prime, generator).numpy()
    ):
        file = folder / f"{model.name}-{options.seed}-{number}{kind.suffix}"
        kind.write(file, frames)
        files.append(str(file))
    return {"files": files}


class _Kind(NamedTuple):
    """How frames are read from a file and written to one."""

    suffix: str
    read: Callable[[str], np.ndarray]
    write: Callable[[Path, np.ndarray], None]


def _rolls(trained: Run) -> _Kind:
    from data_prep.midi import read_roll, write_midi

    sound = playback(trained)
    highest = sound["lowest_pitch"] + trained.model.visible_dim - 1
    return _Kind(
        ".mid",
        lambda path: read_roll(path, **sound, highest_pitch=highest),
        lambda path, frames: write_midi(path, frames.astype("uint8"), **sound),
    )


def _notes(trained: Run) -> _Kind:
    from data_prep.notes import read_classes, write_midi

    vocabulary = trained.data["vocabulary"]
    return _Kind(
        ".mid",
        lambda path: read_classes(path, vocabulary),
        lambda path, frames: write_midi(path, frames, vocabulary),
    )


def _audio(trained: Run) -> _Kind:
    from data_prep.audio import read_audio, write_wav

    if "sample_rate" not in trained.data:
        raise ValueError(f"{trained.data['path']}: has no sample_rate, its frames are not audio")
    rate, size = int(trained.data["sample_rate"]), trained.model.visible_dim
    mean, std = normalisation(trained.data)
    return _Kind(
        ".wav",
        lambda path: (read_audio(path, rate, 0, size) - mean) / std,
        lambda path, frames: write_wav(path, frames * std + mean, rate),
    )


def render(result: dict[str, Any]) -> str:
    return "".join(f"wrote {file}\n" for file in result["files"])
