"""Compressed copies of the files of a static service."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

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


def test_copy_of_the_build_is_kept_unless_it_has_other_content(tmp_path: Path) -> None:
    (tmp_path / "app.js").write_text("a")
    own = gzip.compress(b"a", 1)
    (tmp_path / "app.js.gz").write_bytes(own)
    precompress(tmp_path)
    assert (tmp_path / "app.js.gz").read_bytes() == own
    for wrong in (gzip.compress(b"old"), b"no gzip", own[:-4]):
        (tmp_path / "app.js.gz").write_bytes(wrong)
        with pytest.raises(BuildError, match=r"app\.js\.gz is served as app\.js, but"):
            precompress(tmp_path)
