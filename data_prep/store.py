"""The HDF5 store every reader writes and every model reads.

Layout: ``/{train,valid,test}/frames`` (all frames of the split end to end, one row a frame),
``/lengths`` (frames of each sequence) and ``/source`` (the piece each came from); see `Dataset`
for the attributes.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import h5py

SPLITS = ("train", "valid", "test")
DTYPES: dict[str, np.dtype[Any]] = {"binary": np.dtype("uint8"), "continuous": np.dtype("<f4")}
AGAIN = "run `cgrnn prepare` again"
_BLOCK_BYTES = 1 << 24  # what is held at a time of a split that is only verified


@dataclass
class Split:
    """The sequences of one split, end to end.

    Attributes:
        frames: (total frames, visible) uint8 or float32.
        lengths: (sequences,) int64, frames in each sequence.
        source: where each sequence came from.
    """

    frames: np.ndarray
    lengths: np.ndarray
    source: list[str]

    def sequences(self) -> list[np.ndarray]:
        """Each sequence as a view (length, visible) into `frames`.

        >>> split = Split(np.eye(3, dtype=np.uint8), np.array([1, 2]), ["a", "b"])
        >>> [s.shape for s in split.sequences()]
        [(1, 3), (2, 3)]
        """
        ends = np.cumsum(self.lengths)
        return [self.frames[end - n : end] for n, end in zip(self.lengths, ends, strict=True)]


@dataclass
class Dataset:
    """Splits by name, and what is known of them all.

    Attributes:
        splits: ``train``, ``valid`` and ``test`` (or the one asked for).
        attributes: ``kind`` ('binary' or 'continuous'); ``frame_rate`` (frames a second, at
            120 quarter notes a minute where the grid is in beats) or ``sample_rate`` (Hz);
            ``mean`` and ``std`` over every cell of the training frames, so that
            ``(frames - mean) / std`` is normalised (0 and 1 for binary frames, which stay as they
            are); ``fingerprint``; and what the maker added (``lowest_pitch``: the MIDI note of
            key 0, ``frame_unit``, ``name``, …). Frames are stored unnormalised.
    """

    splits: dict[str, Split]
    attributes: dict[str, Any] = field(default_factory=dict)


def check_output(path: str | os.PathLike[str]) -> None:
    """Raise OSError where `path` cannot be written: worth knowing before an hour of reading."""
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: the folder {path.parent} does not exist; make it first")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file to write")


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary name beside `path` that takes its place only if all went well."""
    path = Path(path)
    check_output(path)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:
        raise OSError(f"{path} cannot be written ({error.strerror}); name another place") from error
    os.close(handle)
    try:
        yield Path(name)
        os.chmod(name, 0o666 & ~_umask())  # mkstemp makes files that only their owner can read
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write(
    path: str | os.PathLike[str],
    splits: dict[str, list[tuple[str, np.ndarray]]],
    *,
    kind: str,
    **attributes: Any,
) -> Dataset:
    """Write a data set to `path`, all of it or nothing.

    Args:
        path: the HDF5 file to make; an older one is replaced.
        splits: for each of train, valid and test, (source, frames) pairs, frames being
            (length, visible). valid and test may be empty or missing.
        kind: 'binary' (frames of 0 and 1) or 'continuous'.
        attributes: stored as they are; ``frame_rate`` or ``sample_rate`` is needed. ``mean``
            and ``std`` are worked out from the training frames unless given.

    Returns:
        What `read` would return.

    Raises:
        ValueError: nothing to train on, or frames that are malformed; names the sequence.
    """
    import h5py

    if kind not in DTYPES:
        raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(DTYPES)}")
    if unknown := set(splits) - set(SPLITS):
        raise ValueError(f"unknown split {sorted(unknown)[0]!r}; use {', '.join(SPLITS)}")
    if not splits.get("train"):
        raise ValueError(f"{path}: 0 sequences to train on; give more or longer pieces")
    if "frame_rate" not in attributes and "sample_rate" not in attributes:
        raise ValueError(f"{path}: give a frame_rate or a sample_rate")
    visible = np.shape(splits["train"][0][1])[-1:]
    dataset = Dataset({name: _joined(name, splits.get(name, []), kind, visible) for name in SPLITS})
    dataset.attributes = {
        "kind": kind,
        **_normalisation(dataset.splits["train"].frames, kind),
        **{name: value for name, value in attributes.items() if value is not None},
        "fingerprint": fingerprint(kind, dataset.splits),
    }
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update(dataset.attributes)
        for name, split in dataset.splits.items():
            _write_split(file.create_group(name), split)
    return dataset


