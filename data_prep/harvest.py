"""What workers make of many files, kept on disk: constant memory, and a stopped run goes on.

The journal is an SQLite file beside the output (``.NAME.work``), which survives the death of the
process at any point. It belongs to one call: with other files, or files changed meanwhile, or
another request, it is begun anew.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_prep import files, store, workers

Progress = Callable[[int, int, int], None]

_COMMIT_SECONDS = 1.0
# A row is final where it holds an array, or where `stage` is that of the last task.
_TABLE = (
    "CREATE TABLE result (n INTEGER PRIMARY KEY, stage INTEGER, reason TEXT,"
    " kind TEXT, shape TEXT, digest BLOB, content BLOB)"
)


class Packed(NamedTuple):
    """An array as it crosses the pipe and lies in the journal."""

    kind: str
    shape: tuple[int, ...]
    digest: bytes
    content: bytes


def pack(array: np.ndarray) -> Packed:
    """Pack an array; one of zeros and ones in bits.

    >>> roll = np.array([[0, 1, 1]], np.uint8)
    >>> pack(roll).kind, unpack(*pack(roll)[:2], pack(roll).content).tolist()
    ('bits', [[0, 1, 1]])
    """
    array = np.ascontiguousarray(array)
    digest = hashlib.blake2b(f"{array.dtype.str}{array.shape}".encode(), digest_size=16)
    digest.update(array.data)
    if array.dtype == np.uint8 and array.max(initial=0) <= 1:
        content = zlib.compress(np.packbits(array).data, 1)
        return Packed("bits", array.shape, digest.digest(), content)
    return Packed(array.dtype.str, array.shape, digest.digest(), array.tobytes())


def unpack(kind: str, shape: tuple[int, ...], content: bytes) -> np.ndarray:
    """The array again."""
    if kind != "bits":
        return np.frombuffer(content, np.dtype(kind)).reshape(shape)
    bits = np.frombuffer(zlib.decompress(content), np.uint8)
    return np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape)


def work(item: tuple[str, bytes, Any]) -> Packed:
    """What a worker does: the task, 'module:function', on the content of a file."""
    task, content, request = item
    module, _, name = task.partition(":")
    return pack(getattr(importlib.import_module(module), name)(content, request))


def read_one(
    path: str | os.PathLike[str], tasks: Sequence[str], request: Any, seconds: float, what: str
) -> np.ndarray:
    """What the first task that can makes of one file, in another process.

    Args:
        path: the file.
        tasks, request, seconds: as of `harvest`.
        what: what such files are called in messages, as "MIDI".

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no task can read it; says why.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; give a {what} file")
    (content,) = files.contents([files.File(Path(path).name, str(path))])
    result: Any = content
    for task in tasks if isinstance(content, bytes) else ():
        items = [(task, content, request)]
        ((_, result),) = workers.run(f"{__name__}:work", items, seconds)
        if not isinstance(result, workers.Failed):
            return unpack(result.kind, result.shape, result.content)
    raise ValueError(f"{path}: not a readable {what} file ({result.reason})")


class Harvest:
    """Results by the index of their file.

    Attributes:
        files: what was read.
        taken: indexes of the files that gave an array, in order.
        skipped: (name, reason) of the others, in order.
        digests: of each array, 16 bytes; equal for equal arrays.
        lengths: rows of each array.
    """

    def __init__(self, its_files: Sequence[files.File], journal: sqlite3.Connection) -> None:
        self.files, self._journal = its_files, journal
        self.taken: list[int] = []
        self.skipped: list[tuple[str, str]] = []
        self.digests: dict[int, bytes] = {}
        self.lengths: dict[int, int] = {}
        rows = journal.execute("SELECT n, reason, shape, digest FROM result ORDER BY n")
        for n, reason, shape, digest in rows:
            if digest is None:
                self.skipped.append((its_files[n].name, reason))
            else:
                self.taken.append(n)
                self.digests[n], self.lengths[n] = digest, _shape(shape)[0]

    def array(self, n: int) -> np.ndarray:
        """The array that file `n` gave."""
        query = "SELECT kind, shape, content FROM result WHERE n = ?"
        kind, shape, content = self._journal.execute(query, (n,)).fetchone()
        return unpack(kind, _shape(shape), content)


def _shape(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split()))


@contextmanager
def harvest(
    output: str | os.PathLike[str],
    tasks: Sequence[str],
    its_files: Sequence[files.File],
    request: Any,
    seconds: float,
    progress: Progress | None = None,
) -> Iterator[Harvest]:
    """Yield what the tasks make of each file.

    Args:
        output: the file to be made of it; the journal lies beside it until the block ends well.
        tasks: 'module:function' of ``(content, request) -> array``, the first to try first. What
            it refuses, dies of or hangs on goes to the next.
        its_files: from `files.find`.
        request: goes with each content; its ``repr`` tells requests apart.
        seconds: of processor time that a task may take for a file.
        progress: called with (done, total, skipped) after each file.

    Raises:
        ValueError: no file could be used; says why the first could not.
    """
    store.check_output(output)
    path = Path(output).with_name(f".{Path(output).name}.work")
    journal = _open(path, _identity(tasks, its_files, request))
    try:
        for stage in range(len(tasks)):
            _run(journal, stage, tasks, its_files, request, seconds, progress)
        result = Harvest(its_files, journal)
        if not result.taken:
            name, reason = result.skipped[0]
            raise ValueError(f"{name}: {reason}; none of {len(its_files)} files could be used")
        yield result
    except ValueError:  # the same call would end the same way
        _remove(path, journal)
        raise
    except BaseException:
        journal.close()
        raise
    _remove(path, journal)


