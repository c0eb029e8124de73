"""Files are found and read alike in folders, archives and archives within archives."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from data_prep import files
from data_prep.workers import Failed

CONTENT = {"b/x.MID": b"one", "b/y.mid": b"two", "a.mid": b"three", "b/note.txt": b"no"}
SUFFIXES = (".mid", ".midi")


def zipped(content: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return packed.getvalue()


def tarred(content: dict[str, bytes], mode: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as archive:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def read(*paths: Path) -> dict[str, bytes | Failed]:
    found = files.find(paths, SUFFIXES, "MIDI")
    return {f.name: content for f, content in zip(found, files.contents(found), strict=True)}


def test_a_folder_and_its_archives(tmp_path: Path) -> None:
    for name, data in CONTENT.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "._a.mid").write_bytes(b"Apple's")
    shadow = {"__MACOSX/._x.mid": b"Apple's"}
    inner = {"in.zip": zipped({"deep/z.mid": b"four", "a.mid": b"five"}), "x.mid": b"six"}
    (tmp_path / "set.zip").write_bytes(zipped(inner | shadow))
    (tmp_path / "set.tar.gz").write_bytes(tarred(CONTENT, "w:gz"))
    assert list(read(tmp_path).items()) == [
        ("a.mid", b"three"),
        ("b/x.MID", b"one"),
        ("b/y.mid", b"two"),
        ("set.tar.gz/b/x.MID", b"one"),
        ("set.tar.gz/b/y.mid", b"two"),
        ("set.tar.gz/a.mid", b"three"),
        ("set.zip/in.zip/a.mid", b"five"),
        ("set.zip/in.zip/deep/z.mid", b"four"),
        ("set.zip/x.mid", b"six"),
    ]


def test_names_are_within_what_the_inputs_share(tmp_path: Path) -> None:
    for place in ("one/a.mid", "two/b.mid", "two/c.zip"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_bytes(zipped({"d.mid": b""}))
    names = list(read(tmp_path / "one/a.mid", tmp_path / "two"))
    assert names == ["one/a.mid", "two/b.mid", "two/c.zip/d.mid"]
    assert list(read(tmp_path / "two/c.zip")) == ["c.zip/d.mid"]


def test_some_members_of_a_tar_are_read_in_one_pass(tmp_path: Path) -> None:
    many = {f"{n:03}.mid": bytes([n]) for n in range(200)}
    path = tmp_path / "many.tar"
    path.write_bytes(tarred(many, "w"))
    some = files.find(path, SUFFIXES, "MIDI")[5::7]
    assert list(files.contents(some)) == [bytes([n]) for n in range(5, 200, 7)]


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_damage_costs_what_it_hides(tmp_path: Path, kind: str) -> None:
    noise = bytes(range(256)) * 40
    content = {f"{n}.mid": bytes([n]) + noise for n in range(6)}
    whole = zipped(content) if kind == "zip" else tarred(content, "w:gz" if "gz" in kind else "w")
    path = tmp_path / f"set.{kind}"
    path.write_bytes(whole)
    found = files.find(tmp_path, SUFFIXES, "MIDI")
    assert len(found) == 6
    broken = bytearray(whole)
    middle = len(whole) // 2
    broken[middle : middle + 60] = bytes(60)
    path.write_bytes(bytes(broken) if kind == "zip" else whole[:middle])
    (tmp_path / "good.mid").write_bytes(b"good")
    results = list(files.contents([files.File("good.mid", str(tmp_path / "good.mid")), *found]))
    assert results[0] == b"good" and len(results) == 7
    assert any(isinstance(result, Failed) for result in results[1:])
    for n, result in enumerate(results[1:]):
        assert isinstance(result, Failed) or result == content[f"{n}.mid"]


def test_an_archive_that_is_none_is_named_beside_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.mid").write_bytes(b"one")
    for name in ("text.zip", "text.tar.gz"):
        (tmp_path / name).write_text("not an archive")
    results = read(tmp_path)
    assert results.pop("a.mid") == b"one"
    assert list(results) == ["text.tar.gz", "text.zip"]
    for result in results.values():
        assert isinstance(result, Failed) and "not a readable archive" in result.reason
    with pytest.raises(
        ValueError, match=r"text.zip: no .mid or .midi file found \(text.zip: not a"
    ):
        read(tmp_path / "text.zip")


def test_what_is_gone_or_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match="gone: no such file or folder; give MIDI files"):
        read(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"no .mid or .midi file found; give a folder"):
        read(tmp_path)
    (tmp_path / "a.mid").write_bytes(b"12345")
    (tmp_path / "b.mid").write_bytes(b"1234")
    monkeypatch.setattr(files, "LARGEST", 4)
    assert read(tmp_path) == {"a.mid": Failed("larger than a gigabyte"), "b.mid": b"1234"}
    found = files.find(tmp_path, SUFFIXES, "MIDI")
    (tmp_path / "b.mid").unlink()
    (_, gone) = files.contents(found)
    assert isinstance(gone, Failed) and "No such file" in gone.reason
