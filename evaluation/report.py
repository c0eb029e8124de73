"""A page of runs that stands by itself: one HTML file, nothing fetched, nothing run."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evaluation.comparison import Table
from evaluation.table_formats import legend

TEMPLATE = "report.html"
MEDIA = {".png": "image/png", ".wav": "audio/wav", ".mid": "audio/midi"}
LARGE_SOUND = 200_000  # bytes


@dataclass(frozen=True)
class Picture:
    """A figure of the page.

    Attributes:
        file: PNG.
        title: what stands above it.
        text: what it shows, for readers who see it and for those who do not.
        command: what made it.
    """

    file: Path
    title: str
    text: str
    command: str


@dataclass(frozen=True)
class Piece:
    """Something to hear.

    Attributes:
        title: what it is.
        sound: WAV file.
        score: MIDI file to take away, if it is one.
    """

    title: str
    sound: Path
    score: Path | None = None


@dataclass(frozen=True)
class Figures:
    """A small table of names and values: each row one more value than heads, its name first."""

    title: str
    heads: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Section:
    """A data set, or a run.

    Attributes:
        title: its heading.
        anchor: its name in links.
        facts: names and values that describe it.
        pictures: its figures.
        pieces: what there is to hear.
        heard: the commands that made the pieces.
        tables: figures in numbers.
        missing: what was not drawn, and why.
        sections: those within it.
    """

    title: str
    anchor: str
    facts: list[tuple[str, str]] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    tables: list[Figures] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)


def page(title: str, table: Table, sections: Sequence[Section], made: Sequence[str]) -> str:
    """The page as HTML, its pictures, sounds and scores within it.

    Args:
        title: heading of the page.
        table: the runs beside each other.
        sections: a data set each, with its runs.
        made: how the page was made: command, date, versions.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data"] = data_address
    return environment.get_template(TEMPLATE).render(
        title=title, table=table, legend=legend(table, "Bold"), sections=sections, made=made
    )


def data_address(file: Path) -> str:
    """A file as a `data:` address, which needs no other file.

    Sound of more than some seconds goes in as MP3: an eighth of the size, and every browser
    plays it.
    """
    content, kind = file.read_bytes(), MEDIA[file.suffix]
    if file.suffix == ".wav" and len(content) > LARGE_SOUND:
        content, kind = _compressed(file), "audio/mpeg"
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _compressed(sound: Path) -> bytes:
    import soundfile

    samples, rate = soundfile.read(sound)
    packed = io.BytesIO()
    soundfile.write(packed, samples, rate, format="MP3")
    return packed.getvalue()
