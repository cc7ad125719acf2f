"""What is unpacked from a pulled release: nothing outside of its folder."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from lapwing.build import pulled
from lapwing.errors import BuildError


def archive(folder: Path, *members: tuple[str, bytes, str]) -> Path:
    """An archive with members: name, type and the target of a link, or the content of a file."""
    file = folder / "archive.tar"
    with tarfile.open(file, "w") as made:
        for name, kind, text in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                member.linkname = text
            else:
                member.size = len(text)
            made.addfile(member, io.BytesIO(text.encode()))
    return file


@pytest.mark.parametrize(
    "members",
    [
        [("../outside/file", tarfile.REGTYPE, "x")],
        [("app/../release.json", tarfile.SYMTYPE, "/dev/null")],
        [("release.json", tarfile.REGTYPE, "x")],
        [(".", tarfile.DIRTYPE, "")],
        [("app", tarfile.SYMTYPE, "/tmp")],
        [("venv/bin", tarfile.SYMTYPE, "/usr/bin")],
        [("venv/bin", tarfile.SYMTYPE, "../../outside")],
        [("app/passwd", tarfile.LNKTYPE, "/etc/passwd")],
        [("app/file", tarfile.LNKTYPE, "../outside/file")],
        [("app/link", tarfile.SYMTYPE, "../../outside"), ("app/link/file", tarfile.REGTYPE, "x")],
        [("app/pipe", tarfile.FIFOTYPE, "")],
    ],
)
def test_archive_that_leaves_the_release_is_refused(
    tmp_path: Path, members: list[tuple[str, bytes, str]]
) -> None:
    bundle, outside = tmp_path / "bundle", tmp_path / "outside"
    bundle.mkdir()
    outside.mkdir()
    with pytest.raises(BuildError, match="cannot be unpacked"):
        pulled.unpack(archive(tmp_path, *members), bundle, "example.com/shop/page@sha256:1")
    assert not list(outside.iterdir())
    assert not list(bundle.rglob("file"))


def test_links_of_the_source_are_unpacked(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    packed = archive(
        tmp_path,
        ("app/file", tarfile.REGTYPE, "text"),
        ("app/zone", tarfile.SYMTYPE, "/usr/share/zoneinfo/UTC"),
        ("app/uploads", tarfile.SYMTYPE, "../../../data/uploads"),
        ("app/same", tarfile.LNKTYPE, "app/file"),
    )
    pulled.unpack(packed, bundle, "example.com/shop/page@sha256:1")
    assert (bundle / "app/zone").readlink() == Path("/usr/share/zoneinfo/UTC")
    assert (bundle / "app/uploads").readlink() == Path("../../../data/uploads")
    assert (bundle / "app/same").read_text() == "text"


def test_archive_that_is_damaged_is_refused(tmp_path: Path) -> None:
    (tmp_path / "archive.tar").write_bytes(b"no archive" * 100)
    with pytest.raises(BuildError, match="cannot be unpacked"):
        pulled.unpack(tmp_path / "archive.tar", tmp_path, "example.com/shop/page@sha256:1")
