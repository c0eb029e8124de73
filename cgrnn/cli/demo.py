"""`cgrnn demo`: Bach chorales from data to music, with the commands a user would type."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cgrnn.cli as cli
from cgrnn.cli.evaluate import table
from cgrnn.cli.parsing import Parser, make
from cgrnn.cli.runs import make_folder
from cgrnn.settings import POSITIVE

# Shares of the minutes; the rest goes to evaluation, figures and start-up.
TRAINING = {"cgrnn": 0.6, "rnn": 0.15}
PRIME_FRAMES = 16


def parser(argv: Sequence[str]) -> Parser:
    result = make(
        "demo",
        "Prepare real Bach chorales, train CGRNN and a plain RNN for some minutes, score both on "
        "chorales they have not heard, and write music and figures. It shows every command it "
        "runs. Called again, it goes on where it stopped.",
    )
    result.add("-o", "--output", kind=str, default="demo", help="folder to write")
    result.add(
        "--minutes",
        kind=float,
        default=8.0,
        help="minutes it may take on two cores, about",
        limit=POSITIVE,
    )
    return result


def run(options: Any) -> dict[str, Any]:
    """Run the commands; return the evaluations and what was written."""
    folder, seed = make_folder(options.output), str(options.seed)
    data = folder / "chorales.h5"
    if not data.is_file():
        _call("prepare", "chorales", "-o", str(data), "--seed", seed)
    results = []
    for model, share in TRAINING.items():
        out = str(folder / model)
        begun = (folder / model / "config.yaml").is_file()
        _call(
            "train",
            "--model",
            model,
            "--data",
            str(data),
            "-o",
            out,
            "--seed",
            seed,
            "--max-minutes",
            f"{share * options.minutes:.2f}",
            *(["--resume"] if begun else []),
        )
        results.append(_call("evaluate", out, "--stderr", "0.05", "--seed", seed))
    run_folder, music = str(folder / "cgrnn"), str(folder / "music")
    prime = _prime(folder, data)
    _call("generate", run_folder, "-o", music, "--count", "3", "--seed", seed)
    _call(
        "generate",
        run_folder,
        "-o",
        str(folder / "continued"),
        "--prime",
        str(prime),
        "--prime-frames",
        str(PRIME_FRAMES),
        "--frames",
        "48",
        "--count",
        "3",
        "--seed",
        seed,
    )
    for kind in ("pianoroll", "curves", "activations"):
        _call("plot", kind, run_folder, "--seed", seed)
    return {"evaluations": results, "files": _written(folder)}


def _call(*argv: str) -> dict[str, Any]:
    """Run a command as the shell would; return its JSON."""
    cli.say(f"\n$ cgrnn {' '.join(argv)}")
    result: dict[str, Any] = json.loads(cli.run([*argv, "--json"]))
    return result


def _prime(folder: Path, data: Path) -> Path:
    """The opening of a test chorale, to go on from."""
    from data_prep import store
    from data_prep.midi import write_midi

    opened = store.read(data, "test")
    roll = opened.splits["test"].sequence(0)[:PRIME_FRAMES]
    file = folder / "opening.mid"
    write_midi(
        file, roll, float(opened.attributes["frame_rate"]), int(opened.attributes["lowest_pitch"])
    )
    return file


def _written(folder: Path) -> dict[str, str]:
    described = {
        "chorales.h5": "the data set: piano-rolls of four-part chorales, a frame a quarter note",
        "cgrnn": "the run of CGRNN: config.yaml, checkpoints, metrics.csv, evaluation.json",
        "rnn": "the run of the plain RNN, the same",
        "music": "chorales that CGRNN made up from silence, as MIDI",
        "opening.mid": "the first four bars of a test chorale",
        "continued": "three ways in which CGRNN goes on from that opening",
        "cgrnn/figures/pianoroll.png": "a test chorale, CGRNN's predictions one frame ahead, and "
        "its continuation of the first half",
        "cgrnn/figures/curves.png": "validation likelihood and training loss over the epochs",
        "cgrnn/figures/activations.png": "what the hidden units do while that chorale is played",
    }
    return {str(folder / name): text for name, text in described.items()}


def render(result: dict[str, Any]) -> str:
    """One table, the warnings, and a sentence on each thing written."""
    found = result["evaluations"]
    lines = [
        f"\nTest split: {found[0]['sequences']} chorales, {found[0]['frames']} frames. "
        f"Log-likelihood in {found[0]['log_likelihood']['unit']}, higher is better.",
        table(found).rstrip(),
        *(f"WARNING: {text}" for one in found for text in one["log_likelihood"]["warnings"]),
        "This is a small demonstration, trained for minutes: the same command with more time, "
        "`cgrnn train`, goes further.",
        "",
        "Written:",
        *(f"  {file}: {text}" for file, text in result["files"].items()),
    ]
    return "\n".join(lines) + "\n"
