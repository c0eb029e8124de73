"""`cgrnn prepare midi`."""

from __future__ import annotations

from typing import Any

from cgrnn.cli.parsing import Parser
from cgrnn.cli.progress import bar
from cgrnn.settings import NOT_NEGATIVE, POSITIVE, Limit


def add(parser: Parser) -> None:
    """Add the options of this source."""
    pitch = Limit("0 to 127", lambda x: 0 <= x < 128)
    parser.add("paths", kind=str, nargs="+", help="files and folders")
    parser.add("--frame-rate", kind=float, default=4.0, help="frames a second", limit=POSITIVE)
    parser.add("--lowest-pitch", kind=int, default=21, help="MIDI note of key 0", limit=pitch)
    parser.add(
        "--highest-pitch", kind=int, default=108, help="MIDI note of the last key", limit=pitch
    )
    parser.add(
        "--segment-seconds",
        kind=float,
        default=60.0,
        help="pieces are cut so long, in seconds; 0: whole",
        limit=NOT_NEGATIVE,
    )


def run(options: Any) -> dict[str, Any]:
    """Write the piano-rolls."""
    from data_prep.midi import prepare_midi

    with bar("file") as progress:
        return prepare_midi(
            options.paths,
            options.output,
            options.frame_rate,
            options.lowest_pitch,
            options.highest_pitch,
            options.segment_seconds,
            seed=options.seed,
            progress=progress,
        )
