"""Parsers that speak in one line, and options made from dataclasses."""

from __future__ import annotations

import dataclasses
from typing import Any, NoReturn, get_type_hints

from jsonargparse import ArgumentParser


class Parser(ArgumentParser):
    """A parser whose complaints are one line, the same from the command line and from a file."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        line = " ".join(message.split())
        raise ValueError(f"{line}; see `{self.prog} --help`") from ex


def make(command: str, description: str, seed: bool = True) -> Parser:
    """A parser with the options that every command has."""
    parser = Parser(prog=f"cgrnn {command}", description=description)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    if seed:
        parser.add_argument("--seed", type=int, default=0, help="seed of all draws")
    return parser


def add_options(parser: Parser, options: type) -> None:
    """Give the parser an option for each field of a dataclass of `cgrnn.settings`."""
    hints = get_type_hints(options)
    for field in dataclasses.fields(options):
        flag = "--" + field.name.replace("_", "-")
        parser.add_argument(
            flag, type=hints[field.name], default=field.default, help=field.metadata["help"]
        )


def pick(values: Any, options: type) -> dict[str, Any]:
    """The fields of a dataclass of options out of parsed values."""
    return {field.name: values[field.name] for field in dataclasses.fields(options)}
