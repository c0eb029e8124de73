"""The store: what is written is read back, and nothing damaged is read at all."""

import hashlib
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

from data_prep import dataset, store

RATE = {"frame_rate": 4.0, "lowest_pitch": 21}


def binary_splits(seed: int = 0) -> dict[str, list[tuple[str, np.ndarray]]]:
    rng = np.random.default_rng(seed)

    def roll(length: int) -> np.ndarray:
        return (rng.random((length, 5)) < 0.3).astype(np.uint8)

    train = [("a", roll(3)), ("b", roll(1)), ("ä/c", roll(7))]
    return {"train": train, "valid": [("d", roll(4))], "test": []}


def continuous_splits(seed: int = 0) -> dict[str, list[tuple[str, np.ndarray]]]:
    rng = np.random.default_rng(seed)
    return {
        name: [(f"{name}{n}", rng.normal(3, 2, (n + 2, 4)).astype(np.float32)) for n in range(3)]
        for name in store.SPLITS
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    store.write(tmp_path / "data.h5", binary_splits(), kind="binary", **RATE)
    return tmp_path / "data.h5"


@pytest.mark.parametrize("kind", ["binary", "continuous"])
def test_reads_back_what_was_written(tmp_path: Path, kind: str) -> None:
    splits = binary_splits() if kind == "binary" else continuous_splits()
    written = store.write(tmp_path / "data.h5", splits, kind=kind, **RATE)
    data = store.read(tmp_path / "data.h5")
    assert data.attributes == written.attributes
    assert list(data.splits) == ["train", "valid", "test"]
    for name, split in data.splits.items():
        assert split.source == [source for source, _ in splits[name]]
        assert split.frames.dtype == (np.uint8 if kind == "binary" else np.float32)
        assert split.lengths.dtype == np.int64
        for sequence, (_, frames) in zip(split.sequences(), splits[name], strict=True):
            np.testing.assert_array_equal(sequence, frames)
            assert np.shares_memory(sequence, split.frames)


def test_layout_is_the_one_machines_read(file: Path) -> None:
    with h5py.File(file) as raw:
        assert set(raw) == {"train", "valid", "test"}
        assert raw["train/frames"].shape == (11, 5)
        assert raw["train/frames"].dtype == np.uint8
        assert raw["train/lengths"][:].tolist() == [3, 1, 7]
        assert raw["train/source"].asstr()[:].tolist() == ["a", "b", "ä/c"]
        assert raw["test/frames"].shape == (0, 5)
        assert raw.attrs["kind"] == "binary"
        assert raw.attrs["frame_rate"] == 4.0
        assert raw.attrs["lowest_pitch"] == 21
        assert (raw.attrs["mean"], raw.attrs["std"]) == (0.0, 1.0)


def test_fingerprint_is_the_documented_hash(file: Path) -> None:
    digest = hashlib.sha256(b"binary\n")
    for name, sequences in binary_splits().items():
        digest.update(f"{name} {len(sequences)} x 5\n".encode())
        digest.update(np.array([len(s) for _, s in sequences], "<i8").tobytes())
        digest.update(b"".join(s.tobytes() for _, s in sequences))
    assert store.read(file).attributes["fingerprint"] == digest.hexdigest()


def test_mean_and_std_are_of_the_training_frames(tmp_path: Path) -> None:
    splits = continuous_splits()
    splits["test"].append(("far", np.full((9, 4), 1e6, np.float32)))
    data = store.write(tmp_path / "d.h5", splits, kind="continuous", sample_rate=11025)
    cells = np.concatenate([frames.ravel() for _, frames in splits["train"]]).astype(float)
    assert data.attributes["mean"] == pytest.approx(cells.mean(), rel=1e-12)
    assert data.attributes["std"] == pytest.approx(cells.std(), rel=1e-12)
    given = store.write(tmp_path / "d.h5", splits, kind="continuous", frame_rate=1.0, mean=0.5)
    assert given.attributes["mean"] == 0.5


def test_one_split_alone_is_kept_and_all_are_verified(file: Path) -> None:
    data = store.read(file, "valid")
    assert list(data.splits) == ["valid"]
    assert data.splits["valid"].source == ["d"]
    flip_cell(file, "train")
    with pytest.raises(ValueError, match=r"changed or damaged"):
        store.read(file, "valid")
    with pytest.raises(ValueError, match=r"unknown split 'tset'"):
        store.read(file, "tset")


def flip_cell(file: Path, split: str) -> None:
    with h5py.File(file, "a") as raw:
        raw[f"{split}/frames"][0, 0] ^= 1


@pytest.mark.parametrize("split", ["train", "valid"])
def test_fingerprint_changes_with_a_single_cell(tmp_path: Path, split: str) -> None:
    splits = binary_splits()
    before = store.write(tmp_path / "a.h5", splits, kind="binary", **RATE)
    splits[split][0][1][0, 0] ^= 1
    after = store.write(tmp_path / "b.h5", splits, kind="binary", **RATE)
    assert before.attributes["fingerprint"] != after.attributes["fingerprint"]
    flip_cell(tmp_path / "b.h5", split)
    with pytest.raises(ValueError, match=r"b.h5: changed or damaged after it was prepared"):
        store.read(tmp_path / "b.h5")


def test_fingerprint_tells_where_sequences_are_cut() -> None:
    frames = np.zeros((4, 2), np.uint8)

    def of(*lengths: int) -> str:
        split = store.Split(frames, np.array(lengths), [""] * len(lengths))
        none = store.Split(frames[:0], np.array([], int), [])
        return store.fingerprint("binary", {"train": split, "valid": none, "test": none})

    assert len({of(4), of(1, 3), of(3, 1)}) == 3


def test_fingerprint_does_not_depend_on_how_the_file_holds_the_frames(file: Path) -> None:
    with h5py.File(file, "a") as raw:
        frames = raw["train/frames"][:]
        del raw["train/frames"]
        raw.create_dataset("train/frames", data=frames, chunks=(2, 5), compression="lzf")
    np.testing.assert_array_equal(store.read(file).splits["train"].frames, frames)


def test_sequences_may_come_from_a_generator_in_blocks_of_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    rolls = [(f"{n}", (rng.random((1 + n % 50, 88)) < 0.1).astype(np.uint8)) for n in range(300)]
    store.write(tmp_path / "whole.h5", {"train": rolls}, kind="binary", **RATE)
    monkeypatch.setattr(dataset, "BLOCK_BYTES", 100_000)  # a chunk and a half
    store.write(tmp_path / "parts.h5", {"train": iter(rolls)}, kind="binary", **RATE)
    whole, parts = (store.read(tmp_path / name) for name in ("whole.h5", "parts.h5"))
    assert whole.attributes == parts.attributes
    for one, (source, roll) in zip(parts.splits["train"].sequences(), rolls, strict=True):
        np.testing.assert_array_equal(one, roll, err_msg=source)


def test_frames_left_on_disk_are_the_same(file: Path) -> None:
    inside = store.read(file, in_memory=True).splits["train"]
    stored = store.read(file, in_memory=False).splits["train"]
    assert isinstance(inside.frames, np.ndarray)
    assert isinstance(stored.frames, store.StoredFrames)
    assert (len(stored.frames), stored.frames.shape) == (11, (11, 5))
    np.testing.assert_array_equal(stored.frames[2:7], inside.frames[2:7])
    np.testing.assert_array_equal(np.asarray(stored.frames), inside.frames)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(stored.frames))[:], inside.frames)
    for number, sequence in enumerate(stored.sequences()):
        np.testing.assert_array_equal(sequence, inside.sequence(number))


