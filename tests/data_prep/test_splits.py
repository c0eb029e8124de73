"""Splits: by key, reproducible, and in proportion."""

import random
from collections import Counter

import pytest

from data_prep.splits import linked, same, sharing, split_by


def test_items_with_equal_keys_share_a_split() -> None:
    keys = [f"piece {n % 40}" for n in range(400)]
    homes: dict[str, set[str]] = {}
    for key, split in zip(keys, split_by(keys), strict=True):
        homes.setdefault(key, set()).add(split)
    assert all(len(splits) == 1 for splits in homes.values())
    assert Counter(split for (split,) in homes.values()) == {"train": 32, "valid": 4, "test": 4}


def test_does_not_depend_on_the_order_of_items() -> None:
    keys = [f"piece {n}" for n in range(50)]
    shuffled = random.Random(3).sample(keys, len(keys))
    one = dict(zip(keys, split_by(keys, seed=7), strict=True))
    other = dict(zip(shuffled, split_by(shuffled, seed=7), strict=True))
    assert one == other


def test_the_seed_decides() -> None:
    keys = list(range(50))
    assert split_by(keys, seed=1) == split_by(keys, seed=1)
    assert split_by(keys, seed=1) != split_by(keys, seed=2)


@pytest.mark.parametrize("total", [3, 4, 5, 9])
def test_every_split_asked_for_gets_a_key(total: int) -> None:
    assert set(split_by(list(range(total)), (0.98, 0.01, 0.01))) == {"train", "valid", "test"}


def test_a_split_not_asked_for_gets_none() -> None:
    assert Counter(split_by(list(range(10)), (0.9, 0.1, 0.0))) == {"train": 9, "valid": 1}


@pytest.mark.parametrize("total", [0, 1, 2])
def test_with_too_few_keys_training_comes_first(total: int) -> None:
    assert split_by(list(range(total))) == ["train"] * total


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.5, 0.6, 0.1), (1.2, -0.1, -0.1)])
def test_refuses_fractions_that_are_none(fractions: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"fractions are"):
        split_by([1, 2, 3], fractions)  # type: ignore[arg-type]


def test_linked_follows_chains_whatever_their_order() -> None:
    pairs = [(5, 4), (2, 3), (4, 3)]
    assert linked(7, pairs) == [0, 1, 2, 2, 2, 2, 6]
    assert linked(7, pairs[::-1]) == [0, 1, 2, 2, 2, 2, 6]
    assert linked(4, same("abca")) == [0, 1, 2, 0]


def test_sharing_any_label_links() -> None:
    labels = [("a", "x"), ("b",), ("c", "b"), ("x", "c"), ("d",)]
    assert linked(5, sharing(labels)) == [0, 0, 0, 0, 4]
    assert linked(5, sharing(labels[::-1])) == [0, 1, 1, 1, 1]
