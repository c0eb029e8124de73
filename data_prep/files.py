"""Files in folders and in archives, listed and read the same way."""

from __future__ import annotations

import lzma
import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import IO, NamedTuple

from data_prep.workers import Failed

PathLike = str | os.PathLike[str]

LARGEST = 1 << 30  # bytes of one file; more is damage, or a trap
_ZIP, _TAR = (".zip",), (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_DAMAGE = (
    *(OSError, EOFError, RuntimeError, ValueError, NotImplementedError),
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError),
)


class File(NamedTuple):
    """A file, perhaps in an archive.

    Attributes:
        name: where it is within what all inputs have in common, archives shown as folders.
        path: the file, or the archive that holds it.
        members: its place in the archive, more than one name where a zip is in a zip.
        damage: why the archive could not be listed, if so; then this stands for all in it.
    """

    name: str
    path: str
    members: tuple[str, ...] = ()
    damage: str = ""


def find(paths: PathLike | Iterable[PathLike], suffixes: tuple[str, ...], what: str) -> list[File]:
    """The files with these suffixes in folders (at any depth), in archives and named themselves.

    Archives are .zip, also within one another, and .tar, .tar.gz, .tar.bz2, .tar.xz; those in
    folders are looked into as well.

    Args:
        paths: folders, files and archives.
        suffixes: as ``(".mid", ".midi")``; in whatever case.
        what: what such files are called in messages, as "MIDI".

    Returns:
        Sorted by path; what is in a tar archive in the order it has there.

    Raises:
        FileNotFoundError: a path does not exist.
        ValueError: there is no such file.
    """
    given = [Path(paths)] if isinstance(paths, (str, os.PathLike)) else [Path(p) for p in paths]
    found: set[str] = set()
    for path in given:
        if path.is_dir():
            found.update(_within(path, (*suffixes, *_ZIP, *_TAR)))
        elif path.is_file():
            found.add(str(path))
        else:
            raise FileNotFoundError(
                f"{path}: no such file or folder; give {what} files, folders or archives"
            )
    base = os.path.commonpath([p if p.is_dir() else p.parent for p in given]) if given else ""
    files = []
    for file in sorted(found):
        name = os.path.relpath(file, base)
        files += _in_archive(name, file, suffixes) if _is_archive(file) else [File(name, file)]
    if not any(not file.damage for file in files):
        where = ", ".join(map(str, given)) or "nothing"
        reason = f" ({files[0].name}: {files[0].damage})" if files else ""
        raise ValueError(
            f"{where}: no {' or '.join(suffixes)} file found{reason}; give a folder that holds some"
        )
    return files


def contents(files: Iterable[File]) -> Iterator[bytes | Failed]:
    """The bytes of each file in turn; archives are opened once for all that follow one another.

    A file that cannot be read, or is over a gigabyte, comes as `Failed` with the reason.
    """
    for path, group in groupby(files, key=lambda file: file.path):
        its = list(group)
        if not its[0].members:
            yield from (_plain(file) for file in its)
        elif _ends(path, _TAR):
            yield from _tar_contents(path, [file.members[0] for file in its])
        else:
            yield from _zip_contents(path, [file.members for file in its])


def _within(folder: Path, suffixes: tuple[str, ...]) -> Iterator[str]:
    for where, _, names in os.walk(folder):
        paths = (os.path.join(where, name) for name in names if _ends(name, suffixes))
        yield from filter(os.path.isfile, paths)


def _ends(name: str, suffixes: tuple[str, ...]) -> bool:
    base = name.rpartition("/")[2]
    return base.lower().endswith(suffixes) and not base.startswith("._")  # Apple's shadow files


def _is_archive(name: str) -> bool:
    return _ends(name, (*_ZIP, *_TAR))


def _in_archive(name: str, path: str, suffixes: tuple[str, ...]) -> list[File]:
    try:
        places: list[tuple[str, ...]]
        if _ends(path, _TAR):
            with tarfile.open(path) as tar:
                places = [(m.name,) for m in _tar_members(tar) if _ends(m.name, suffixes)]
        else:
            places = sorted(_zip_members(path, suffixes))
    except _DAMAGE as error:
        return [File(name, path, damage=_reason("not a readable archive", error))]
    return [File("/".join((name, *members)), path, members) for members in dict.fromkeys(places)]


def _tar_members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for member in tar:
        if member.isfile():
            yield member
        tar.members = []  # type: ignore[attr-defined]  # or it keeps them all in memory


def _zip_members(archive: str | IO[bytes], suffixes: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            if _ends(info.filename, _ZIP):
                with _unpacked(file, info.filename) as inner:
                    yield from ((info.filename, *rest) for rest in _zip_members(inner, suffixes))
            elif _ends(info.filename, suffixes):
                yield (info.filename,)


def _unpacked(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    """A zip within a zip, on disk: reading it in place would unpack it again for each seek."""
    copy = tempfile.TemporaryFile()  # noqa: SIM115  # the caller closes it
    with archive.open(name) as source:
        shutil.copyfileobj(source, copy, 1 << 20)
    copy.seek(0)
    return copy


def _reason(what: str, error: BaseException) -> str:
    return f"{what} ({' '.join(str(error).split())[:120] or type(error).__name__})"


def _limited(source: IO[bytes], size: int) -> bytes | Failed:
    return source.read() if size <= LARGEST else Failed("larger than a gigabyte")


def _plain(file: File) -> bytes | Failed:
    if file.damage:
        return Failed(file.damage)
    try:
        with open(file.path, "rb") as source:
            return _limited(source, os.fstat(source.fileno()).st_size)
    except OSError as error:
        return Failed(_reason("cannot be read", error))


def _tar_contents(path: str, names: list[str]) -> Iterator[bytes | Failed]:
    """In one pass, the names being in the order of the archive."""
    damage = Failed("is no longer in the archive")
    left = iter(names)
    name = next(left, None)
    try:
        with tarfile.open(path) as tar:
            for member in _tar_members(tar):
                if member.name == name:
                    source = tar.extractfile(member)
                    yield _limited(source, member.size) if source else damage
                    name = next(left, None)
                if name is None:
                    return
    except _DAMAGE as error:
        damage = Failed(_reason("damaged archive", error))
    yield damage
    yield from (damage for _ in left)


def _zip_contents(
    archive: str | IO[bytes], members: list[tuple[str, ...]]
) -> Iterator[bytes | Failed]:
    done = 0
    try:
        with zipfile.ZipFile(archive) as file:
            for first, group in groupby(members, key=lambda names: names[0]):
                its = list(group)
                inner = [names[1:] for names in its]
                for content in _from_zip(file, first, inner):
                    done += 1
                    yield content
    except _DAMAGE as error:
        damage = Failed(_reason("damaged archive", error))
        yield from (damage for _ in members[done:])


def _from_zip(
    file: zipfile.ZipFile, first: str, inner: list[tuple[str, ...]]
) -> Iterator[bytes | Failed]:
    if inner[0]:
        with _unpacked(file, first) as archive:
            yield from _zip_contents(archive, inner)
        return
    try:
        with file.open(first) as source:
            yield _limited(source, file.getinfo(first).file_size)
    except _DAMAGE as error:
        yield Failed(_reason("cannot be unpacked", error))