def test_what_would_fill_the_memory_stays_on_disk(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(store.read(file).splits["train"].frames, np.ndarray)
    monkeypatch.setattr(store, "_MEMORY_SHARE", 1 << 60)
    assert isinstance(store.read(file).splits["train"].frames, store.StoredFrames)


def test_labels_go_with_their_sequences(tmp_path: Path) -> None:
    def labels(source: str) -> dict[str, str]:
        return {"name": source, "vowel": str(source == "a")}

    written = store.write(tmp_path / "d.h5", binary_splits(), kind="binary", labels=labels, **RATE)
    read = store.read(tmp_path / "d.h5")
    for data in (written, read):
        wanted = {"name": ["a", "b", "ä/c"], "vowel": ["True", "False", "False"]}
        assert data.splits["train"].labels == wanted
        assert data.splits["test"].labels == {}
    unlabelled = store.write(tmp_path / "e.h5", binary_splits(), kind="binary", **RATE)
    assert unlabelled.attributes["fingerprint"] == read.attributes["fingerprint"]
    with pytest.raises(ValueError, match="label 'odd' is not given for every sequence"):
        store.write(
            tmp_path / "f.h5",
            binary_splits(),
            kind="binary",
            labels=lambda source: {"odd": ""} if source == "b" else {},
            **RATE,
        )


def test_blocks_smaller_than_a_split_read_the_same(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = store.read(file)
    monkeypatch.setattr(dataset, "BLOCK_BYTES", 10)  # two frames a block
    blocks = store.read(file)
    np.testing.assert_array_equal(whole.splits["train"].frames, blocks.splits["train"].frames)


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.h5", "b.h5"):
        store.write(tmp_path / name, binary_splits(), kind="binary", **RATE)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


BAD_TRAINING: dict[str, list[tuple[str, np.ndarray]]] = {
    "0 sequences to train on": [],
    "train sequence 0 .x.: frames are .0, 5.": [("x", np.zeros((0, 5), np.uint8))],
    "frames are .5,.": [("x", np.zeros(5, np.uint8))],
    "train sequence 1 .y.: 4 wide where the first is 5": [
        ("x", np.zeros((2, 5), np.uint8)),
        ("y", np.zeros((2, 4), np.uint8)),
    ],
    "NaN in frame 1, column 2": [("x", np.array([[0, 0, 0], [0, 0, np.nan]]))],
    "2 in frame 0, column 0; binary": [("x", np.full((1, 3), 2))],
    "-1 in frame 0": [("x", np.full((1, 3), -1))],
}


@pytest.mark.parametrize("message", BAD_TRAINING)
def test_refuses_frames_no_model_could_use(tmp_path: Path, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        store.write(tmp_path / "d.h5", {"train": BAD_TRAINING[message]}, kind="binary", **RATE)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_refuses_to_write_what_is_not_finite(tmp_path: Path, value: float) -> None:
    splits = continuous_splits()
    splits["valid"][2][1][3, 1] = value
    with pytest.raises(ValueError, match=r"valid sequence 2 \(valid2\): .* in frame 3, column 1"):
        store.write(tmp_path / "d.h5", splits, kind="continuous", **RATE)


def test_refuses_unknown_kinds_splits_and_a_missing_rate(tmp_path: Path) -> None:
    path, splits = tmp_path / "d.h5", binary_splits()
    with pytest.raises(ValueError, match=r"kind is 'boolean'"):
        store.write(path, splits, kind="boolean", **RATE)
    with pytest.raises(ValueError, match=r"unknown split 'validation'"):
        store.write(path, {**splits, "validation": []}, kind="binary", **RATE)
    with pytest.raises(ValueError, match=r"frame_rate or a sample_rate"):
        store.write(path, splits, kind="binary")


def test_a_failed_write_leaves_the_older_file_alone(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(TypeError):  # HDF5 holds no such attribute: fails with the file half made
        store.write(file, binary_splits(1), kind="binary", made_by=object(), **RATE)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_replacing_removes_the_half_written_file_on_an_interrupt(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), store.replacing(tmp_path / "d.h5") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_names_a_missing_folder_and_a_folder_given_for_a_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"the folder .*absent does not exist"):
        store.write(tmp_path / "absent" / "d.h5", binary_splits(), kind="binary", **RATE)
    with pytest.raises(OSError, match=r"is a folder"):
        store.write(tmp_path, binary_splits(), kind="binary", **RATE)


def test_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no.h5: no such file; make it with `cgrnn prepare"
    ):
        store.read(tmp_path / "no.h5")


@pytest.mark.parametrize("part", [0, 10, 0.3, 0.7, 0.95])
def test_truncated_file_is_one_clear_line(tmp_path: Path, part: float) -> None:
    file = tmp_path / "data.h5"
    frames = np.random.default_rng(0).integers(0, 2, (5000, 88))
    store.write(file, {"train": [("x", frames)]}, kind="binary", **RATE)
    data = file.read_bytes()
    file.write_bytes(data[: int(part if part >= 1 else part * len(data))])
    with pytest.raises(ValueError, match=r"data.h5: not an HDF5 file, or damaged") as caught:
        store.read(file)
    assert "\n" not in str(caught.value)


def test_damaged_block_is_one_clear_line(tmp_path: Path) -> None:
    file = tmp_path / "data.h5"
    frames = np.random.default_rng(0).integers(0, 2, (9000, 88))
    store.write(file, {"train": [("x", frames)]}, kind="binary", **RATE)
    data = bytearray(file.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)  # within the compressed frames
    file.write_bytes(data)
    with pytest.raises(ValueError, match=r"data.h5: (not an HDF5 file, or )?(damaged|changed)"):
        store.read(file)


def test_nan_in_a_continuous_file_is_named_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "data.h5"
    store.write(file, continuous_splits(), kind="continuous", **RATE)
    with h5py.File(file, "a") as raw:
        raw["test/frames"][2 + 3 + 1, 3] = np.nan  # sequences of 2, 3 and 4 frames
    with pytest.raises(ValueError, match=r"data.h5: test sequence 2: NaN in frame 1, column 3"):
        store.read(file)


def test_nan_in_float_frames_of_a_binary_file_is_named(file: Path) -> None:
    with h5py.File(file, "a") as raw:
        frames = raw["train/frames"][:].astype(np.float64)
        frames[3, 4] = np.nan
        del raw["train/frames"]
        raw["train/frames"] = frames
    with pytest.raises(ValueError, match=r"data.h5: train sequence 1: NaN in frame 0, column 4"):
        store.read(file)


def test_binary_frames_hold_zero_and_one_only(file: Path) -> None:
    with h5py.File(file, "a") as raw:
        raw["valid/frames"][1, 2] = 7
    with pytest.raises(ValueError, match=r"valid sequence 0: 7 in frame 1, column 2; binary"):
        store.read(file)


@pytest.mark.parametrize("name", ["kind", "frame_rate", "mean", "std", "fingerprint"])
def test_names_a_missing_attribute(file: Path, name: str) -> None:
    with h5py.File(file, "a") as raw:
        del raw.attrs[name]
    with pytest.raises(ValueError, match=f"attribute '{name}' is missing"):
        store.read(file)


@pytest.mark.parametrize("name", ["train/frames", "valid/lengths", "test/source", "test"])
def test_names_a_missing_member(file: Path, name: str) -> None:
    with h5py.File(file, "a") as raw:
        del raw[name]
    with pytest.raises(ValueError, match=f"/{name}.* is missing; run `cgrnn prepare` again"):
        store.read(file)


def test_lengths_must_add_up_to_the_frames(file: Path) -> None:
    with h5py.File(file, "a") as raw:
        raw["train/lengths"][0] = 2
    with pytest.raises(ValueError, match=r"train lengths add up to 10 in 3 .* 11 frames"):
        store.read(file)
