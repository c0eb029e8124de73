"""The standard piano-roll files: their own splits, and one clear line for malformed ones."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from data_prep import store
from data_prep.pianorolls import load, prepare_pianorolls

DATA = Path(__file__).resolve().parents[2].parent / "shared/data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA}")
MAT, NPZ = DATA / "pianorolls/JSB_Chorales.mat", DATA / "pianorolls-srnn"


def rolls(*lengths: int) -> list[np.ndarray]:
    rng = np.random.default_rng(sum(lengths))
    return [(rng.random((n, 88)) < 0.05).astype(np.uint8) for n in lengths]


def save_mat(path: Path, **splits: list[np.ndarray]) -> Path:
    cells = {}
    for name, pieces in splits.items():
        cells[name] = np.empty((1, len(pieces)), object)
        cells[name][0, :] = pieces
    savemat(path, cells)
    return path


def npz(**changes: Any) -> dict[str, Any]:
    mask = np.array([[1, 1, 1, 0], [1, 1, 1, 1]], np.float32)
    content = {
        "x_train": np.stack(rolls(100, 100)).astype(np.float32),
        "x_valid": np.stack(rolls(100)).astype(np.float32),
        "x_test": np.stack(rolls(4, 4)).astype(np.float32) * mask[..., None],
        "mask_test": mask,
    }
    return {name: value for name, value in {**content, **changes}.items() if value is not None}


def test_mat_keeps_its_splits(tmp_path: Path) -> None:
    train, valid, test = rolls(5, 9), rolls(3), rolls(4, 2, 8)
    path = save_mat(tmp_path / "set.mat", traindata=train, validdata=valid, testdata=test)
    loaded = load(path)
    for name, pieces in (("train", train), ("valid", valid), ("test", test)):
        assert [source for source, _ in loaded[name]] == [
            f"set/{name}/{n}" for n in range(len(pieces))
        ]
        for (_, roll), piece in zip(loaded[name], pieces, strict=True):
            np.testing.assert_array_equal(roll, piece)
            assert roll.dtype == np.uint8


def test_npz_test_rolls_end_where_the_mask_does(tmp_path: Path) -> None:
    content = npz()
    np.savez(tmp_path / "set.npz", **content)
    loaded = load(tmp_path / "set.npz")
    assert [len(roll) for _, roll in loaded["test"]] == [3, 4]
    assert [len(roll) for _, roll in loaded["train"]] == [100, 100]
    np.testing.assert_array_equal(loaded["test"][1][1], content["x_test"][1])


@needs_data
def test_real_mat_is_stored_cell_for_cell(tmp_path: Path) -> None:
    summary = prepare_pianorolls(MAT, tmp_path / "jsb.h5")
    assert summary == {
        "files_found": 1,
        "files_read": 1,
        "files_skipped": [],
        "sequences": {"train": 229, "valid": 76, "test": 77},
        "frames": {"train": 13807, "valid": 4602, "test": 4725},
        "output": str(tmp_path / "jsb.h5"),
    }
    data = store.read(tmp_path / "jsb.h5")
    assert data.splits["train"].source[17] == "JSB_Chorales/train/17"
    assert (data.attributes["frame_unit"], data.attributes["frame_rate"]) == ("quarter note", 2.0)
    assert data.attributes["lowest_pitch"] == 21
    raw = loadmat(MAT)
    for name, split in data.splits.items():
        np.testing.assert_array_equal(split.frames, np.concatenate(list(raw[f"{name}data"][0])))


@needs_data
def test_real_npz_has_the_frames_of_its_mask(tmp_path: Path) -> None:
    path = next(NPZ.glob("jsb*.npz"))
    summary = prepare_pianorolls(path, tmp_path / "jsb.h5")
    assert summary["sequences"] == {"train": 272, "valid": 80, "test": 77}
    raw = np.load(path)
    assert summary["frames"]["test"] == raw["mask_test"].sum()
    data = store.read(tmp_path / "jsb.h5")
    assert data.splits["test"].frames.sum() == raw["x_test"].sum()
    assert (data.attributes["frame_unit"], data.attributes["frame_rate"]) == ("eighth note", 4.0)


def one_line(path: Path, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)


@pytest.mark.parametrize("name", ["x.mat", "x.npz"])
@pytest.mark.parametrize("content", [b"", b"no such thing", b"PK\x03\x04 broken", b"MATLAB" * 40])
def test_unreadable_files_are_one_clear_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    one_line(tmp_path / name, "not a readable")


def test_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"x.mat: no such file"):
        load(tmp_path / "x.mat")
    (tmp_path / "x.csv").write_text("1,2")
    one_line(tmp_path / "x.csv", "not a .mat or .npz file")


def test_malformed_mat_contents_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.mat"
    save_mat(path, traindata=rolls(3), testdata=rolls(3))
    one_line(path, "holds testdata, traindata, but not validdata")
    good = {"traindata": rolls(3), "validdata": rolls(3)}
    save_mat(path, testdata=[np.zeros((3, 87))], **good)
    one_line(path, r"x/test/0: shape \(3, 87\), must be \(frames, 88\)")
    save_mat(path, testdata=[np.full((3, 88), np.nan)], **good)
    one_line(path, "x/test/0: holds something other than 0 and 1")


def test_malformed_npz_contents_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, **npz(mask_test=None))
    one_line(path, "but not mask_test")
    np.savez(path, **npz(mask_test=np.ones((2, 3))))
    one_line(path, r"mask_test is \(2, 3\) where x_test is \(2, 4, 88\)")
    np.savez(path, **npz(mask_test=np.array([[0, 1, 1, 1], [1, 1, 1, 1]])))
    one_line(path, "must be ones, then zeros")
    np.savez(path, **npz(x_valid=np.full((1, 100, 88), 0.5)))
    one_line(path, "x/valid/0: holds something other")
    np.savez(path, **npz(x_train=np.array([{"a": 1}], dtype=object)))
    one_line(path, "not a readable .npz file.*pickle")


@needs_data
def test_the_first_frame_may_be_told(tmp_path: Path) -> None:
    path = next(NPZ.glob("jsb*.npz"))
    prepare_pianorolls(path, tmp_path / "jsb.h5", "input")
    raw, data = np.load(path), store.read(tmp_path / "jsb.h5")
    assert data.attributes["given_frames"] == 1
    for name, split in data.splits.items():
        first = next(split.sequences())
        np.testing.assert_array_equal(first[0], raw[f"u_{name}"][0, 0])
        np.testing.assert_array_equal(first[1:], raw[f"x_{name}"][0, : len(first) - 1])
    prepare_pianorolls(MAT, tmp_path / "mat.h5", "input")
    data = store.read(tmp_path / "mat.h5")
    assert (data.attributes["given_frames"], len(data.splits["test"].frames)) == (1, 4725)
    with pytest.raises(ValueError, match="first_frame: expected one of scored, input"):
        prepare_pianorolls(MAT, tmp_path / "x.h5", "none")
