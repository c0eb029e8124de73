"""Parsers that speak in one line, and options made from dataclasses."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentParser, Namespace

from cgrnn.settings import SEED, Limit

_KINDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    tuple[int, ...]: "whole numbers, as [400,400]",
}


class _Option(NamedTuple):
    flag: str
    kind: Any
    limit: Limit | None

    @property
    def expected(self) -> str:
        """What it takes, in words."""
        kinds = get_args(self.kind)
        if get_origin(self.kind) is Literal:
            return "one of " + ", ".join(kinds)
        kind = kinds[0] if type(None) in kinds else self.kind
        return _KINDS[kind] + (f", {self.limit.text}" if self.limit else "")


class Parser(ArgumentParser):
    """A parser whose complaints are one line, the same from the command line and from a file."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.added: dict[str, _Option] = {}
        self.base: Namespace | None = None

    def add(
        self, *flags: str, kind: Any, help: str, limit: Limit | None = None, **settings: Any
    ) -> None:
        """Add an argument of a kind, and within limits where it is a number."""
        dest = self.add_argument(*flags, type=kind, help=help, **settings).dest
        self.added[dest] = _Option(flags[-1], kind, limit)

    def take(self, file: Path, values: dict[str, Any]) -> None:
        """Let the values of a file stand where the command line says nothing; null says nothing.

        Raises:
            ValueError: for an unknown name or a wrong value; names the file.
        """
        for name in values:
            if name not in self.added:
                raise ValueError(f"{file}: no option {name!r}; see `{self.prog} --help`")
        given = {name: value for name, value in values.items() if value is not None}
        try:
            self.base = self._checked(self.parse_object(given))
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error

    def read(self, words: Sequence[str]) -> Namespace:
        """The options that a command line gives.

        Raises:
            ValueError: in one line, naming the option.
        """
        return self._checked(self.parse_args(list(words), self.base))

    def _checked(self, options: Namespace) -> Namespace:
        for name, option in self.added.items():
            value = options[name]
            numbers = value if isinstance(value, tuple) else () if value is None else (value,)
            if option.limit and not all(map(option.limit.holds, numbers)):
                self._refuse(name, value)
        return options

    def _refuse(self, name: str, value: Any) -> NoReturn:
        option = self.added[name]
        raise ValueError(f"{option.flag}: expected {option.expected}, got {value}")

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Called by jsonargparse, whose text names types of Python and runs over lines."""
        line = " ".join(message.split())
        wrong = re.match(r'Parser key "(\w+)".*?: .* value: (.*)', line)
        if wrong and wrong[1] in self.added:
            self._refuse(wrong[1], wrong[2])
        raise ValueError(f"{line}; see `{self.prog} --help`") from ex


def make(command: str, description: str, seed: bool = True) -> Parser:
    """A parser with the options that every command has."""
    parser = Parser(prog=f"cgrnn {command}", description=description)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    if seed:
        parser.add("--seed", kind=int, default=0, help="seed of all draws", limit=SEED)
    return parser


def add_options(parser: Parser, options: type) -> None:
    """Give the parser an option for each field of a dataclass of `cgrnn.settings`."""
    hints = get_type_hints(options)
    for field in dataclasses.fields(options):
        flag = "--" + field.name.replace("_", "-")
        parser.add(flag, kind=hints[field.name], default=field.default, **field.metadata)


def pick(values: Any, options: type) -> dict[str, Any]:
    """The fields of a dataclass of options out of parsed values."""
    return {field.name: values[field.name] for field in dataclasses.fields(options)}
