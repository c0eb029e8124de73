"""`cgrnn prepare chorales`."""

from __future__ import annotations

from typing import Any, Literal

from cgrnn.cli.parsing import Parser
from cgrnn.cli.progress import bar


def add(parser: Parser) -> None:
    """Add the options of this source."""
    parser.add(
        "--grid", kind=Literal["quarter", "eighth"], default="quarter", help="a frame's length"
    )


def run(options: Any) -> dict[str, Any]:
    """Write the chorales."""
    from data_prep.chorales import prepare_chorales

    with bar("score") as progress:
        return prepare_chorales(options.output, options.grid, options.seed, progress)
