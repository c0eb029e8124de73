"""`cgrnn prepare notes`."""

from __future__ import annotations

from typing import Any

from cgrnn.cli import say
from cgrnn.cli.parsing import Parser
from cgrnn.cli.progress import bar


def add(parser: Parser) -> None:
    """Add the options of this source."""
    parser.add("paths", kind=str, nargs="+", help="MIDI files, folders and archives")


def run(options: Any) -> dict[str, Any]:
    """Write the note sequences."""
    from data_prep.notes import prepare_notes

    with bar("file") as progress:
        result = prepare_notes(options.paths, options.output, options.seed, progress)
    shares = ", ".join(f"{share:.1%} of {name}" for name, share in result["unknown"].items())
    say(f"{result['classes']} classes of notes and chords; unknown: {shares}")
    return result
