"""What the source of a service is at this moment: its files, their digest, its revision.

git says which files count: those it tracks and those it does not ignore, as they are in the work
tree. So `node_modules` and virtual environments are never part of a release, and two people who
have the same content get the same digest. Uncommitted changes are allowed, and show in the
revision as `-dirty`. A repository inside the folder (a submodule, a clone) is listed by its own
git.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
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


def read_source(folder: Path, environ: Mapping[str, str]) -> Source:
    """Read the source in a folder; git runs with the environment given.

    Raises SourceError if it is not in a git repository with a commit, is empty, or has a link that
    leads out of it.
    """
    if not folder.is_dir():
        raise SourceError(
            f"There is no folder {folder}.", hint="Correct `build:` of the service in the stack."
        )
    git = _Git(_environ(environ))
    files = tuple(sorted(git.files(folder)))
    if not files:
        raise SourceError(
            f"{folder} has no files that git would track.",
            hint="Add some, or look whether .gitignore leaves them out.",
        )
    return Source(folder, files, digest(folder, files), git.revision(folder))


def revision(folder: Path, environ: Mapping[str, str]) -> str:
    """Twelve digits of the commit of a folder, `-dirty` if it has changes; empty where the folder
    is in no git repository, or in one without a commit."""
    try:
        return _Git(_environ(environ)).revision(folder)
    except SourceError:
        return ""


def file_at(path: Path, revision: str, environ: Mapping[str, str]) -> bytes:
    """A file as it was at a revision (a commit, a branch, a tag).

    Raises SourceError if there is no such revision, or the file was not in it.
    """
    if revision.startswith("-") or ":" in revision:
        raise UsageError(f"{revision!r} is not a revision.", hint="Give a commit, branch or tag.")
    git = _Git(_environ(environ))
    return git.show(path.parent, revision, path.name)


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
    root = folder.resolve()
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
    if Path(target).is_absolute() or not (path.parent.resolve() / target).resolve().is_relative_to(
        root
    ):
        raise SourceError(
            f"{path} is a link that leads out of its folder, to {target}.",
            hint="A release has to be whole: copy the file, make the link relative, or ignore it "
            "in git.",
        )
    return target


@dataclass(frozen=True, slots=True)
class _Git:
    environ: dict[str, str]

    def files(self, folder: Path) -> set[str]:
        listed = self._run(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
        files: set[str] = set()
        for name in filter(None, listed.split("\0")):
            path = folder / name
            if not os.path.lexists(path):
                continue  # Removed from the work tree, and not yet from the index.
            if path.is_symlink() or not path.is_dir():
                files.add(name)
            elif (path / ".git").exists():
                files |= {f"{name.rstrip('/')}/{inner}" for inner in self.files(path)}
            else:
                raise SourceError(
                    f"The submodule {path} is not checked out.",
                    hint="Run `git submodule update --init --recursive`.",
                )
        return files

    def revision(self, folder: Path) -> str:
        """Twelve digits of the commit, and `-dirty` for changes in the folder."""
        try:
            head = self._run(folder, "rev-parse", "--verify", "--short=12", "HEAD").strip()
        except SourceError as error:
            raise SourceError(
                f"The git repository of {folder} has no commit yet.",
                hint="Run `git add -A && git commit -m 'First version'`.",
                detail=error.detail,
            ) from error
        changed = self._run(folder, "status", "--porcelain", "--untracked-files=normal", "--", ".")
        return head[:12] + ("-dirty" if changed.strip() else "")

    def show(self, folder: Path, revision: str, name: str) -> bytes:
        """The content of a file of the folder at a revision."""
        try:
            self._run(folder, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
        except SourceError as error:
            if error.hint is not None:
                raise
            raise SourceError(
                f"There is no revision {revision!r}.",
                hint="Give a commit, branch or tag; in CI, fetch the history (fetch-depth: 0).",
            ) from error
        try:
            return os.fsencode(self._run(folder, "show", f"{revision}:./{name}"))
        except SourceError as error:
            raise SourceError(
                f"{name} was not in {folder} at {revision}.", detail=error.detail
            ) from error

    def _run(self, folder: Path, *arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, check=False, env=self.environ)
        except FileNotFoundError as error:
            raise UsageError("git is not installed.", hint="Install git.") from error
        if done.returncode == 0:
            return os.fsdecode(done.stdout)
        words = done.stderr.decode(errors="replace").strip()
        if "not a git repository" in words:
            raise SourceError(
                f"{folder} is not in a git repository.",
                hint="Lapwing deploys revisions. Run `git init && git add -A && git commit -m "
                "'First version'` there.",
                detail=words,
            )
        raise SourceError(f"git {arguments[0]} failed in {folder}.", detail=words)


def _environ(user: Mapping[str, str]) -> dict[str, str]:
    """The user's git, in English, taking no locks, and finding the repository by its folder: a git
    hook that deploys has GIT_DIR and its like set."""
    pinned = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_OBJECT_DIRECTORY"}
    kept = {name: value for name, value in user.items() if name not in pinned}
    return kept | {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
