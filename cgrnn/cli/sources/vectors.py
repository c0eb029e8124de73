"""`cgrnn prepare vectors`."""

from __future__ import annotations

from typing import Any

from cgrnn.cli import say
from cgrnn.cli.parsing import Parser
from cgrnn.settings import NOT_NEGATIVE


def add(parser: Parser) -> None:
    """Add the options of this source."""
    parser.add("text", kind=str, help="UTF-8 text, a sentence a line; .gz too")
    parser.add(
        "vectors", kind=str, help="word vectors, text of GloVe or word2vec, or .bin; .gz too"
    )
    parser.add(
        "--segment-words",
        kind=int,
        default=0,
        help="cut the running text into so many words a sequence; 0: each line is one",
        limit=NOT_NEGATIVE,
    )


def run(options: Any) -> dict[str, Any]:
    """Write the vectors."""
    from data_prep.vectors import prepare_vectors

    result = prepare_vectors(options.text, options.vectors, options.output, options.segment_words)
    words = result["words"]
    say(
        f"{words['without_vector']} of {words['found']} words have no vector and are left out;"
        f" {words['repeated']} sequences are left out that a later split repeats"
    )
    return result
