"""Compressed copies of the files of a static service."""

from __future__ import annotations

import errno
import gzip
import os
from pathlib import Path
from typing import Any

import pytest

from lapwing.build.precompress import precompress
from lapwing.errors import BuildError


def test_copies_are_the_same_bytes_for_the_same_content(tmp_path: Path) -> None:
    text = "let a = 1;" * 100
    for folder, time in (("one", 1), ("two", 1_000_000_000)):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "app.js"
        path.write_text(text)
        os.utime(path, (time, time))
        precompress(tmp_path / folder)
    first, second = ((tmp_path / name / "app.js.gz").read_bytes() for name in ("one", "two"))
    assert first == second
    assert gzip.decompress(first).decode() == text
    assert first[:10] == b"\x1f\x8b\x08\0\0\0\0\0\x02\xff", "no name, no time, no system"


def test_only_files_that_get_smaller_have_a_copy(tmp_path: Path) -> None:
    (tmp_path / "small.js").write_text("a" * 511)
    (tmp_path / "random.js").write_bytes(os.urandom(2000))
    (tmp_path / "photo.jpg").write_bytes(b"a" * 2000)
    (tmp_path / "page.html").write_bytes(b"a" * 2000)
    (tmp_path / "link.html").symlink_to("page.html")
    precompress(tmp_path)
    assert [path.name for path in tmp_path.glob("*.gz")] == ["page.html.gz"]


@pytest.mark.parametrize("name", ["app.js", "photo.png", "LICENSE", "link", "folder/data.tar"])
def test_copy_of_the_site_is_kept_unless_it_has_other_content(tmp_path: Path, name: str) -> None:
    """Caddy serves a copy for a file of any type, and for a link."""
    content = b"a" * 3_000_000
    path, copy = tmp_path / name, tmp_path / f"{name}.gz"
    path.parent.mkdir(exist_ok=True)
    if name == "link":
        (tmp_path / "target").write_bytes(content)
        path.symlink_to("target")
    else:
        path.write_bytes(content)
    given = gzip.compress(content, 1)
    copy.write_bytes(given)
    precompress(tmp_path)
    assert copy.read_bytes() == given
    others = (content[:-1], content + b"a", b"old", b"")
    for wrong in (*map(gzip.compress, others), b"no gzip", b"", given[:-4], given + b"a"):
        copy.write_bytes(wrong)
        with pytest.raises(BuildError, match=rf"{name}\.gz is served as {name}, but"):
            precompress(tmp_path)


def test_files_that_are_no_copies_are_unchanged(tmp_path: Path) -> None:
    (tmp_path / ".gz").write_text("no name")
    (tmp_path / "folder").mkdir()
    for name in ("alone.js.gz", "folder.gz", "app.js.br", "app.js.zst"):
        (tmp_path / name).write_text("not compressed")
    for name in ("app.js", "style.css"):
        (tmp_path / name).write_text("a" * 2000)
    for target in ("missing", "app.js.gz"):
        (tmp_path / "app.js.gz").unlink(missing_ok=True)
        (tmp_path / "app.js.gz").symlink_to(target)
        precompress(tmp_path)
    names = [".gz", "alone.js.gz", "app.js.gz", "folder.gz", "style.css.gz"]
    assert sorted(path.name for path in tmp_path.glob("*.gz")) == names


def test_file_whose_name_is_too_long_for_a_copy_has_none(tmp_path: Path) -> None:
    (tmp_path / f"{'a' * 252}.js").write_text("a" * 2000)
    (tmp_path / f"{'é' * 125}.js").write_text("a" * 2000)
    precompress(tmp_path)
    assert list(tmp_path.glob("*.gz")) == []


def test_unreadable_copy_is_an_access_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "app.js").write_text("a")
    (tmp_path / "app.js.gz").write_bytes(gzip.compress(b"a"))
    real = Path.open

    def refuse(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.suffix == ".gz":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PermissionError):
        precompress(tmp_path)
