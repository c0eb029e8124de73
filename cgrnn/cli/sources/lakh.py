"""`cgrnn prepare lakh`."""

from __future__ import annotations

from typing import Any, Literal

from cgrnn.cli import say
from cgrnn.cli.parsing import Parser
from cgrnn.cli.progress import bar


def add(parser: Parser) -> None:
    """Add the options of this source."""
    parser.add("paths", kind=str, nargs="+", help="folder of Artist/Title.mid, or its archive")
    parser.add(
        "--split",
        kind=Literal["song", "segment"],
        default="song",
        help="deal out songs, or segments as the paper did: these leak from train to test",
    )


def run(options: Any) -> dict[str, Any]:
    """Write the piano-rolls."""
    from data_prep.lakh import prepare_lakh

    if options.split == "segment":
        say("split by segment, as in the paper: most songs tested on are trained on as well")
    with bar("file") as progress:
        return prepare_lakh(
            options.paths, options.output, options.split, options.seed, progress=progress
        )
