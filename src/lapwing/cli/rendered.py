"""Write a rendered folder without overwriting files of others.

A written folder has a list, `.lapwing-rendered`, of each file and the digest of its content.
Only a listed file whose content still has its digest is replaced or removed. Any other file at the
path of one to write stops everything before the first byte is written. Other files stay.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from lapwing.errors import LapwingError, UnmanagedFileError
from lapwing.system.files import write_atomic

LIST = ".lapwing-rendered"
"""JSON. The name has no ending, so that kubectl does not take it for an object."""
OLD_LIST = ".lapwing-rendered.json"


@dataclass(frozen=True, slots=True)
class Change:
    """The changes to the files of a folder; each is a path relative to it."""

    written: tuple[str, ...]
    removed: tuple[str, ...]
    unchanged: tuple[str, ...]

    def __str__(self) -> str:
        """Summarise the changes in one line."""
        return (
            f"{len(self.written)} files written, {len(self.removed)} removed, "
            f"{len(self.unchanged)} unchanged"
        )

    def as_data(self) -> dict[str, tuple[str, ...]]:
        """Return the changes for JSON."""
        return {"written": self.written, "removed": self.removed, "unchanged": self.unchanged}


def folder_options(text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add `-o DIR` (as `folder`, with `text` as help) and `--force`."""
    where = click.option(
        "-o",
        "folder",
        required=True,
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help=text,
    )
    force = click.option(
        "--force", is_flag=True, help="Overwrite files that Lapwing did not write."
    )
    return lambda function: where(force(function))


def write(
    folder: Path, files: Mapping[str, bytes], *, force: bool = False, keep: bool = False
) -> Change:
    """Make a folder contain these files; with `keep`, files of earlier runs stay.

    Raises:
        UnmanagedFileError: Files of others are in the way, and `force` is not set.
        LapwingError: A file cannot be written.
    """
    try:
        return _write(folder, files, force=force, keep=keep)
    except OSError as error:
        where = error.filename or folder
        raise LapwingError(f"{where} cannot be written: {error.strerror or error}.") from error


def write_file(path: Path, data: bytes) -> None:
    """Write one file atomically, with its parent folders. Raises LapwingError."""
    try:
        write_atomic(path, data, None)
    except OSError as error:
        raise LapwingError(f"{path} cannot be written: {error.strerror or error}.") from error


def _write(folder: Path, files: Mapping[str, bytes], *, force: bool, keep: bool) -> Change:
    ours = _read_list(folder)
    kept = {name: digest for name, digest in ours.items() if keep and name not in files}
    leaving = [name for name in ours if name not in files and name not in kept]
    unmanaged = [
        n for n in (*files, *leaving) if _is_unmanaged(folder / n, ours.get(n), files.get(n))
    ]
    if unmanaged and not force:
        some = ", ".join(unmanaged[:5]) + (", ..." if len(unmanaged) > 5 else "")
        raise UnmanagedFileError(
            f"{folder} has files that Lapwing did not write, or that were changed since: {some}.",
            hint="Move them, choose another folder with -o DIR, or overwrite them with --force.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    written = [name for name, data in files.items() if _content(folder / name) != data]
    digests = {name: _digest(data) for name, data in sorted(files.items())}
    _write_list(folder, {**ours, **digests})
    for name in written:
        write_atomic(folder / name, files[name], None)
    for name in leaving:
        (folder / name).unlink(missing_ok=True)
    _write_list(folder, {**kept, **digests})
    (folder / OLD_LIST).unlink(missing_ok=True)
    unchanged = tuple(name for name in files if name not in written)
    return Change(tuple(written), tuple(leaving), unchanged)


def _is_unmanaged(path: Path, ours: str | None, wanted: bytes | None) -> bool:
    """Report whether a file to replace or remove differs from what Lapwing wrote."""
    found = _content(path)
    if found is None or found == wanted:
        return path.is_dir()
    return _digest(found) != ours


def _read_list(folder: Path) -> dict[str, str]:
    """Read the list of written files; without a readable list, all files count as unmanaged."""
    path = folder / LIST
    with contextlib.suppress(OSError, ValueError):
        read = json.loads((path if path.exists() else folder / OLD_LIST).read_bytes())
        if isinstance(read, dict):
            return {n: str(d) for n, d in read.items() if not _is_outside(n)}
    return {}


def _write_list(folder: Path, digests: Mapping[str, str]) -> None:
    write_atomic(folder / LIST, json.dumps(digests, indent=2).encode() + b"\n", None)


def _is_outside(name: str) -> bool:
    return Path(name).is_absolute() or ".." in Path(name).parts


def _content(path: Path) -> bytes | None:
    if not path.is_file():
        return None
    return path.read_bytes()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
