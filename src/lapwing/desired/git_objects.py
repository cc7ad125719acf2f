"""Reading and writing git objects of the desired-state repository, many at a time.

A commit is one `git fast-import` (blobs, trees, commit and the update of the branch, or nothing),
about 10 ms; any number of files is read by two `git cat-file`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Literal

from lapwing.desired import message
from lapwing.system.git import Git

BRANCH = "refs/heads/main"
MAX_BLOB_BYTES = 8 * 2**20
"""Larger files, which a user may have pushed, are not read."""
UNREADABLE = f"is not a regular file, or is larger than {MAX_BLOB_BYTES // 2**20} MiB"


def import_commit(
    git: Git,
    parent: str | None,
    text: str,
    actor: str,
    contents: Mapping[str, bytes],
    removed: str | None,
) -> str:
    """Create a commit of the branch on top of `parent`, and return its id.

    It replaces the files in `contents`, after the folder `removed` was removed.
    """
    now = f"{int(time.time())} +0000"
    name = "".join(c for c in message.one_line(actor, 80) if c not in "<>") or "unknown"
    body = text.encode()
    lines = [
        b"feature done\n",
        f"commit {BRANCH}\nmark :1\n".encode(),
        f"author {name} <lapwing@localhost> {now}\n".encode(),
        f"committer Lapwing <lapwing@localhost> {now}\n".encode(),
        f"data {len(body)}\n".encode() + body + b"\n",
        f"from {parent}\n".encode() if parent else b"",
        f"D {removed}\n".encode() if removed and parent else b"",
        *(
            b"M 100644 inline " + _quoted(path) + f"\ndata {len(data)}\n".encode() + data + b"\n"
            for path, data in contents.items()
        ),
        b"get-mark :1\n",
        b"done\n",
    ]
    out = git.text("fast-import", "--quiet", "--cat-blob-fd=1", given=b"".join(lines))
    return out.split()[0]


def read_objects(
    git: Git, names: list[str], kind: Literal["blob", "commit"] = "blob"
) -> list[bytes | None]:
    """Return the contents of objects; None for each that is missing, of another kind or large."""
    facts = "--batch-check=%(objecttype) %(objectsize) %(objectname)"
    checked = _cat(git, facts, names).decode(errors="replace").splitlines()
    wanted: list[tuple[str, int] | None] = []
    for fields in map(str.split, checked):
        small = fields[0] == kind and int(fields[1]) <= MAX_BLOB_BYTES
        wanted.append((fields[2], int(fields[1])) if small else None)
    out = _cat(git, "--batch", [entry[0] for entry in wanted if entry])
    found: list[bytes | None] = []
    position = 0
    for entry in wanted:
        if entry is None:
            found.append(None)
            continue
        start = out.index(b"\n", position) + 1
        position = start + entry[1]
        found.append(out[start:position])
        position += 1
    return found


def _cat(git: Git, mode: str, names: list[str]) -> bytes:
    given = "".join(f"{name}\n" for name in names).encode()
    return git.data("cat-file", mode, given=given) if names else b""


def _quoted(path: str) -> bytes:
    """Quote a path for git fast-import. Those of manifests may be anything that was pushed."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return os.fsencode(f'"{escaped}"')
