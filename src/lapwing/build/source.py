"""What the source of a service is at this moment: its files, their digest, its revision.

git says which files count: those it tracks and those it does not ignore, as they are in the work
tree. So `node_modules` and virtual environments are never part of a release, and two people who
have the same content get the same digest. Uncommitted changes are allowed, and show in the
revision as `-dirty`. A repository inside the folder (a submodule, a clone) is listed by its own
git. Callers leave out the stack file and the files of `env_file`: the desired state has their
settings, so a change of them makes no new release.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lapwing.errors import SourceError
from lapwing.system.files import real_path
from lapwing.system.git import Git, read_revision


@dataclass(frozen=True, slots=True)
class Source:
    """Files of a folder, relative to it, with the digest of all of them."""

    folder: Path
    files: tuple[str, ...]
    digest: str
    revision: str


def read_source(folder: Path, environ: Mapping[str, str], left_out: Collection[str] = ()) -> Source:
    """Read the source in a folder, as `list_source` does, with its digest."""
    source = list_source(folder, environ, left_out)
    return replace(source, digest=digest(folder, source.files))


def list_source(folder: Path, environ: Mapping[str, str], left_out: Collection[str] = ()) -> Source:
    """List the source in a folder, without the digest; git runs with the environment given.

    `left_out` are files that are not part of the source, relative to the folder.

    Raises SourceError if it is not in a git repository with a commit, is empty, or has a link that
    leads out of it.
    """
    if not folder.is_dir():
        raise SourceError(
            f"There is no folder {folder}.", hint="Correct `build:` of the service in the stack."
        )
    files = tuple(sorted(_files(folder, environ).difference(left_out)))
    if not files:
        raise SourceError(
            f"{folder} has no files that git would track.",
            hint="Add files, or check that .gitignore does not exclude them.",
        )
    return Source(folder, files, "", read_revision(folder, environ))


def copy(source: Source, target: Path) -> None:
    """Copy the files of a source to a folder that is not there yet.

    Raises SourceError if they were changed since the source was read: what is released has to be
    what its name says.
    """
    target.mkdir()
    try:
        for name in source.files:
            copied = target / name
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source.folder / name, copied, follow_symlinks=False)
        same = digest(target, source.files) == source.digest
    except FileNotFoundError:
        same = False
    if not same:
        raise SourceError(f"{source.folder} was changed while it was built.", hint="Deploy again.")


def digest(folder: Path, files: Iterable[str]) -> str:
    """A digest over the names, kinds (link, program, file) and contents of files.

    Raises SourceError for a link that leads out of the folder, and for what is not a file.
    """
    total = hashlib.sha256()
    root = real_path(folder)
    for name in files:
        path = folder / name
        if path.is_symlink():
            kind, content = b"link", os.fsencode(_link(path, root))
        elif path.is_file():
            kind = b"program" if path.stat().st_mode & 0o100 else b"file"
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").digest()
        elif path.exists():
            raise SourceError(
                f"{path} is not a file that can be copied (a socket, a pipe or a device).",
                hint="Remove it, or ignore it in git.",
            )
        else:
            raise FileNotFoundError(path)
        written = os.fsencode(name)
        total.update(b"%d:%b%b:%d:%b" % (len(written), written, kind, len(content), content))
    return total.hexdigest()


def _link(path: Path, root: Path) -> str:
    target = str(path.readlink())
    if Path(target).is_absolute() or not real_path(path.parent / target).is_relative_to(root):
        raise SourceError(
            f"{path} is a symbolic link to {target}, outside of the source folder.",
            hint="A release must be self-contained: copy the file, make the link relative, or "
            "ignore it in git.",
        )
    return target


def _files(folder: Path, environ: Mapping[str, str]) -> set[str]:
    git = Git(folder, environ, SourceError)
    listed = git.text("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    files: set[str] = set()
    for name in filter(None, listed.split("\0")):
        path = folder / name
        if not os.path.lexists(path):
            continue  # Removed from the work tree, and not yet from the index.
        if path.is_symlink() or not path.is_dir():
            files.add(name)
        elif (path / ".git").exists():
            files |= {f"{name.rstrip('/')}/{inner}" for inner in _files(path, environ)}
        else:
            raise SourceError(
                f"The submodule {path} is not checked out.",
                hint="Run `git submodule update --init --recursive`.",
            )
    return files
