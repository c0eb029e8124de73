"""Text as sequences of word vectors, for densities over continuous frames (RNN-RNADE).

A word is taken as it stands, else in lower case (GloVe's are), else in the pieces that
punctuation makes of it. A word without a vector is left out and counted: a stand-in, the same
each time, would be a point at which a continuous density may grow without bound.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import zlib
from array import array
from collections.abc import Callable, Collection, Iterator
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np

from data_prep import store
from data_prep.summary import summary

PathLike = str | os.PathLike[str]

_PIECES = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
_FRACTIONS = (0.8, 0.9)  # where the validation and the test split begin in the text
_GZIP = b"\x1f\x8b"
_DAMAGE = (EOFError, OSError, zlib.error)
_LONGEST = 1 << 20  # bytes of a word or a line of vectors; more is another kind of file


def prepare_vectors(
    text: PathLike, vectors: PathLike, output: PathLike, segment_words: int = 0
) -> dict[str, Any]:
    """Write the word vectors of a text to the data file `output`.

    Each line is a sequence, or each `segment_words` words of the running text. The first eight
    tenths of the sequences are for training, the next for validation, the last for the test, and
    what is repeated in two splits stays in the later one alone.

    Args:
        text: UTF-8, its words apart by spaces; gzip too.
        vectors: see `load_vectors`.
        output: HDF5 file to make.
        segment_words: words (with a vector) a sequence; 0 for lines.

    Returns:
        The summary of `prepare --json`, and ``words``: ``found``, ``without_vector``, of all;
        ``different``: vectors in use; ``repeated``: sequences left out.

    Raises:
        ValueError: a file is not what it should be, or no word has a vector; names the place.
    """
    store.check_output(output)
    for path, what in ((text, "text"), (vectors, "word vectors")):
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such file; give a file of {what}")
    rows, table = load_vectors(vectors, _forms(text))
    reader = _Reader(Path(text), rows, segment_words)
    keys = [_key(words) for _, words in reader.sequences()]
    if len(keys) < 3:
        raise ValueError(
            f"{text}: {len(keys)} sequences of words that {vectors} holds; give a longer text"
        )
    home = {key: _part(n, len(keys)) for n, key in enumerate(keys)}  # the last it is in

    def kept(part: str) -> Iterator[tuple[str, np.ndarray]]:
        for n, (source, words) in enumerate(reader.sequences()):
            if part == _part(n, len(keys)) == home[keys[n]]:
                yield source, table[words]

    dataset = store.write(
        output,
        {part: kept(part) for part in store.SPLITS},
        kind="continuous",
        name=Path(text).name,
        frame_unit="word",
        frame_rate=1.0,
    )
    repeated = sum(home[key] != _part(n, len(keys)) for n, key in enumerate(keys))
    words = {
        "found": reader.found,
        "without_vector": reader.missing,
        "different": len(table),
        "repeated": repeated,
    }
    return {**summary(dataset, output, found=1, read=1, skipped=[]), "words": words}


def _part(n: int, total: int) -> str:
    """The split of the n-th of three sequences or more: none is empty.

    >>> [_part(n, 5)[:2] for n in range(5)]
    ['tr', 'tr', 'tr', 'va', 'te']
    """
    test = min(max(round(_FRACTIONS[1] * total), 2), total - 1)
    valid = min(round(_FRACTIONS[0] * total), test - 1)
    return store.SPLITS[(n >= valid) + (n >= test)]


def _key(words: Collection[int]) -> bytes:
    return hashlib.blake2b(array("q", words).tobytes(), digest_size=16).digest()


def _forms(text: PathLike) -> set[str]:
    """All that could be looked up for the words of a text."""
    words = {word for line in _lines(text) for word in line.split()}
    pieces = {piece for word in words for piece in _PIECES.findall(word)}
    return words | pieces | {word.lower() for word in words | pieces}


def _lines(path: PathLike) -> Iterator[str]:
    number = 0
    try:
        with _opened(path) as file:
            for number, line in enumerate(file, start=1):
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: line {number} is not UTF-8 text; convert it first") from error
    except _DAMAGE as error:
        raise ValueError(f"{path}: cannot be read ({error}); fetch it again") from error


def _opened(path: PathLike) -> IO[bytes]:
    with open(path, "rb") as file:
        packed = file.read(2) == _GZIP
    return gzip.open(path) if packed else open(path, "rb")  # type: ignore[return-value]


class _Reader:
    """The sequences of a text as rows of the table of vectors; read anew each time."""

    def __init__(self, path: Path, rows: dict[str, int], segment_words: int) -> None:
        self.path, self.segment, self.rows = path, segment_words, rows
        self.found = self.missing = 0
        self.look_up: Callable[[str], list[int | None]] = cache(self._look_up)

    def sequences(self) -> Iterator[tuple[str, list[int]]]:
        """(source, rows of its words), where there are any."""
        self.found = self.missing = 0
        if not self.segment:
            for number, words in enumerate(map(self._rows, _lines(self.path)), start=1):
                if words:
                    yield f"{self.path.name}: line {number}", words
            return
        held: list[int] = []
        first = 1
        for line in _lines(self.path):
            held += self._rows(line)
            while len(held) >= self.segment:
                yield self._segment(first, held[: self.segment])
                first, held = first + self.segment, held[self.segment :]
        if held:
            yield self._segment(first, held)

    def _segment(self, first: int, words: list[int]) -> tuple[str, list[int]]:
        return f"{self.path.name}: words {first} to {first + len(words) - 1}", words

    def _rows(self, line: str) -> list[int]:
        rows = [row for word in line.split() for row in self.look_up(word)]
        known = [row for row in rows if row is not None]
        self.found += len(rows)
        self.missing += len(rows) - len(known)
        return known

    def _look_up(self, word: str) -> list[int | None]:
        for whole in (word, word.lower()):
            if whole in self.rows:
                return [self.rows[whole]]
        pieces = _PIECES.findall(word)
        return [self.rows.get(piece, self.rows.get(piece.lower())) for piece in pieces]


def load_vectors(path: PathLike, words: Collection[str]) -> tuple[dict[str, int], np.ndarray]:
    """The vectors of these words, and no other in memory.

    Args:
        path: text as word2vec and GloVe write it, a word and its numbers a line, with or without
            a first line of two counts; or word2vec's binary form, in a file named .bin; gzip too.
        words: what to look for.

    Returns:
        The row of each word that has a vector, and the vectors, (rows, dimensions) float32.

    Raises:
        ValueError: malformed, or none of the words is there; names the line.
    """
    binary = str(path).lower().removesuffix(".gz").endswith(".bin")
    rows: dict[str, int] = {}
    found: list[np.ndarray] = []
    try:
        with _opened(path) as file:
            for word, numbers in (_binary if binary else _text)(file, words):
                if word not in rows:
                    rows[word] = len(rows)
                    found.append(numbers)
    except (ValueError, *_DAMAGE) as error:
        raise ValueError(f"{path}: {error}; give word vectors of word2vec or GloVe") from error
    if not found:
        raise ValueError(
            f"{path}: none of the {len(words)} words has a vector here; same language?"
        )
    return rows, np.stack(found)


def _text(file: IO[bytes], words: Collection[str]) -> Iterator[tuple[str, np.ndarray]]:
    size = 0
    for number, line in enumerate(_bounded(file), start=1):
        fields = line.rstrip().split(b" ")
        if number == 1 and len(fields) == 2 and all(field.isdigit() for field in fields):
            size = int(fields[1])
            continue
        size = size or len(fields) - 1
        if size < 1 or len(fields) <= size:
            raise ValueError(f"line {number} has {len(fields) - 1} numbers, not {size or 'any'}")
        # A word may hold spaces, as some of GloVe's do: the numbers are counted from the end.
        word = b" ".join(fields[:-size]).decode("utf-8", "replace")
        if word in words:
            try:
                vector = np.array(fields[-size:], dtype=np.float32)
            except ValueError:
                raise ValueError(f"line {number} holds what is not a number") from None
            yield word, _finite(vector, word)


def _bounded(file: IO[bytes]) -> Iterator[bytes]:
    while line := file.readline(_LONGEST):
        if len(line) == _LONGEST:
            raise ValueError("a line of a megabyte")
        yield line


def _binary(file: IO[bytes], words: Collection[str]) -> Iterator[tuple[str, np.ndarray]]:
    header = file.readline(_LONGEST).split()
    if len(header) != 2 or not all(field.isdigit() for field in header):
        raise ValueError("does not begin with two counts, as word2vec's binary form does")
    count, size = map(int, header)
    if not 0 < 4 * size < _LONGEST:
        raise ValueError(f"says that its vectors have {size} numbers")
    for number in range(1, count + 1):
        word = _word(file).decode("utf-8", "replace")
        numbers = file.read(4 * size)
        if len(numbers) != 4 * size:
            raise ValueError(f"ends in vector {number} of {count}")
        if word in words:
            yield word, _finite(np.frombuffer(numbers, "<f4"), word)


def _word(file: IO[bytes]) -> bytes:
    """The bytes up to a space; some writers end each vector with a line feed."""
    word = bytearray()
    while (byte := file.read(1)) != b" ":
        if not byte or len(word) > _LONGEST:
            raise ValueError("ends within a word")
        word += byte
    return bytes(word.lstrip(b"\n"))


def _finite(vector: np.ndarray, word: str) -> np.ndarray:
    if not np.isfinite(vector).all():
        raise ValueError(f"the vector of {word!r} is not finite")
    return vector
