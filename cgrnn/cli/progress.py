"""Progress bars on standard error, for a person who watches."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bar(unit: str) -> Iterator[Callable[..., None]]:
    """Yield `progress(done, total, skipped=None, stage="")`, which shows the time left; a new total
    or stage begins a new bar."""
    from tqdm import tqdm

    shown = sys.stderr.isatty()
    with tqdm(unit=unit, unit_scale=True, file=sys.stderr, disable=not shown, leave=False) as line:
        last = ""

        def progress(done: int, total: int, skipped: int | None = None, stage: str = "") -> None:
            nonlocal last
            if (total, stage) != (line.total, last):
                line.set_description(stage, refresh=False)
                line.reset(total)
                last = stage
            if skipped is not None:
                line.set_postfix(skipped=skipped, refresh=False)
            line.update(done - line.n)

        yield progress
