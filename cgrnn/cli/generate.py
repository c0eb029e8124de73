"""`cgrnn generate`: new music from a trained model, as MIDI files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cgrnn.cli.parsing import Parser, make
from cgrnn.cli.runs import playback


def parser(argv: Sequence[str]) -> Parser:
    result = make("generate", "Draw music from silence or on from a prime; write MIDI files.")
    result.add_argument("run_directory", type=str, metavar="RUN", help="run directory")
    result.add_argument("-o", "--output", type=str, required=True, help="folder for the files")
    result.add_argument("--frames", type=int, default=64, help="frames to add to each piece")
    result.add_argument("--count", type=int, default=4, help="pieces to draw")
    result.add_argument("--prime", type=str, help="MIDI file to go on from")
    result.add_argument(
        "--prime-frames", type=int, default=16, help="frames of the prime to keep, at the most"
    )
    return result


def run(options: Any) -> dict[str, Any]:
    """Draw the pieces; return what `generate --json` prints."""
    for name in ("frames", "count", "prime_frames"):
        if options[name] < 1:
            raise ValueError(f"--{name.replace('_', '-')}: expected at least 1")
    import torch

    from cgrnn.checkpoint import open_run
    from data_prep.midi import read_roll, write_midi

    trained = open_run(options.run_directory)
    sound, model = playback(trained), trained.model
    prime = None
    if options.prime:
        highest = sound["lowest_pitch"] + model.visible_dim - 1
        roll = read_roll(options.prime, **sound, highest_pitch=highest)
        prime = torch.from_numpy(roll[: options.prime_frames]).float()
    generator = torch.Generator().manual_seed(options.seed)
    rolls = model.generate(options.frames, options.count, prime, generator)
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number, roll in enumerate(rolls.numpy()):
        file = folder / f"{model.name}-{options.seed}-{number}.mid"
        write_midi(file, roll.astype("uint8"), **sound)
        files.append(str(file))
    return {"files": files}


def render(result: dict[str, Any]) -> str:
    return "".join(f"wrote {file}\n" for file in result["files"])
