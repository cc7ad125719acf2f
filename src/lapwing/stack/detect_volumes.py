"""Detect the files that the Python source of a folder writes, for `volumes` of the stack file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from lapwing.stack.program import Files, name_from

_DATABASE = re.compile(
    r"""(?P<before>(?:["'][\w.-]+(?:/[\w.-]+)*/?["']\s*[,/]\s*)*)"""
    r"""["'](?:[^"']*:///|[^"']*\}/|\./)?(?P<path>/?(?:[\w.-]+/)*[\w-]+\.(?:sqlite3?|db))["']"""
)
"""A string with the name of a SQLite file, and the strings before it. The file may follow a URL's
scheme or a value of an f-string."""
_UPLOADS = re.compile(
    r"(?:path\.join\([^\"'\n]*|\b(?:Path|open|makedirs|mkdir)\(\s*[rf]?|[\w)]\s*/\s*[rf]?)"
    r"[\"'](?:\./)?((?:[\w-]+/)*?(?:uploads?|media|user_uploads|attachments))(?:/[^\"'\n]*)?[\"']"
)
"""A usual name of an upload folder in a path: `Path("uploads")`, `open("uploads/...")`."""


def volumes(folder: str, files: Files) -> dict[str, str]:
    """Find the SQLite file and the upload folders that the Python source of a folder names."""
    depth = 1 if folder == "." else 2
    modules = {
        PurePosixPath(path).relative_to(folder): text
        for path, text in sorted(files.items())
        if path.endswith(".py") and PurePosixPath(path).is_relative_to(folder)
        and len(PurePosixPath(path).parts) <= depth + 1
    }  # fmt: skip
    text = "\n".join(modules.values())
    found = {}
    if "sqlite" in text and (database := _database_file(modules)):
        instance = re.search(r"flask_sqlalchemy|instance_path", text)
        in_instance = instance and "/" not in database
        found["data"] = f"./instance/{database}" if in_instance else f"./{database}"
    for name, path in re.findall(
        r"""(UPLOAD\w*|MEDIA_ROOT)["'\]]*\s*=[^\n"']*["'](?:\./)?(\w[\w/-]*?)/?["']""", text
    ):
        found[name_from(PurePosixPath(path).name, name.lower())] = f"./{path}"
    for path in _UPLOADS.findall(text):
        if f"./{path}" not in found.values():
            found.setdefault(name_from(PurePosixPath(path).name, "uploads"), f"./{path}")
    return found


def _database_file(modules: Mapping[PurePosixPath, str]) -> str | None:
    """Return the path of the SQLite file that modules name, relative to the source folder.

    The folders may be parts of one string, or strings before it, joined by `,` or `/`. They are
    relative to a module that names `__file__` in the same line.
    """
    for module, text in modules.items():
        for line in text.splitlines():
            if match := _DATABASE.search(line):
                parts = re.findall(r"[\w.-][\w./-]*", match["before"])
                base = module.parent if "__file__" in line else PurePosixPath()
                path = base.joinpath(*parts, match["path"])
                return None if path.is_absolute() or ".." in path.parts else str(path)
    return None
