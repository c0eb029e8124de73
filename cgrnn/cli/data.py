"""`cgrnn data`: look at a data set, listen to it, join several.

Each action is a pair of functions: its options, and what it does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from cgrnn.cli.parsing import Parser, make
from cgrnn.settings import NOT_NEGATIVE

ACTIONS = {
    "info": "what a data set holds, in numbers, and whether its test is honest",
    "listen": "a sequence of a data set as a MIDI or WAV file",
    "merge": "join data sets of one kind, width and rate into one, each keeping its splits",
}
_ROWS, _EIGHTHS = 4, " ▁▂▃▄▅▆▇█"


def parser(argv: Sequence[str]) -> Parser:
    """The parser for the action that comes first."""
    action = argv[0] if argv and not argv[0].startswith("-") else None
    if action is None and not {"-h", "--help"} & set(argv):
        raise ValueError(f"name the action first: cgrnn data {'|'.join(ACTIONS)} …")
    if action is not None and action not in ACTIONS:
        raise ValueError(f"unknown action {action!r}; known: {', '.join(ACTIONS)}")
    lines = "; ".join(f"{name}: {text}" for name, text in ACTIONS.items())
    result = make("data", ACTIONS[action] if action else lines, seed=False)
    result.add("action", kind=str, help=f"one of {', '.join(ACTIONS)}")
    if action == "merge":
        result.add("paths", kind=str, nargs="+", metavar="DATA", help="data sets, two or more")
    elif action is not None:
        result.add("path", kind=str, metavar="DATA", help="data set")
    if action == "listen":
        _add_sequence(result)
    if action in ("listen", "merge"):
        result.add("-o", "--output", kind=str, required=True, help="file to write")
    return result


def _add_sequence(parser: Parser) -> None:
    parser.add(
        "--index", kind=int, default=0, help="which sequence of the split, from 0",
        limit=NOT_NEGATIVE,
    )  # fmt: skip
    parser.add(
        "--split", kind=Literal["train", "valid", "test"], default="test", help="of which split"
    )


def run(options: Any) -> dict[str, Any]:
    """Do it; return what `data --json` prints."""
    if options.action == "merge":
        from data_prep.merging import merge

        return merge(options.paths, options.output)
    from data_prep import inspection

    if options.action == "info":
        return inspection.info(options.path)
    return inspection.listen(options.path, options.output, options.index, options.split)


def render(result: dict[str, Any]) -> str:
    """What a person reads."""
    if "attributes" in result:
        lines = _info(result)
    elif "dropped" in result:
        lines = [
            *(
                f"{split}: {count} sequences, {result['frames'][split]} frames"
                + (
                    f" ({n} dropped: also in a later split)"
                    if (n := result["dropped"][split])
                    else ""
                )
                for split, count in result["sequences"].items()
            ),
            f"wrote {result['output']}",
        ]
    else:
        lines = [
            f"{result['source']}: {result['frames']} frames, {result['seconds']:.1f} s",
            *(f"wrote {file}" for file in result["files"]),
        ]
    return "\n".join(lines) + "\n"


def _info(result: dict[str, Any]) -> list[str]:
    lines = [result["file"], f"  frames {result['visible']} wide"]
    lines += [f"  {name} {value}" for name, value in sorted(result["attributes"].items())]
    pitches: dict[int, int] = {}
    for name, split in result["splits"].items():
        lines += _split(name, split)
        for pitch, count in split.get("pitches", {}).items():
            pitches[int(pitch)] = pitches.get(int(pitch), 0) + count
    if pitches:
        lines += [f"pitches {min(pitches)} to {max(pitches)}, frames in which each sounds:"]
        lines += ["  " + row for row in _bars(pitches)]
    return lines + [f"warning: {line}" for line in result["warnings"]]


def _split(name: str, split: dict[str, Any]) -> list[str]:
    if not split["sequences"]:
        return [f"{name}: empty"]
    length = split["lengths"]
    said = {
        "notes_per_frame": "{:.2f} notes a frame",
        "rms": "RMS {:.4f}",
        "peak": "peak {:.3f}",
        "silent_frames": "{:.1%} of frames silent",
        "unknown": "{:.1%} not in the vocabulary",
        "repeated": "{} repeated sequences",
    }
    return [
        f"{name}: {split['sequences']} sequences, {split['frames']} frames, lengths"
        f" {length['min']} to {length['max']}, median {length['median']:g}",
        "  " + ", ".join(text.format(split[key]) for key, text in said.items() if key in split),
        *(
            f"  {label}: "
            + ", ".join(f"{value} {count}" for value, count in sorted(counts.items()))
            for label, counts in split["labels"].items()
        ),
    ]


def _bars(counts: dict[int, int]) -> list[str]:
    """A column for each pitch, the highest of full height, over the names of the Cs.

    >>> print(*_bars({60: 8, 62: 4, 63: 1}), sep="|")
    █   |█   |█ █ |█ █▄|C4
    """
    low, high = min(counts), max(counts)
    scale = _ROWS * 8 / max(counts.values())
    heights = [max(round(counts.get(p, 0) * scale), p in counts) for p in range(low, high + 1)]
    rows = [
        "".join(_EIGHTHS[min(max(height - 8 * row, 0), 8)] for height in heights)
        for row in reversed(range(_ROWS))
    ]
    names = [f"{f'C{p // 12 - 1}':<12}" for p in range(low + -low % 12, high + 1, 12)]
    return [*rows, (" " * (-low % 12) + "".join(names)).rstrip()]
