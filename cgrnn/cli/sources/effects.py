"""`cgrnn prepare effects`."""

from __future__ import annotations

from typing import Any

from cgrnn.cli import say
from cgrnn.cli.parsing import Parser
from cgrnn.cli.progress import bar


def add(parser: Parser) -> None:
    """Add the options of this source."""
    parser.add(
        "--notes",
        kind=str,
        nargs="+",
        default=None,
        help="recordings of dry notes: files, folders and archives; none: strings plucked here",
    )


def run(options: Any) -> dict[str, Any]:
    """Write the folder of recordings."""
    from data_prep.effects_set import prepare_effects

    with bar("note") as progress:
        result = prepare_effects(
            options.output, options.notes, seed=options.seed, progress=progress
        )
    say(f"{result['files_written']} recordings; read them with `cgrnn prepare idmt`")
    return result
