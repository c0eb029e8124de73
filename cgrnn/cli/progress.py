"""Progress bars on standard error, for a person who watches."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bar(unit: str) -> Iterator[Callable[..., None]]:
    """Yield `progress(done, total, skipped=None)`; a new total begins a new bar."""
    from tqdm import tqdm

    shown = sys.stderr.isatty()
    with tqdm(unit=unit, unit_scale=True, file=sys.stderr, disable=not shown, leave=False) as line:

        def progress(done: int, total: int, skipped: int | None = None) -> None:
            if total != line.total:
                line.reset(total)
            if skipped is not None:
                line.set_postfix(skipped=skipped, refresh=False)
            line.update(done - line.n)

        yield progress
