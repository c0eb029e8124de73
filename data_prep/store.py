"""The HDF5 store every reader writes and every model reads.

Layout: ``/{train,valid,test}/frames`` (all frames of the split end to end, one row a frame),
``/lengths`` (frames of each sequence), ``/source`` (the piece each came from) and perhaps
``/labels/NAME`` (what else is known of each); see `Dataset` for the attributes.

Sets of any size are written and read in constant memory: writing takes sequences one by one, and
reading leaves on disk what would fill the memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_prep import dataset
from data_prep.dataset import DTYPES, SPLITS, Dataset, Split, StoredFrames, fingerprint
from data_prep.output import check_output, replacing

if TYPE_CHECKING:
    import h5py

__all__ = [
    "SPLITS",
    "Dataset",
    "Split",
    "StoredFrames",
    "check_output",
    "fingerprint",
    "read",
    "replacing",
    "write",
]

AGAIN = "run `cgrnn prepare` again"
_CHUNK_BYTES = 1 << 16  # what HDF5 reads at the least: about a sequence
_MEMORY_SHARE = 8  # of the machine's memory an eighth at the most is filled with frames

Labels = Callable[[str], Mapping[str, str]]


def write(
    path: str | os.PathLike[str],
    splits: Mapping[str, Iterable[tuple[str, np.ndarray]]],
    *,
    kind: str,
    labels: Labels | None = None,
    **attributes: Any,
) -> Dataset:
    """Write a data set to `path`, all of it or nothing.

    Args:
        path: the HDF5 file to make; an older one is replaced.
        splits: for each of train, valid and test, (source, frames) pairs, frames being
            (length, visible); taken one by one. valid and test may be empty or missing.
        kind: 'binary' (frames of 0 and 1) or 'continuous'.
        labels: gives from a source what else is known of it, the same names for all.
        attributes: stored as they are; ``frame_rate`` or ``sample_rate`` is needed. ``mean``
            and ``std`` are worked out from the training frames unless given.

    Returns:
        What `read` would return, the frames left on disk.

    Raises:
        ValueError: nothing to train on, or frames that are malformed; names the sequence.
    """
    import h5py

    if kind not in DTYPES:
        raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(DTYPES)}")
    if unknown := set(splits) - set(SPLITS):
        raise ValueError(f"unknown split {sorted(unknown)[0]!r}; use {', '.join(SPLITS)}")
    if "frame_rate" not in attributes and "sample_rate" not in attributes:
        raise ValueError(f"{path}: give a frame_rate or a sample_rate")
    written: dict[str, Split] = {}
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        moments, width = _Moments(), 0
        for name in SPLITS:
            writer = _SplitWriter(file.create_group(name), name, kind, width)
            for source, frames in splits.get(name, ()):
                writer.add(source, frames)
                if name == "train":
                    moments.add(frames)
            if name == "train" and not writer.lengths:
                raise ValueError(f"{path}: 0 sequences to train on; give more or longer pieces")
            written[name] = writer.close(labels)
            width = writer.width
        described = {
            "kind": kind,
            **({"mean": 0.0, "std": 1.0} if kind == "binary" else moments.normalisation()),
            **{name: value for name, value in attributes.items() if value is not None},
            "fingerprint": fingerprint(kind, written),
        }
        file.attrs.update(described)
    for name, split in written.items():
        split.frames = StoredFrames(path, name, (int(split.lengths.sum()), width), kind)
    return Dataset(written, described)


class _Moments:
    """Mean and deviation of all cells seen, without their cancellation.

    >>> moments = _Moments()
    >>> moments.add(np.array([[1e6, 1e6 + 1]]))
    >>> moments.add(np.array([[1e6 + 2]]))
    >>> moments.normalisation()["mean"], round(moments.normalisation()["std"], 6)
    (1000001.0, 0.816497)
    """

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def add(self, cells: np.ndarray) -> None:
        count, mean = cells.size, float(cells.mean(dtype=np.float64))
        squares = float(np.square(cells - np.float64(mean)).sum())
        total, step = self.count + count, mean - self.mean
        self.squares += squares + step * step * self.count * count / total
        self.mean += step * count / total
        self.count = total

    def normalisation(self) -> dict[str, float]:
        # Constant frames have no scale of their own: dividing by 1 leaves them alone.
        return {"mean": self.mean, "std": float(np.sqrt(self.squares / self.count)) or 1.0}


class _SplitWriter:
    """Writes the sequences of a split as they come; `width` is 0 until one has come."""

    def __init__(self, group: h5py.Group, name: str, kind: str, width: int) -> None:
        self.group, self.name, self.kind, self.width = group, name, kind, width
        self.lengths: list[int] = []
        self.source: list[str] = []
        self.waiting: list[np.ndarray] = []
        self.waiting_bytes = 0
        self.frames: h5py.Dataset | None = None

    def add(self, source: str, frames: np.ndarray) -> None:
        where = f"{self.name} sequence {len(self.lengths)} ({source})"
        if np.ndim(frames) != 2 or len(frames) == 0 or np.shape(frames)[1] == 0:
            raise ValueError(f"{where}: frames are {np.shape(frames)}, need (length, visible), > 0")
        self.width = self.width or frames.shape[1]
        if frames.shape[1] != self.width:
            raise ValueError(f"{where}: {frames.shape[1]} wide where the first is {self.width}")
        _check_values(frames, self.kind, where)
        self.waiting.append(np.asarray(frames, dtype=DTYPES[self.kind]))
        self.waiting_bytes += self.waiting[-1].nbytes
        self.lengths.append(len(frames))
        self.source.append(source)
        if self.waiting_bytes >= dataset.BLOCK_BYTES:
            self._flush()

    def _flush(self, all_of_it: bool = False) -> None:
        """Write what waits, in whole chunks unless it is the end."""
        if self.frames is None:
            self.frames = self._create()
        if not self.waiting:
            return
        block = np.concatenate(self.waiting)
        rows = len(block) if all_of_it else len(block) - len(block) % self.frames.chunks[0]
        start = len(self.frames)
        self.frames.resize(start + rows, axis=0)
        self.frames[start:] = block[:rows]
        self.waiting, self.waiting_bytes = [block[rows:]], block[rows:].nbytes

    def _create(self) -> h5py.Dataset:
        options: dict[str, Any] = {}
        if self.kind == "binary":
            options.update(compression="gzip", compression_opts=1)  # a roll is 95 % zeros
        dtype = DTYPES[self.kind]
        rows = max(1, _CHUNK_BYTES // (self.width * dtype.itemsize))
        return self.group.create_dataset(
            "frames",
            shape=(0, self.width),
            maxshape=(None, self.width),
            chunks=(rows, self.width),
            dtype=dtype,
            **options,
        )

    def close(self, labels: Labels | None) -> Split:
        """Write the rest; the split with its frames as they lie in the open file."""
        import h5py

        self._flush(all_of_it=True)
        lengths = np.array(self.lengths, dtype=np.int64)
        columns: dict[str, list[str]] = {}
        for source in self.source if labels else ():
            for name, value in labels(source).items():  # type: ignore[misc]
                columns.setdefault(name, []).append(value)
        self.group.create_dataset("lengths", data=lengths)
        self.group.create_dataset("source", data=self.source, dtype=h5py.string_dtype())
        for name, column in columns.items():
            if len(column) != len(self.source):
                raise ValueError(f"{self.name}: label {name!r} is not given for every sequence")
            path = f"labels/{name}"
            self.group.create_dataset(path, data=column, dtype=h5py.string_dtype())
        return Split(self.frames, lengths, self.source, columns)  # type: ignore[arg-type]


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


def read(
    path: str | os.PathLike[str], split: str | None = None, in_memory: bool | None = None
) -> Dataset:
    """Read a data set and verify all of it.

    Args:
        path: a file that `write` made.
        split: give this split alone; the others are still verified.
        in_memory: whether the frames are read into memory or left on disk (`StoredFrames`); None
            reads them where they fill an eighth of the machine's memory at the most.

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
            return _read(file, str(path), SPLITS if split is None else (split,), in_memory)
    except (OSError, RuntimeError) as error:  # h5py raises either on damaged blocks
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"{path}: not an HDF5 file, or damaged ({reason}); {AGAIN}") from error


