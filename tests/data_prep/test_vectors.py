"""Texts as word vectors: every form of file, every word accounted for, no sentence on two sides."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from data_prep import store
from data_prep.vectors import load_vectors, prepare_vectors

WORDS = ["the", "cat", "Sat", ".", "don't", ". . .", "naïve"]
VECTORS = {word: np.arange(3, dtype=np.float32) + 10 * n + 0.5 for n, word in enumerate(WORDS)}


def text_form(header: bool, end: str = "\n") -> bytes:
    lines = [f"{word} " + " ".join(map(str, VECTORS[word])) for word in WORDS]
    return end.join([*([f"{len(WORDS)} 3"] if header else []), *lines, ""]).encode()


def binary_form(end: bytes = b"\n") -> bytes:
    rows = [
        w.encode() + b" " + struct.pack("<3f", *VECTORS[w]) + end for w in WORDS if " " not in w
    ]
    return f"{len(rows)} 3\n".encode() + b"".join(rows)


FILES = {
    "glove.txt": text_form(header=False),
    "word2vec.vec": text_form(header=True),
    "trailing.vec": text_form(header=True, end=" \n"),
    "word2vec.bin": binary_form(),
    "plain.bin": binary_form(end=b""),
    "glove.txt.gz": gzip.compress(text_form(header=False), mtime=0),
    "word2vec.bin.gz": gzip.compress(binary_form(), mtime=0),
}


@pytest.mark.parametrize("name", FILES)
def test_every_form_gives_the_same_vectors(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    wanted = {"cat", "Sat", "naïve", "dog"} | (set() if ".bin" in name else {". . ."})
    rows, table = load_vectors(tmp_path / name, wanted)
    assert rows.keys() == wanted - {"dog"} and table.dtype == np.float32
    assert table.shape == (len(rows), 3)
    for word, row in rows.items():
        np.testing.assert_array_equal(table[row], VECTORS[word])


def prepared(tmp_path: Path, text: str, segment_words: int = 0) -> tuple[dict, store.Dataset]:
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    (tmp_path / "glove.txt").write_bytes(FILES["glove.txt"])
    paths = (tmp_path / "text.txt", tmp_path / "glove.txt", tmp_path / "x.h5")
    return prepare_vectors(*paths, segment_words), store.read(tmp_path / "x.h5")


def spoken(split: store.Split) -> list[list[str]]:
    """The words again, by their first number."""
    return [[WORDS[int(v[0]) // 10] for v in frames] for frames in split.sequences()]


def test_words_are_looked_up_whole_in_lower_case_and_in_pieces(tmp_path: Path) -> None:
    lines = ["The CAT Sat.", "cat (don't) sat", "dog", "", "xyzzy Don't NAÏVE ."]
    result, dataset = prepared(tmp_path, "\n".join(lines))
    said = [words for split in dataset.splits.values() for words in spoken(split)]
    # "sat" is not "Sat", and brackets and dogs have no vector.
    assert said == [["the", "cat", "Sat", "."], ["cat", "don't"], ["don't", "naïve", "."]]
    assert result["words"] == {"found": 14, "without_vector": 5, "different": 6, "repeated": 0}
    assert dataset.splits["test"].source == ["text.txt: line 5"]
    assert dataset.attributes["frame_unit"] == "word" and dataset.attributes["frame_rate"] == 1.0
    assert dataset.attributes["kind"] == "continuous"


def test_a_word_as_it_stands_and_its_first_vector_win(tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("The 1\nthe 2\nThe 3\n")
    (tmp_path / "text.txt").write_text("The the THE\nthe\nThe")
    prepare_vectors(tmp_path / "text.txt", tmp_path / "v.txt", tmp_path / "x.h5")
    frames = store.read(tmp_path / "x.h5").splits["train"].frames
    assert np.asarray(frames).tolist() == [[1], [2], [2]]


def test_segments_of_the_running_text(tmp_path: Path) -> None:
    words = [WORDS[n % 5] for n in range(23)]
    text = "\n".join(" ".join(["dog", *words[n : n + 6]]) for n in range(0, 23, 6))
    _, dataset = prepared(tmp_path, text, 4)
    splits = dataset.splits
    assert [word for split in splits.values() for s in spoken(split) for word in s] == words
    assert [list(split.lengths) for split in splits.values()] == [[4] * 4, [4], [3]]
    assert splits["train"].source[1] == "text.txt: words 5 to 8"
    assert splits["test"].source == ["text.txt: words 21 to 23"]


def test_blocks_of_the_text_and_no_sentence_on_two_sides(tmp_path: Path) -> None:
    lines = [" ".join(WORDS[(n >> k) % 2] for k in range(5)) for n in range(20)]
    lines[3], lines[7], lines[8] = lines[16], lines[19], lines[9]  # repeated later; within train
    result, dataset = prepared(tmp_path, "\n".join(lines))
    numbers = {
        name: [int(source.rpartition(" ")[2]) - 1 for source in split.source]
        for name, split in dataset.splits.items()
    }
    train = [n for n in range(16) if n not in (3, 7)]
    assert numbers == {"train": train, "valid": [16, 17], "test": [18, 19]}
    assert result["words"]["repeated"] == 2
    assert result["sequences"] == {"train": 14, "valid": 2, "test": 2}
    for name, split in dataset.splits.items():
        assert [" ".join(words) for words in spoken(split)] == [lines[n] for n in numbers[name]]


def test_only_vectors_in_use_are_kept(tmp_path: Path) -> None:
    """A file of vectors far larger than what may be held of it."""
    import tracemalloc

    with (tmp_path / "glove.txt").open("w") as file:
        file.writelines(f"word{n} {'0.25 ' * 99}{n}\n" for n in range(20000))
    tracemalloc.start()
    _, table = load_vectors(tmp_path / "glove.txt", {"word7", "word19999"})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert table[:, -1].tolist() == [7, 19999]
    assert peak < 1e6 < 20000 * 100 * 4


GOOD = FILES["glove.txt"]


@pytest.mark.parametrize(
    ("text", "vectors", "says"),
    [
        (b"", GOOD, r"none of the 0 words"),
        (b"hund katze", GOOD, r"glove.*none of the 2 words"),
        (b"the cat\nSat", GOOD, r"text\.txt.*2 sequences"),
        (b"the \xff cat", GOOD, r"text\.txt: line 1 is not UTF-8"),
        (b"\x1f\x8bthe cat", GOOD, r"text\.txt: "),
        (b"the cat", b"", r"glove\.txt: none of"),
        (b"the cat", b"the 1 2 3\ncat 1 2\n", r"glove\.txt: line 2 has 2 numbers, not 3"),
        (b"the cat", b"the 1 2 3\ncat 1 x 3\n", r"glove\.txt: line 2 holds what is not a number"),
        (b"the cat", b"the 1 2 3\ncat 1 nan 3\n", r"glove\.txt: the vector of 'cat'"),
        (b"the cat", b"9" * (1 << 21), r"glove\.txt: a line of a megabyte"),
        (b"the cat", b"\x1f\x8b\x08\x00 not gzip", r"glove\.txt: "),
        (b"the cat", b"\0" * 500, r"glove\.txt: line 1"),
    ],
)
def test_malformed_files_are_refused_in_one_line(
    text: bytes, vectors: bytes, says: str, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_bytes(text)
    (tmp_path / "glove.txt").write_bytes(vectors)
    with pytest.raises(ValueError, match=says) as error:
        prepare_vectors(tmp_path / "text.txt", tmp_path / "glove.txt", tmp_path / "x.h5")
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["glove.txt", "text.txt"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (binary_form()[:-9], "ends in vector 6 of 6"),
        (binary_form()[:6], "ends within a word"),
        (b"the 1 2 3\n", "does not begin with two counts"),
        (b"1 0\nthe \n", "vectors have 0 numbers"),
        (b"1 99999999999999\nthe abc", "vectors have 99999999999999 numbers"),
        (gzip.compress(binary_form(), mtime=0)[:-20], "binary"),
    ],
)
def test_malformed_binary_vectors_are_refused(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "binary.bin").write_bytes(content)
    with pytest.raises(ValueError, match=says):
        load_vectors(tmp_path / "binary.bin", {"the", "naïve"})


def test_missing_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("the cat")
    with pytest.raises(FileNotFoundError, match=r"gone.*word vectors"):
        prepare_vectors(tmp_path / "text.txt", tmp_path / "gone", tmp_path / "x.h5")
    with pytest.raises(FileNotFoundError, match=r"gone.*text"):
        prepare_vectors(tmp_path / "gone", tmp_path / "text.txt", tmp_path / "x.h5")
