"""`cgrnn generate`: new music from a trained model, as MIDI files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cgrnn.cli.parsing import Parser, make
from cgrnn.cli.runs import SWEEPS_HELP, make_folder, playback
from cgrnn.settings import AT_LEAST_ONE


def parser(argv: Sequence[str]) -> Parser:
    result = make("generate", "Draw music from silence or on from a prime; write MIDI files.")
    result.add("run_directory", kind=str, metavar="RUN", help="run directory")
    result.add("-o", "--output", kind=str, required=True, help="folder for the files")
    result.add(
        "--frames", kind=int, default=64, help="frames to add to each piece", limit=AT_LEAST_ONE
    )
    result.add("--count", kind=int, default=4, help="pieces to draw", limit=AT_LEAST_ONE)
    result.add("--prime", kind=str, help="MIDI file to go on from")
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
    from data_prep.midi import read_roll, write_midi

    trained = open_run(options.run_directory)
    sound, model = playback(trained), trained.model
    model.sweeps = options.sweeps
    prime = None
    if options.prime:
        highest = sound["lowest_pitch"] + model.visible_dim - 1
        roll = read_roll(options.prime, **sound, highest_pitch=highest)
        prime = torch.from_numpy(roll[: options.prime_frames]).float()
    folder = make_folder(options.output)
    generator = torch.Generator().manual_seed(options.seed)
    rolls = model.generate(options.frames, options.count, prime, generator)
    files = []
    for number, roll in enumerate(rolls.numpy()):
        file = folder / f"{model.name}-{options.seed}-{number}.mid"
        write_midi(file, roll.astype("uint8"), **sound)
        files.append(str(file))
    return {"files": files}


def render(result: dict[str, Any]) -> str:
    return "".join(f"wrote {file}\n" for file in result["files"])
