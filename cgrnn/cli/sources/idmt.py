"""`cgrnn prepare idmt`."""

from __future__ import annotations

from typing import Any

from cgrnn.cli import say
from cgrnn.cli.parsing import Parser
from cgrnn.cli.progress import bar
from cgrnn.cli.sources.audio import add_framing, framing


def add(parser: Parser) -> None:
    """Add the options of this source."""
    parser.add("paths", kind=str, nargs="+", help="folders and zips, as the set comes")
    parser.add("--effects", kind=str, default="all", help="classes to take, as Chorus,NoFX; or all")
    add_framing(parser)


def run(options: Any) -> dict[str, Any]:
    """Write the frames."""
    from data_prep.idmt import prepare_idmt

    with bar("file") as progress:
        result = prepare_idmt(
            options.paths,
            options.output,
            framing(options),
            [] if options.effects == "all" else options.effects.split(","),
            tuple(options.fractions),
            options.seed,
            progress,
        )
    if result["repeated"]:
        say(f"{result['repeated']} files are left out that repeat another")
    return result
