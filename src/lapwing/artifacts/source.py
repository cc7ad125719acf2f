"""What the source of a service is at this moment: its files, their digest, its revision.

git says which files count: those it tracks and those it does not ignore, as they are in the work
tree. So `node_modules` and virtual environments are never part of a release, and two people who
have the same content get the same digest. Uncommitted changes are allowed, and show in the
revision as `-dirty`.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lapwing.errors import SourceError, UsageError


@dataclass(frozen=True, slots=True)
class Source:
    """Files of a folder, relative to it, with the digest of all of them."""

    folder: Path
    files: tuple[str, ...]
    digest: str
    revision: str


def read_source(folder: Path) -> Source:
    """Read the source in a folder.

    Raises SourceError if it is not in a git repository with a commit, is empty, or has a link that
    leads out of it.
    """
    listed = _git(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    files = sorted({f for f in listed.split("\0") if f and os.path.lexists(folder / f)})
    if not files:
        raise SourceError(
            f"{folder} has no files that git would track.",
            hint="Add some, or look whether .gitignore leaves them out.",
        )
    return Source(folder, tuple(files), _digest(folder, files), revision(folder))


def revision(folder: Path) -> str:
    """The revision of a folder: twelve digits of the commit, and `-dirty` for changes in it.

    Raises SourceError if there is no commit.
    """
    try:
        head = _git(folder, "rev-parse", "--short=12", "HEAD").strip()
    except SourceError as error:
        if "not a git repository" in (error.detail or ""):
            raise
        raise SourceError(
            f"The git repository of {folder} has no commit yet.",
            hint="Run `git add -A && git commit -m 'First version'`.",
        ) from error
    changed = _git(folder, "status", "--porcelain", "--untracked-files=normal", "--", ".")
    return head + ("-dirty" if changed.strip() else "")


def _digest(folder: Path, files: list[str]) -> str:
    total = hashlib.sha256()
    root = folder.resolve()
    for name in files:
        path = folder / name
        if path.is_symlink():
            target = str(path.readlink())
            if not path.resolve().is_relative_to(root):
                raise SourceError(
                    f"{path} is a link that leads out of its folder, to {target}.",
                    hint="A release has to be whole: copy the file, or ignore the link in git.",
                )
            kind, content = b"link", os.fsencode(target)
        elif path.is_dir():
            continue  # A submodule that is not checked out has no content of its own.
        else:
            executable = path.stat().st_mode & 0o100
            kind = b"program" if executable else b"file"
            content = hashlib.sha256(path.read_bytes()).digest()
        total.update(b"%d:%b%b:%d:%b" % (len(name), os.fsencode(name), kind, len(content), content))
    return total.hexdigest()


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "-c", "core.quotePath=false", *arguments],
            capture_output=True,
            check=False,
            env=_environ(),
        )
    except FileNotFoundError as error:
        raise UsageError("git is not installed.", hint="Install git.") from error
    if done.returncode == 0:
        return os.fsdecode(done.stdout)
    words = done.stderr.decode(errors="replace").strip()
    if "not a git repository" in words:
        raise SourceError(
            f"{folder} is not in a git repository.",
            hint="Lapwing deploys revisions. Run `git init && git add -A && git commit -m 'First "
            "version'` there.",
            detail=words,
        )
    raise SourceError(f"git {arguments[0]} failed in {folder}.", detail=words)


def _environ() -> dict[str, str]:
    """git with the user's own configuration, but without waiting for locks or other languages."""
    import lapwing.settings

    return {**lapwing.settings.read().environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