def _joined(
    name: str, sequences: list[tuple[str, np.ndarray]], kind: str, visible: tuple[int, ...]
) -> Split:
    for number, (source, frames) in enumerate(sequences):
        where = f"{name} sequence {number} ({source})"
        if np.ndim(frames) != 2 or len(frames) == 0 or np.shape(frames)[1] == 0:
            raise ValueError(f"{where}: frames are {np.shape(frames)}, need (length, visible), > 0")
        if np.shape(frames)[1:] != visible:
            raise ValueError(f"{where}: {frames.shape[1]} wide where the first is {visible[0]}")
        _check_values(frames, kind, where)
    arrays = [np.asarray(frames, dtype=DTYPES[kind]) for _, frames in sequences]
    return Split(
        np.concatenate([np.zeros((0, *visible), DTYPES[kind]), *arrays]),
        np.array([len(frames) for frames in arrays], dtype=np.int64),
        [source for source, _ in sequences],
    )


def _check_values(frames: np.ndarray, kind: str, where: str, first_frame: int = 0) -> None:
    """Raise ValueError at the first cell that a model could not use, naming its frame."""
    if kind == "binary":
        wrong, need = (frames != 0) & (frames != 1), "binary frames hold 0 and 1 only"
    else:
        wrong, need = ~np.isfinite(frames), "frames must be finite"
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        value = frames[row, column]
        value = "NaN" if np.isnan(value) else f"{value:g}"
        frame = first_frame + int(row)
        raise ValueError(f"{where}: {value} in frame {frame}, column {column}; {need}")


def _normalisation(train: np.ndarray, kind: str) -> dict[str, float]:
    if kind == "binary":
        return {"mean": 0.0, "std": 1.0}
    # Constant frames have no scale of their own: dividing by 1 leaves them alone.
    return {
        "mean": float(train.mean(dtype=np.float64)),
        "std": float(train.std(dtype=np.float64)) or 1.0,
    }


def fingerprint(kind: str, splits: dict[str, Split]) -> str:
    """sha256 (hex) of what the data are, however the file holds them."""
    digest = _started(kind)
    for name in SPLITS:
        _add_split(digest, name, splits[name].lengths, splits[name].frames.shape[1])
        digest.update(np.ascontiguousarray(splits[name].frames).data)
    return digest.hexdigest()


def _started(kind: str) -> Any:
    return hashlib.sha256(f"{kind}\n".encode())


def _add_split(digest: Any, name: str, lengths: np.ndarray, visible: int) -> None:
    digest.update(f"{name} {len(lengths)} x {visible}\n".encode())
    digest.update(np.ascontiguousarray(lengths, dtype="<i8").data)


