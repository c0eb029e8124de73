"""What `prepare --json` says of a data set that was made."""

from __future__ import annotations

import os
from typing import Any

from data_prep.store import Dataset


def summary(
    dataset: Dataset,
    output: str | os.PathLike[str],
    *,
    found: int,
    read: int,
    skipped: list[tuple[str, str]],
) -> dict[str, Any]:
    """The JSON object machines read: files found, read and skipped, sequences and frames.

    Args:
        dataset: what was written to `output`.
        found: files considered.
        read: files that are in the data set.
        skipped: (path, reason) of each that is not.
    """
    return {
        "files_found": found,
        "files_read": read,
        "files_skipped": [{"path": path, "reason": reason} for path, reason in skipped],
        "sequences": {name: len(split.lengths) for name, split in dataset.splits.items()},
        "frames": {name: len(split.frames) for name, split in dataset.splits.items()},
        "output": str(output),
    }
