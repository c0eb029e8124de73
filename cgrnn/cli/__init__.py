"""The `cgrnn` command: one module a subcommand, loaded when it is called."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
from collections.abc import Sequence
from types import ModuleType

COMMANDS = {
    "prepare": "make a data set of MIDI files, audio, notes or words",
    "train": "train a model on a data set",
    "evaluate": "likelihood and accuracy of a trained model",
    "generate": "draw new music and write MIDI or WAV files",
    "compare": "evaluated runs in one table",
    "report": "a page of runs: table, figures, music",
    "plot": "figures of runs: piano-rolls, precision, energy, filters, …",
    "data": "look at data sets, listen to them, join them",
    "sweep": "train a model for each point of a grid of options",
    "demo": "Bach chorales from data to music in some minutes",
    "models": "list the models",
}


def usage() -> str:
    """Text of `cgrnn --help`."""
    lines = "\n".join(f"  {name:<10}{text}" for name, text in COMMANDS.items())
    return (
        "usage: cgrnn COMMAND …\n\nEnergy-based sequence models of music.\n\n"
        f"commands:\n{lines}\n\n`cgrnn COMMAND --help` says more. `cgrnn demo` is a good start.\n"
    )


def say(line: str) -> None:
    """A line for the person watching; standard output is kept for results."""
    print(line, file=sys.stderr, flush=True)


def run(argv: Sequence[str]) -> str:
    """Run a command and return what goes to standard output."""
    if not argv or argv[0] in ("-h", "--help"):
        return usage()
    if argv[0] == "--version":
        from cgrnn import __version__

        return f"cgrnn {__version__}\n"
    if argv[0] not in COMMANDS:
        raise ValueError(f"unknown command {argv[0]!r}; known: {', '.join(COMMANDS)}")
    command: ModuleType = importlib.import_module(f"cgrnn.cli.{argv[0]}")
    options = command.parser(argv[1:]).read(argv[1:])
    with contextlib.redirect_stdout(sys.stderr):
        result = command.run(options)
    if options.json:
        return json.dumps(result) + "\n"
    return str(command.render(result))


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: exit code 0, or 2 with one line that says what is wrong and what to do."""
    try:
        print(run(sys.argv[1:] if argv is None else argv), end="", flush=True)
    except (ValueError, OSError, ArithmeticError) as error:
        if os.environ.get("CGRNN_TRACEBACK"):
            raise
        print("cgrnn: " + " ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt as remedy:
        print(f"cgrnn: interrupted; {remedy}".removesuffix("; "), file=sys.stderr)
        return 130
    return 0