def _write_split(group: h5py.Group, split: Split) -> None:
    import h5py

    options: dict[str, Any] = {}
    if len(split.frames):
        rows = max(1, min(len(split.frames), (1 << 18) // split.frames[0].nbytes))
        options["chunks"] = (rows, split.frames.shape[1])
        if split.frames.dtype == DTYPES["binary"]:
            options.update(compression="gzip", compression_opts=1)  # a roll is 95 % zeros
    group.create_dataset("frames", data=split.frames, **options)
    group.create_dataset("lengths", data=split.lengths)
    group.create_dataset("source", data=split.source, dtype=h5py.string_dtype())


def read(path: str | os.PathLike[str], split: str | None = None) -> Dataset:
    """Read a data set and verify all of it.

    Args:
        path: a file that `write` made.
        split: keep only this split in memory; the others are still verified.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a data set, or is damaged, changed or holds values that no
            model can use; one line that names the file and the place.
    """
    import h5py

    if split is not None and split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; use {', '.join(SPLITS)}")
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; make it with `cgrnn prepare`")
    try:
        with h5py.File(path, "r") as file:
            return _read(file, str(path), SPLITS if split is None else (split,))
    except (OSError, RuntimeError) as error:  # h5py raises either on damaged blocks
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"{path}: not an HDF5 file, or damaged ({reason}); {AGAIN}") from error


def _read(file: h5py.File, path: str, keep: Iterable[str]) -> Dataset:
    attributes = {name: _plain(value) for name, value in file.attrs.items()}
    rate = "sample_rate" if "sample_rate" in attributes else "frame_rate"
    for name in ("kind", rate, "mean", "std", "fingerprint"):
        if name not in attributes:
            raise ValueError(f"{path}: attribute {name!r} is missing; {AGAIN}")
    if (kind := attributes["kind"]) not in DTYPES:
        raise ValueError(f"{path}: kind is {kind!r}, not one of {', '.join(DTYPES)}; {AGAIN}")
    splits = {}
    digest = _started(kind)
    for name in SPLITS:
        lengths, frames, source = _members(file, name, path)
        _add_split(digest, name, lengths, frames.shape[1])
        kept = np.empty(frames.shape if name in keep else (0, frames.shape[1]), DTYPES[kind])
        for start, block in _blocks(frames, lengths, kind, f"{path}: {name}"):
            digest.update(block.data)
            if name in keep:
                kept[start : start + len(block)] = block
        if name in keep:
            splits[name] = Split(kept, lengths, source)
    if digest.hexdigest() != attributes["fingerprint"]:
        raise ValueError(f"{path}: changed or damaged after it was prepared; {AGAIN}")
    return Dataset(splits, attributes)


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return value.decode() if isinstance(value, bytes) else value


def _members(file: h5py.File, name: str, path: str) -> tuple[np.ndarray, h5py.Dataset, list[str]]:
    for member in ("frames", "lengths", "source"):
        if f"{name}/{member}" not in file:
            raise ValueError(f"{path}: /{name}/{member} is missing; {AGAIN}")
    frames, lengths = file[f"{name}/frames"], file[f"{name}/lengths"][:].astype(np.int64)
    source = [_plain(s) for s in file[f"{name}/source"][:]]
    if frames.ndim != 2:
        raise ValueError(f"{path}: /{name}/frames is {frames.ndim}-D, must be 2-D; {AGAIN}")
    if (lengths < 1).any() or lengths.sum() != len(frames) or len(source) != len(lengths):
        raise ValueError(
            f"{path}: {name} lengths add up to {lengths.sum()} in {len(lengths)} sequences, but"
            f" there are {len(frames)} frames and {len(source)} sources; {AGAIN}"
        )
    if name == "train" and len(lengths) == 0:
        raise ValueError(f"{path}: 0 sequences to train on; {AGAIN}")
    return lengths, frames, source


def _blocks(
    frames: h5py.Dataset, lengths: np.ndarray, kind: str, where: str
) -> Iterator[tuple[int, np.ndarray]]:
    """Blocks of rows as (first row, checked and contiguous rows)."""
    rows = max(1, _BLOCK_BYTES // (frames.shape[1] * frames.dtype.itemsize))
    ends = np.cumsum(lengths)
    for start in range(0, len(frames), rows):
        block = frames[start : start + rows]
        try:
            _check_values(block, kind, where)
        except ValueError:  # say it again with the sequence, which costs nothing when all is well
            for row in range(len(block)):
                number = int(np.searchsorted(ends, start + row, side="right"))
                first = start + row - int(ends[number] - lengths[number])
                at = f"{where} sequence {number}"
                _check_values(block[row : row + 1], kind, at, first)
        yield start, np.ascontiguousarray(block, dtype=DTYPES[kind])
