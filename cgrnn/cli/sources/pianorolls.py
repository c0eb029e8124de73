"""`cgrnn prepare pianorolls`."""

from __future__ import annotations

from typing import Any, Literal

from cgrnn.cli.parsing import Parser


def add(parser: Parser) -> None:
    """Add the options of this source."""
    parser.add("path", kind=str, help="the .mat or .npz file")
    parser.add(
        "--first-frame",
        kind=Literal["scored", "input"],
        default="scored",
        help="input: it is told and not scored, as in the SRNN's and the TCN's figures",
    )


def run(options: Any) -> dict[str, Any]:
    """Write the set with its own splits."""
    from data_prep.pianorolls import prepare_pianorolls

    return prepare_pianorolls(options.path, options.output, options.first_frame)
