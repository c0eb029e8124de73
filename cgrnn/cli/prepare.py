"""`cgrnn prepare`: music in, a data set in HDF5 out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from cgrnn.cli.parsing import Parser, make
from cgrnn.cli.progress import bar
from cgrnn.settings import NOT_NEGATIVE, POSITIVE, Limit

KINDS = {
    "chorales": "Bach's four-part chorales, bundled with music21: no download",
    "pianorolls": "one of the standard sets, a .mat or a .npz file, its own splits kept",
    "midi": "files and folders of MIDI files",
}


def parser(argv: Sequence[str]) -> Parser:
    """The parser for the kind of source that comes first."""
    kind = argv[0] if argv and not argv[0].startswith("-") else None
    if kind is None and not {"-h", "--help"} & set(argv):
        raise ValueError(f"name the source first: cgrnn prepare {'|'.join(KINDS)} …")
    if kind is not None and kind not in KINDS:
        raise ValueError(f"unknown source {kind!r}; known: {', '.join(KINDS)}")
    lines = "; ".join(f"{name}: {text}" for name, text in KINDS.items())
    result = make("prepare", KINDS[kind] if kind else lines)
    result.add("kind", kind=str, help=f"one of {', '.join(KINDS)}")
    if kind == "pianorolls":
        result.add("path", kind=str, help="the .mat or .npz file")
    if kind == "midi":
        _add_midi(result)
    if kind == "chorales":
        result.add(
            "--grid", kind=Literal["quarter", "eighth"], default="quarter", help="a frame's length"
        )
    result.add("-o", "--output", kind=str, required=True, help="HDF5 file to write")
    return result


def _add_midi(result: Parser) -> None:
    pitch = Limit("0 to 127", lambda x: 0 <= x < 128)
    result.add("paths", kind=str, nargs="+", help="files and folders")
    result.add("--frame-rate", kind=float, default=4.0, help="frames a second", limit=POSITIVE)
    result.add("--lowest-pitch", kind=int, default=21, help="MIDI note of key 0", limit=pitch)
    result.add(
        "--highest-pitch", kind=int, default=108, help="MIDI note of the last key", limit=pitch
    )
    result.add(
        "--segment-seconds",
        kind=float,
        default=60.0,
        help="pieces are cut so long, in seconds; 0: whole",
        limit=NOT_NEGATIVE,
    )


def run(options: Any) -> dict[str, Any]:
    """Prepare the data set; return what `prepare --json` prints."""
    result: dict[str, Any]
    if options.kind == "pianorolls":
        from data_prep.pianorolls import prepare_pianorolls

        result = prepare_pianorolls(options.path, options.output)
    elif options.kind == "chorales":
        from data_prep.chorales import prepare_chorales

        with bar("score") as progress:
            result = prepare_chorales(options.output, options.grid, options.seed, progress)
    else:
        from data_prep.midi import prepare_midi

        with bar("file") as progress:
            result = prepare_midi(
                options.paths,
                options.output,
                options.frame_rate,
                options.lowest_pitch,
                options.highest_pitch,
                options.segment_seconds,
                seed=options.seed,
                progress=progress,
            )
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
