"""`cgrnn prepare`: music and audio in, a data set in HDF5 out.

Each source is a module of `cgrnn.cli.sources` with its options (`add`) and what it does (`run`).
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from cgrnn.cli.parsing import Parser, make

SOURCES = {
    "chorales": "Bach's four-part chorales, bundled with music21: no download",
    "pianorolls": "one of the standard sets, a .mat or a .npz file, its own splits kept",
    "midi": "files, folders and archives of MIDI files",
    "lakh": "the Lakh MIDI set as in the paper, split by song",
    "audio": "recordings, as frames of samples",
    "idmt": "IDMT-SMT-Audio-Effects, split by clean note, with labels",
    "effects": "notes through twelve effects, a folder for `prepare idmt` to read",
    "notes": "MIDI files as sequences of notes and chords, for models of windows",
    "vectors": "a text as sequences of word vectors of word2vec or GloVe",
}


def parser(argv: Sequence[str]) -> Parser:
    """The parser for the source that comes first."""
    source = argv[0] if argv and not argv[0].startswith("-") else None
    if source is None and not {"-h", "--help"} & set(argv):
        raise ValueError(f"name the source first: cgrnn prepare {'|'.join(SOURCES)} …")
    if source is not None and source not in SOURCES:
        raise ValueError(f"unknown source {source!r}; known: {', '.join(SOURCES)}")
    lines = "; ".join(f"{name}: {text}" for name, text in SOURCES.items())
    result = make("prepare", SOURCES[source] if source else lines)
    result.add("source", kind=str, help=f"one of {', '.join(SOURCES)}")
    if source is not None:
        _module(source).add(result)
    result.add("-o", "--output", kind=str, required=True, help="what to make")
    return result


def _module(source: str) -> Any:
    return importlib.import_module(f"cgrnn.cli.sources.{source}")


def run(options: Any) -> dict[str, Any]:
    """Prepare the data set; return what `prepare --json` prints."""
    result: dict[str, Any] = _module(options.source).run(options)
    return result


def render(result: dict[str, Any]) -> str:
    """What a person reads: what was made and each file left out, with its reason."""
    skipped = result["files_skipped"]
    lines = [
        f"{result['files_read']} of {result['files_found']} files read, {len(skipped)} skipped",
        *(f"  skipped {item['path']}: {item['reason']}" for item in skipped),
        *(
            f"{split}: {count} sequences, {result['frames'][split]} frames"
            for split, count in result["sequences"].items()
        ),
        f"wrote {result['output']}",
    ]
    return "\n".join(lines) + "\n"
