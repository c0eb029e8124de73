"""`cgrnn prepare pianorolls`."""

from __future__ import annotations

from typing import Any

from cgrnn.cli.parsing import Parser


def add(parser: Parser) -> None:
    """Add the options of this source."""
    parser.add("path", kind=str, help="the .mat or .npz file")


def run(options: Any) -> dict[str, Any]:
    """Write the set with its own splits."""
    from data_prep.pianorolls import prepare_pianorolls

    return prepare_pianorolls(options.path, options.output)
