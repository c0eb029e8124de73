"""Several data sets joined into one, no sequence of it on two sides."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep import store
from data_prep.inspection import digest

PathLike = str | os.PathLike[str]

_MUST_AGREE = ("kind", "lowest_pitch", "frame_rate", "sample_rate")
_OF_EACH = ("name", "mean", "std", "fingerprint", "seed")  # means nothing of the whole


def merge(paths: Sequence[PathLike], output: PathLike) -> dict[str, Any]:
    """Join data sets of one kind, width, lowest pitch and rate; each keeps its splits.

    A sequence that the joined set would hold in two splits stays in the test split, else in the
    validation split, and is dropped from the others: the test splits stay as they were published
    and nothing in them was trained on. Sources get the name of their file before them. What the
    sets do not agree on otherwise (``frame_unit``, …) is left out.

    Args:
        paths: two data sets or more.
        output: HDF5 file to make.

    Returns:
        What `data merge --json` prints: ``files``, ``sequences``, ``frames``, ``dropped`` (by
        split) and ``output``.

    Raises:
        ValueError: the sets do not fit together; says which differ in what.
        FileNotFoundError, ValueError: as `store.read`.
    """
    store.check_output(output)
    if len(paths) < 2:
        raise ValueError(f"{', '.join(map(str, paths)) or 'nothing'}: give two data sets or more")
    names = _names(paths)
    sets = [store.read(path, in_memory=False) for path in paths]
    attributes = _agreed(paths, sets)
    contents = [{p: [digest(s) for s in d.splits[p].sequences()] for p in d.splits} for d in sets]
    home = {key: part for part in store.SPLITS for of in contents for key in of[part]}

    def kept(part: str) -> Iterator[tuple[str, np.ndarray]]:
        for name, dataset, content in zip(names, sets, contents, strict=True):
            split = dataset.splits[part]
            each = zip(split.source, content[part], split.sequences(), strict=True)
            yield from ((f"{name}/{source}", s) for source, key, s in each if home[key] == part)

    if not any(home[key] == "train" for of in contents for key in of["train"]):
        raise ValueError(
            f"{paths[0]}: all that these sets train on is in a validation or test split"
        )
    labels = _labels(names, sets)
    merged = store.write(
        output,
        {part: kept(part) for part in store.SPLITS},
        labels=labels.__getitem__ if any(labels.values()) else None,
        name=" + ".join(names),
        **attributes,
    )
    return {
        "files": [str(path) for path in paths],
        "sequences": {part: len(split.lengths) for part, split in merged.splits.items()},
        "frames": {part: int(split.lengths.sum()) for part, split in merged.splits.items()},
        "dropped": {
            part: sum(home[key] != part for of in contents for key in of[part])
            for part in store.SPLITS
        },
        "output": str(output),
    }


def _names(paths: Sequence[PathLike]) -> list[str]:
    """What tells the files apart: no machine's folders in the data.

    >>> _names(["/data/jsb.h5", "/data/more/muse.h5"])
    ['jsb', 'more/muse']
    """
    full = [Path(path).resolve() for path in paths]
    for n, path in enumerate(full):
        if path in full[:n]:
            raise ValueError(f"{paths[n]}: given twice; name each data set once")
    base = os.path.commonpath([path.parent for path in full])
    return [path.relative_to(base).with_suffix("").as_posix() for path in full]


def _agreed(paths: Sequence[PathLike], sets: Sequence[store.Dataset]) -> dict[str, Any]:
    """The attributes that all sets share; ValueError where they must and do not."""
    first = sets[0]
    width = first.splits["train"].frames.shape[1]
    for path, other in zip(paths[1:], sets[1:], strict=True):
        differ = [
            (name, *(d.attributes.get(name, "none") for d in (first, other)))
            for name in _MUST_AGREE
        ] + [("frame width", width, other.splits["train"].frames.shape[1])]
        for name, one, two in differ:
            if one != two:
                raise ValueError(
                    f"{path}: {name} {two}, but {paths[0]} has {one}; prepare both alike"
                )
    return {
        name: value
        for name, value in first.attributes.items()
        if name not in _OF_EACH
        and all(name in d.attributes and d.attributes[name] == value for d in sets)
    }


def _labels(names: Sequence[str], sets: Sequence[store.Dataset]) -> dict[str, dict[str, str]]:
    """The labels of each source; a set without a label that another has gives it as ''."""
    splits = [
        (name, split) for name, d in zip(names, sets, strict=True) for split in d.splits.values()
    ]
    columns = sorted({column for _, split in splits for column in split.labels})
    return {
        f"{name}/{source}": {
            column: split.labels[column][n] if column in split.labels else "" for column in columns
        }
        for name, split in splits
        for n, source in enumerate(split.source)
    }
