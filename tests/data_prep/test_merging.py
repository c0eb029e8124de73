"""Joined data sets: every sequence of each, where it was, and none on two sides."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep import store
from data_prep.merging import merge

Rolls = dict[str, list[int]]


def roll(seed: int, visible: int = 6) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.random((3 + seed % 4, visible)) < 0.5).astype(np.uint8)


def save(path: Path, rolls: Rolls, visible: int = 6, **attributes: Any) -> Path:
    """A data set whose sequences are known by their seeds."""
    splits = {name: [(f"p{n}", roll(n, visible)) for n in seeds] for name, seeds in rolls.items()}
    described = {"kind": "binary", "frame_rate": 4.0, "lowest_pitch": 60, **attributes}
    store.write(path, splits, **described)
    return path


def sources(path: Path) -> dict[str, list[str]]:
    """Of each split, having checked that the frames are those of the source."""
    dataset = store.read(path)
    for split in dataset.splits.values():
        for source, frames in zip(split.source, split.sequences(), strict=True):
            np.testing.assert_array_equal(frames, roll(int(source.rpartition("p")[2])))
    return {name: split.source for name, split in dataset.splits.items()}


def test_every_sequence_is_in_its_split_under_the_name_of_its_set(tmp_path: Path) -> None:
    a = save(tmp_path / "a.h5", {"train": [1, 2], "valid": [3], "test": [4]})
    b = save(tmp_path / "b.h5", {"train": [5], "test": [6, 7]})
    result = merge([a, b], tmp_path / "c.h5")
    assert sources(tmp_path / "c.h5") == {
        "train": ["a/p1", "a/p2", "b/p5"],
        "valid": ["a/p3"],
        "test": ["a/p4", "b/p6", "b/p7"],
    }
    assert result["sequences"] == {"train": 3, "valid": 1, "test": 3}
    assert result["dropped"] == {"train": 0, "valid": 0, "test": 0}
    assert result["frames"]["test"] == sum(len(roll(n)) for n in (4, 6, 7))


def test_what_is_on_two_sides_stays_in_the_test_alone(tmp_path: Path) -> None:
    a = save(tmp_path / "a.h5", {"train": [1, 2, 3, 1], "valid": [4, 5], "test": [6]})
    b = save(tmp_path / "b.h5", {"train": [4, 6, 7], "valid": [6, 8], "test": [2, 5]})
    result = merge([a, b], tmp_path / "c.h5")
    assert sources(tmp_path / "c.h5") == {
        "train": ["a/p1", "a/p3", "a/p1", "b/p7"],
        "valid": ["a/p4", "b/p8"],
        "test": ["a/p6", "b/p2", "b/p5"],
    }
    assert result["dropped"] == {"train": 3, "valid": 2, "test": 0}


def test_nothing_left_to_train_on_is_said(tmp_path: Path) -> None:
    a = save(tmp_path / "a.h5", {"train": [1], "test": [2]})
    b = save(tmp_path / "b.h5", {"train": [2], "test": [1]})
    with pytest.raises(ValueError, match="all that these sets train on"):
        merge([a, b], tmp_path / "c.h5")
    assert not (tmp_path / "c.h5").exists()


def test_attributes_that_all_share_are_kept(tmp_path: Path) -> None:
    a = save(tmp_path / "a.h5", {"train": [1]}, name="A", frame_unit="second", maker="x")
    b = save(tmp_path / "b.h5", {"train": [2]}, name="B", frame_unit="second", maker="y")
    merge([a, b], tmp_path / "c.h5")
    attributes = store.read(tmp_path / "c.h5").attributes
    assert attributes["name"] == "a + b" and attributes["frame_unit"] == "second"
    assert attributes["frame_rate"] == 4.0 and attributes["lowest_pitch"] == 60
    assert "maker" not in attributes


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"frame_rate": 2.0}, "frame_rate 2.0, but .*a.h5 has 4.0"),
        ({"lowest_pitch": 21}, "lowest_pitch 21, but .*a.h5 has 60"),
        ({"lowest_pitch": None}, "lowest_pitch none, but .*a.h5 has 60"),
        ({"visible": 7}, "frame width 7, but .*a.h5 has 6"),
        ({"kind": "continuous"}, "kind continuous, but .*a.h5 has binary"),
        ({"sample_rate": 8000}, "sample_rate 8000, but .*a.h5 has none"),
    ],
)
def test_sets_that_do_not_fit_are_refused(other: dict[str, Any], says: str, tmp_path: Path) -> None:
    a = save(tmp_path / "a.h5", {"train": [1]})
    b = save(tmp_path / "b.h5", {"train": [2]}, **other)
    with pytest.raises(ValueError, match=says):
        merge([a, b], tmp_path / "c.h5")
    assert not (tmp_path / "c.h5").exists()


def test_files_of_one_name_are_told_apart_and_one_file_twice_refused(tmp_path: Path) -> None:
    for folder in "xy":
        (tmp_path / folder).mkdir()
    x = save(tmp_path / "x" / "data.h5", {"train": [1]})
    y = save(tmp_path / "y" / "data.h5", {"train": [2]})
    merge([x, y], tmp_path / "c.h5")
    assert sources(tmp_path / "c.h5")["train"] == ["x/data/p1", "y/data/p2"]
    with pytest.raises(ValueError, match="given twice"):
        merge([x, tmp_path / "y" / ".." / "x" / "data.h5"], tmp_path / "c.h5")
    with pytest.raises(ValueError, match="two data sets"):
        merge([x], tmp_path / "c.h5")


def test_labels_go_with_their_sequences(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def sounds(names: str) -> list[tuple[str, np.ndarray]]:
        return [(name, rng.normal(size=(2, 5)).astype(np.float32)) for name in names]

    same = {"kind": "continuous", "sample_rate": 8000}
    a, b = ({"train": sounds("abc"), "test": sounds("d")}, {"train": sounds("ef")})
    store.write(tmp_path / "a.h5", a, labels=lambda name: {"effect": f"E{name}"}, **same)
    store.write(tmp_path / "b.h5", b, labels=lambda name: {"string": f"S{name}"}, **same)
    merge([tmp_path / "a.h5", tmp_path / "b.h5"], tmp_path / "c.h5")
    merged = store.read(tmp_path / "c.h5")
    train, test = merged.splits["train"].labels, merged.splits["test"].labels
    assert train == {"effect": ["Ea", "Eb", "Ec", "", ""], "string": ["", "", "", "Se", "Sf"]}
    assert test == {"effect": ["Ed"], "string": [""]}
    frames = np.concatenate([s for _, s in [*a["train"], *b["train"]]])
    assert merged.attributes["mean"] == pytest.approx(frames.mean(dtype=float), rel=1e-6)
    assert merged.attributes["std"] == pytest.approx(frames.std(dtype=float), rel=1e-6)


def test_sets_are_not_held_in_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in "ab":
        sounds = ((f"s{n}", rng.normal(size=(100, 1000)).astype(np.float32)) for n in range(200))
        splits = {"train": sounds}
        store.write(tmp_path / f"{name}.h5", splits, kind="continuous", sample_rate=8000)
    tracemalloc.start()
    merge([tmp_path / "a.h5", tmp_path / "b.h5"], tmp_path / "c.h5")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e7 < (tmp_path / "c.h5").stat().st_size
    assert len(store.read(tmp_path / "c.h5", in_memory=False).splits["train"].lengths) == 400
