"""Archives are unpacked into their folder only."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from lapwing.errors import LapwingError
from lapwing.system.archives import extract


def archive(*members: tuple[str, str | None]) -> tarfile.TarFile:
    """An archive of empty files, and of symbolic links where a target is given."""
    kinds = [(n, tarfile.SYMTYPE if to else tarfile.REGTYPE, to or "") for n, to in members]
    return of_types(*kinds)


def of_types(*members: tuple[str, bytes, str]) -> tarfile.TarFile:
    """An archive of members with a name, a type and the target of a link."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as made:
        for name, kind, target in members:
            member = tarfile.TarInfo(name)
            member.mode, member.type, member.linkname = 0o664, kind, target
            made.addfile(member)
    return tarfile.open(fileobj=io.BytesIO(data.getvalue()))


@pytest.mark.parametrize(
    "members",
    [[("../outside", None)], [("/outside", None)], [("link", ".."), ("link/outside", None)]],
)
def test_path_outside_of_the_folder_is_refused(
    members: list[tuple[str, str | None]], tmp_path: Path
) -> None:
    with pytest.raises(LapwingError, match="outside of its folder"):
        extract(archive(*members), tmp_path / "a" / "b")
    assert not list(tmp_path.rglob("outside"))


def test_modes_and_links_are_kept(tmp_path: Path) -> None:
    extract(archive(("folder/file", None), ("link", "/elsewhere")), tmp_path)
    assert (tmp_path / "folder" / "file").stat().st_mode & 0o777 == 0o664
    assert str((tmp_path / "link").readlink()) == "/elsewhere"


@pytest.mark.parametrize("target", ["../outside", "/outside"])
def test_hard_link_to_a_path_outside_of_the_folder_is_refused(target: str, tmp_path: Path) -> None:
    """A later file of the same name would be written to the linked file."""
    (tmp_path / "a").mkdir()
    outside = tmp_path / "outside"
    outside.write_text("kept")
    target = target.replace("/outside", str(outside)) if target[0] == "/" else target
    with pytest.raises(LapwingError, match=f"outside of its folder: {target}"):
        extract(of_types(("file", tarfile.LNKTYPE, target)), tmp_path / "a")
    assert outside.stat().st_nlink == 1


def test_hard_link_in_the_folder_is_kept(tmp_path: Path) -> None:
    extract(of_types(("one", tarfile.REGTYPE, ""), ("two", tarfile.LNKTYPE, "one")), tmp_path)
    assert (tmp_path / "one").samefile(tmp_path / "two")


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE])
def test_device_is_refused(kind: bytes, tmp_path: Path) -> None:
    with pytest.raises(LapwingError, match="contains a device: null"):
        extract(of_types(("null", kind, "")), tmp_path)