def _run(
    journal: sqlite3.Connection,
    stage: int,
    tasks: Sequence[str],
    its_files: Sequence[files.File],
    request: Any,
    seconds: float,
    progress: Progress | None,
) -> None:
    """Let a task try what those before it did not take."""
    reasons = _waiting(journal, stage, len(its_files))
    sent: list[int] = []
    unreadable: list[tuple[int, workers.Failed]] = []
    last = len(tasks) - 1
    done, skipped, committed = len(its_files) - len(reasons), _skipped(journal, last), 0.0
    label = tasks[stage].rpartition(":")[2].removeprefix("by_") + ": " if last else ""

    def items() -> Iterator[tuple[str, bytes, Any]]:
        contents = files.contents(its_files[n] for n in reasons)
        for n, content in zip(reasons, contents, strict=True):
            if isinstance(content, workers.Failed):
                unreadable.append((n, content))
            else:
                sent.append(n)
                yield tasks[stage], content, request

    def results() -> Iterator[tuple[int, int, Packed | workers.Failed]]:
        for index, result in workers.run(f"{__name__}:work", items(), seconds):
            yield sent[index], stage, _labelled(result, reasons[sent[index]] + label)
            yield from ((n, last, failed) for n, failed in unreadable)
            unreadable.clear()
        yield from ((n, last, failed) for n, failed in unreadable)

    for n, at, result in results():
        _insert(journal, n, at, result)
        final = isinstance(result, Packed) or at == last
        done, skipped = done + final, skipped + (final and not isinstance(result, Packed))
        if time.monotonic() > committed + _COMMIT_SECONDS:
            journal.commit()
            committed = time.monotonic()
        if progress:
            progress(done, len(its_files), skipped)
    journal.commit()


def _waiting(journal: sqlite3.Connection, stage: int, total: int) -> dict[int, str]:
    """The files that a stage has to try, with what the stages before said of them."""
    if stage:
        query = "SELECT n, reason || '; ' FROM result WHERE digest IS NULL AND stage = ? ORDER BY n"
        return dict(journal.execute(query, (stage - 1,)))
    there = {n for (n,) in journal.execute("SELECT n FROM result")}
    return {n: "" for n in range(total) if n not in there}


def _skipped(journal: sqlite3.Connection, last: int) -> int:
    query = "SELECT count(*) FROM result WHERE digest IS NULL AND stage = ?"
    return int(journal.execute(query, (last,)).fetchone()[0])


def _labelled(result: Packed | workers.Failed, label: str) -> Packed | workers.Failed:
    return workers.Failed(label + result.reason) if isinstance(result, workers.Failed) else result


def _insert(
    journal: sqlite3.Connection, n: int, stage: int, result: Packed | workers.Failed
) -> None:
    row: tuple[Any, ...] = (None, None, None, None)
    reason = None
    if isinstance(result, Packed):
        row = (result.kind, " ".join(map(str, result.shape)), result.digest, result.content)
    else:
        reason = result.reason
    journal.execute("REPLACE INTO result VALUES (?, ?, ?, ?, ?, ?, ?)", (n, stage, reason, *row))


def _identity(tasks: Sequence[str], its_files: Sequence[files.File], request: Any) -> str:
    """What tells one call from another, the state of the files included."""
    digest = hashlib.sha256(f"{list(tasks)} {request!r}\n".encode())
    for path in dict.fromkeys(file.path for file in its_files):
        state = os.stat(path)
        where = os.path.abspath(path)
        digest.update(f"{where} {state.st_size} {state.st_mtime_ns}\n".encode())
    for file in its_files:
        digest.update(f"{file.name}\n".encode())
    return digest.hexdigest()


def _open(path: Path, identity: str) -> sqlite3.Connection:
    """The journal of this call as it was left, or an empty one."""
    try:
        journal = _connect(path)
        if journal.execute("SELECT identity FROM call").fetchone() == (identity,):
            return journal
        journal.close()
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise OSError(
                f"{path}: in use by another run; wait for it or name another -o"
            ) from error
    except sqlite3.DatabaseError:
        pass  # cut off by a power failure; begun anew as any other
    try:
        _remove(path)
        journal = _connect(path)
        journal.execute(_TABLE)
        journal.execute("CREATE TABLE call (identity TEXT)")
        journal.execute("INSERT INTO call VALUES (?)", (identity,))
        journal.commit()
    except sqlite3.Error as error:
        raise OSError(f"{path} cannot be written ({error}); name another place") from error
    return journal


def _remove(path: Path, journal: sqlite3.Connection | None = None) -> None:
    if journal:
        journal.close()
    for file in (path, path.with_name(f"{path.name}-journal")):
        file.unlink(missing_ok=True)


def _connect(path: Path) -> sqlite3.Connection:
    journal = sqlite3.connect(path, timeout=0)
    journal.execute("PRAGMA locking_mode = EXCLUSIVE")
    journal.execute("PRAGMA synchronous = NORMAL")
    return journal
