"""`cgrnn prepare audio`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cgrnn.cli.parsing import Parser
from cgrnn.cli.progress import bar
from cgrnn.settings import AT_LEAST_ONE, NOT_NEGATIVE

if TYPE_CHECKING:
    from data_prep.audio import Framing


def add(parser: Parser) -> None:
    """Add the options of this source."""
    parser.add("paths", kind=str, nargs="+", help="WAV, FLAC or OGG: files, folders and archives")
    add_framing(parser)
    parser.add(
        "--segment-frames",
        kind=int,
        default=0,
        help="recordings are cut so long, in frames; 0: whole",
        limit=NOT_NEGATIVE,
    )


def add_framing(parser: Parser) -> None:
    """Add the options of how recordings become frames, and are split."""
    parser.add(
        "--sample-rate", kind=int, default=11025, help="resample to, in Hz", limit=AT_LEAST_ONE
    )
    parser.add(
        "--seconds",
        kind=float,
        default=2.0,
        help="of the beginning that are taken; 0: all",
        limit=NOT_NEGATIVE,
    )
    parser.add("--frame-size", kind=int, default=150, help="samples a frame", limit=AT_LEAST_ONE)
    parser.add(
        "--fractions",
        kind=float,
        nargs=3,
        default=[0.8, 0.1, 0.1],
        help="shares of train, valid and test",
    )


def framing(options: Any) -> Framing:
    """How recordings become frames."""
    from data_prep.audio import Framing

    return Framing(options.sample_rate, options.seconds, options.frame_size)


def run(options: Any) -> dict[str, Any]:
    """Write the frames."""
    from data_prep.audio import prepare_audio

    with bar("file") as progress:
        return prepare_audio(
            options.paths,
            options.output,
            framing(options),
            options.segment_frames,
            tuple(options.fractions),
            options.seed,
            progress,
        )
