"""A chart as one `.tgz`, always with the same bytes. Pure.

`helm package` writes the time of the day into the archive, so the same chart gets another digest
each time, and a registry keeps it twice. Here every date is the one that is given (of a commit), or
that of the Unix epoch plus one day (0 is read as "no date" by some programs), the owner is 0, and
the order is that of the names, with Chart.yaml first, as Helm's own packages have it.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Mapping

DATE = 86_400
"""Seconds since 1970 of every file, where no other date is given."""


def package(name: str, files: Mapping[str, str] | Mapping[str, bytes], when: int = DATE) -> bytes:
    """The files of a chart, packed below a folder of its name. `when` is the date of all, in
    seconds since 1970."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(files, key=lambda file: (file != "Chart.yaml", file)):
            content = files[path]
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(f"{name}/{path}")
            member.size, member.mtime, member.mode = len(data), when, 0o644
            archive.addfile(member, io.BytesIO(data))
    return gzip.compress(packed.getvalue(), compresslevel=9, mtime=when)
