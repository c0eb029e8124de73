"""`cgrnn prepare midi`."""

from __future__ import annotations

from typing import Any, Literal

from cgrnn.cli.parsing import Parser
from cgrnn.cli.progress import bar
from cgrnn.settings import AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE, Limit


def add(parser: Parser) -> None:
    """Add the options of this source."""
    parser.add("paths", kind=str, nargs="+", help="files, folders and archives (zip, tar)")
    _add_rolls(parser)
    parser.add(
        "--segment-seconds",
        kind=float,
        default=60.0,
        help="pieces are cut so long, in seconds (of beats: at 120 a minute); 0: whole",
        limit=NOT_NEGATIVE,
    )
    parser.add(
        "--tails",
        kind=Literal["keep", "drop"],
        default="keep",
        help="what is left of a piece after its last whole segment",
    )
    parser.add(
        "--fractions",
        kind=float,
        nargs=3,
        default=[0.8, 0.1, 0.1],
        help="shares of train, valid and test, in pieces",
    )


def _add_rolls(parser: Parser) -> None:
    """How files become rolls: the fields of `data_prep.midi_rolls.Request`."""
    pitch = Limit("0 to 127", lambda x: 0 <= x < 128)
    parser.add("--frame-rate", kind=float, default=4.0, help="frames a second", limit=POSITIVE)
    parser.add(
        "--frames-per-beat",
        kind=float | None,
        default=None,
        help="frames a quarter note at any tempo, in place of --frame-rate",
        limit=POSITIVE,
    )
    parser.add("--lowest-pitch", kind=int, default=21, help="MIDI note of key 0", limit=pitch)
    parser.add(
        "--highest-pitch", kind=int, default=108, help="MIDI note of the last key", limit=pitch
    )
    parser.add(
        "--drums",
        kind=Literal["none", "only", "all"],
        default="none",
        help="leave drums out, take them alone, or with the rest",
    )
    parser.add(
        "--pedal",
        kind=Literal["follow", "ignore"],
        default="follow",
        help="whether the sustain pedal holds notes",
    )
    parser.add(
        "--transpose",
        kind=Literal["none", "c"],
        default="none",
        help="c: to C major or A minor, by Krumhansl and Kessler's profiles",
    )
    parser.add(
        "--minimum-notes",
        kind=int,
        default=1,
        help="files with fewer notes are left out",
        limit=AT_LEAST_ONE,
    )


def run(options: Any) -> dict[str, Any]:
    """Write the piano-rolls."""
    from data_prep.midi import prepare_midi
    from data_prep.midi_rolls import Request

    fields = Request.__dataclass_fields__
    with bar("file") as progress:
        return prepare_midi(
            options.paths,
            options.output,
            Request(**{name: options[name] for name in fields}),
            segment_seconds=options.segment_seconds,
            tails=options.tails,
            fractions=tuple(options.fractions),
            seed=options.seed,
            progress=progress,
        )
