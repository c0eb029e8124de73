"""Train, validation and test: by piece, never by excerpt."""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterable, Sequence
from itertools import pairwise

from data_prep.store import SPLITS


def split_by(
    keys: Sequence[Hashable],
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
) -> list[str]:
    """The split of each item, such that items with equal keys share one.

    The same keys get the same splits in whatever order they come. Fractions count keys, not
    items. With three keys or more, every split with a fraction above zero gets at least one.

    Args:
        keys: one an item, usually the name of its piece.
        fractions: of train, valid and test; they add up to one.
        seed: of the shuffle.

    >>> split_by(["a", "b", "c", "a"], (0.5, 0.25, 0.25))
    ['train', 'test', 'valid', 'train']
    """
    check_fractions(fractions)
    unique = sorted(set(keys), key=repr)
    random.Random(seed).shuffle(unique)
    names = [
        name
        for name, count in zip(SPLITS, _counts(len(unique), fractions), strict=True)
        for _ in range(count)
    ]
    split = dict(zip(unique, names, strict=True))
    return [split[key] for key in keys]


def check_fractions(fractions: tuple[float, float, float]) -> None:
    """Raise ValueError unless these are three parts of a whole."""
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"fractions are {fractions}; give three, for train, valid, test, of sum 1")


def same(labels: Sequence[Hashable]) -> list[tuple[int, int]]:
    """Pairs (first, later) of the items with equal labels, for `linked`.

    >>> same("abab")
    [(0, 2), (1, 3)]
    """
    return sharing((label,) for label in labels)


def sharing(labels: Iterable[Iterable[Hashable]]) -> list[tuple[int, int]]:
    """Pairs (first, later) of the items with any label in common, for `linked`.

    >>> sharing([("a", "b"), ("c",), ("d", "b")])
    [(0, 2)]
    """
    first: dict[Hashable, int] = {}
    pairs = [(first.setdefault(label, n), n) for n, its in enumerate(labels) for label in its]
    return [(a, b) for a, b in pairs if a != b]


def linked(total: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """For each of `total` items the first item that a chain of pairs links it to.

    >>> linked(5, [(3, 1), (4, 3)])
    [0, 1, 2, 1, 1]
    """
    parent = list(range(total))

    def first(n: int) -> int:
        while parent[n] != n:
            parent[n] = n = parent[parent[n]]
        return n

    for a, b in pairs:
        a, b = sorted((first(a), first(b)))
        parent[b] = a
    return [first(n) for n in range(total)]


def _counts(total: int, fractions: tuple[float, float, float]) -> list[int]:
    """Whole numbers near `fractions` of `total` that add up to it."""
    edges = [round(total * sum(fractions[:n])) for n in range(4)]
    counts = [after - before for before, after in pairwise(edges)]
    if total >= 3:
        for n, fraction in enumerate(fractions):
            if fraction > 0 and counts[n] == 0:
                counts[n] += 1
                counts[counts.index(max(counts))] -= 1
    return counts