def _read(file: h5py.File, path: str, keep: Iterable[str], in_memory: bool | None) -> Dataset:
    attributes = {name: _plain(value) for name, value in file.attrs.items()}
    rate = "sample_rate" if "sample_rate" in attributes else "frame_rate"
    for name in ("kind", rate, "mean", "std", "fingerprint"):
        if name not in attributes:
            raise ValueError(f"{path}: attribute {name!r} is missing; {AGAIN}")
    if (kind := attributes["kind"]) not in DTYPES:
        raise ValueError(f"{path}: kind is {kind!r}, not one of {', '.join(DTYPES)}; {AGAIN}")
    members = {name: _members(file, name, path) for name in SPLITS}
    if in_memory is None:
        cells = sum(int(np.prod(members[name].frames.shape)) for name in keep)
        size = cells * DTYPES[kind].itemsize
        in_memory = size * _MEMORY_SHARE <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    digest = dataset.started(kind)
    for name, split in members.items():
        stored, lengths = split.frames, split.lengths
        dataset.add_split(digest, name, lengths, stored.shape[1])
        split.frames = StoredFrames(path, name, stored.shape, kind)
        if in_memory and name in keep:
            split.frames = np.empty(stored.shape, DTYPES[kind])
        start = 0
        for block in _checked_blocks(stored, lengths, kind, f"{path}: {name}"):
            digest.update(block.data)
            if isinstance(split.frames, np.ndarray):
                split.frames[start : start + len(block)] = block
            start += len(block)
    if digest.hexdigest() != attributes["fingerprint"]:
        raise ValueError(f"{path}: changed or damaged after it was prepared; {AGAIN}")
    return Dataset({name: members[name] for name in keep}, attributes)


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return value.decode() if isinstance(value, bytes) else value


def _members(file: h5py.File, name: str, path: str) -> Split:
    """A split with its frames as they lie in the open file."""
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
    columns = file.get(f"{name}/labels", {})
    labels = {key: [_plain(value) for value in column[:]] for key, column in columns.items()}
    return Split(frames, lengths, source, labels)


def _checked_blocks(
    frames: h5py.Dataset, lengths: np.ndarray, kind: str, where: str
) -> Iterator[np.ndarray]:
    """Blocks of checked and contiguous rows."""
    ends, start = np.cumsum(lengths), 0
    for block in dataset.blocks(frames):
        try:
            _check_values(block, kind, where)
        except ValueError:  # say it again with the sequence, which costs nothing when all is well
            for row in range(len(block)):
                number = int(np.searchsorted(ends, start + row, side="right"))
                first = start + row - int(ends[number] - lengths[number])
                at = f"{where} sequence {number}"
                _check_values(block[row : row + 1], kind, at, first)
        start += len(block)
        yield np.ascontiguousarray(block, dtype=DTYPES[kind])
