"""Unpacking of tar archives.

Python has filters for this since 3.11.4, and Debian 12 has 3.11.2.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lapwing.errors import LapwingError
from lapwing.system.files import real_path


def extract(archive: tarfile.TarFile, to: Path) -> None:
    """Unpack an archive with the modes of its files: volumes may be shared by a group.

    Raises LapwingError for a path outside of the folder or a device, OSError or tarfile.TarError.
    """
    folder = real_path(to)

    def checked() -> Iterator[tarfile.TarInfo]:
        for member in archive:
            for path in (member.name, member.linkname if member.islnk() else ""):
                if not real_path(folder / path).is_relative_to(folder):
                    raise LapwingError(f"The archive has a path outside of its folder: {path}.")
            if member.ischr() or member.isblk():
                raise LapwingError(f"The archive contains a device: {member.name}.")
            yield member

    trusted: Any = {"filter": "fully_trusted"} if hasattr(tarfile, "tar_filter") else {}
    archive.extractall(folder, checked(), **trusted)  # noqa: S202 - each path is checked
