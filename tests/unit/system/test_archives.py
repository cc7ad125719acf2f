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
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as made:
        for name, target in members:
            member = tarfile.TarInfo(name)
            member.mode = 0o664
            if target is not None:
                member.type, member.linkname = tarfile.SYMTYPE, target
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
