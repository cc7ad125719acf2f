"""The desired state: a bare git repository with one document per environment.

    <stack>/<environment>/document.json
    <stack>/<environment>/manifests/*.yaml      on a cluster
    <stack>/argocd/<environment>.yaml           for Argo CD; <stack>/root.yaml includes them

Git is the only database. One commit is one deployment and changes one document. Writers are
optimistic: they pass the commit that they last saw of the environment, and get a `ConflictError` if
there is a newer one. History is never rewritten. Outcomes are git notes, which are fetched and
pushed with it.

A commit is one `git fast-import` (blobs, trees, commit and the update of the branch, or nothing),
about 10 ms.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from lapwing.desired import message
from lapwing.desired.git_objects import BRANCH, UNREADABLE, import_commit, read_objects
from lapwing.errors import ConflictError, DesiredStateError
from lapwing.plan.model import Document, decode, encode
from lapwing.system import locks
from lapwing.system.git import Git

NOTES = "refs/notes/lapwing"
COMMIT = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
"""A commit ID: SHA-1 or SHA-256."""
NAME = re.compile("[a-z][a-z0-9_-]{0,39}")
"""The name of a stack or of an environment."""
LOOSE_OBJECTS = 2000
"""Loose objects from which the repository is packed: about 300 deployments."""

_GIT_LOCKS = ("HEAD.lock", "packed-refs.lock", "config.lock", "index.lock", "shallow.lock")
_GIT_LEFTOVERS = ("fast_import_crash_*", "objects/pack/tmp_*")
"""Files that git leaves behind when it is killed, or when the disk is full."""


class DesiredRepository:
    """The desired-state repository of this machine. Calls block for some milliseconds."""

    def __init__(self, path: Path) -> None:
        """Use the repository at `path`, which `ensure` creates."""
        self.path = path
        self.git = _git(path)

    def ensure(self) -> None:
        """Create the repository atomically, unless it exists.

        Raises DesiredStateError if the path is something else.
        """
        if (self.path / "HEAD").is_file() and (self.path / "objects").is_dir():
            return
        if self.path.exists() and any(self.path.iterdir()):
            raise DesiredStateError(
                f"{self.path} exists but is not a git repository.",
                hint="Move it away, or run `lapwing doctor --repair`, which does so.",
            )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=self.path.parent, prefix=".desired."))
        try:
            made = _git(temporary)
            made.text("init", "--quiet", "--bare", "--initial-branch=main", str(temporary))
            made.text("config", "core.fsync", "committed")
            made.text("config", "gc.auto", "0")
            shutil.rmtree(temporary / "hooks", ignore_errors=True)
            try:
                temporary.rename(self.path)
            except OSError:
                if not (self.path / "HEAD").is_file():  # Another process has created it.
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Exclude the other writers of this machine, and remove what a killed git left behind.

        Lock files of git survive its death. Every writer holds this lock, so a `*.lock` that is
        found while holding it belongs to no running process.
        """
        with locks.hold(self.path / "lapwing.lock"):
            left = [self.path / name for name in _GIT_LOCKS]
            left += (self.path / "refs").rglob("*.lock")
            for pattern in _GIT_LEFTOVERS:
                left += self.path.glob(pattern)
            for file in left:
                file.unlink(missing_ok=True)
            yield

    def head(self) -> str | None:
        """Return the newest commit, or None before the first, without a git process.

        Raises DesiredStateError if the branch is damaged, as after a power cut.
        """
        try:
            found = (self.path / BRANCH).read_text(errors="replace").strip()
        except FileNotFoundError:
            found = self._packed_head()
        if not found:
            return None
        if not COMMIT.fullmatch(found):
            raise DesiredStateError(
                f"{self.path / BRANCH} is damaged: it contains no commit ID.",
                hint="Run `lapwing doctor --repair`: it restores the documents of what is running.",
            )
        return found

    def _packed_head(self) -> str:
        try:
            packed = (self.path / "packed-refs").read_text(errors="replace")
        except FileNotFoundError:
            return ""
        lines = (line.split(" ", 1) for line in packed.splitlines())
        return next((line[0] for line in lines if line[1:] == [BRANCH]), "")

    def fingerprint(self) -> tuple[tuple[int, int, int] | None, ...]:
        """Return a value that changes with the branch: the inodes and times of its files.

        It is cheap enough for many calls per second.
        """
        return tuple(_stat_key(self.path / name) for name in (BRANCH, "packed-refs"))

    def read(self, stack: str, environment: str, commit: str | None = None) -> Document | None:
        """Return the document of an environment at a commit (the head by default), if any.

        Raises DesiredStateError if it cannot be read or is invalid.
        """
        at = commit or self.head()
        if at is None:
            return None
        [found] = self.documents(stack, environment, [at])
        if isinstance(found, DesiredStateError):
            raise found
        if found is None:
            self._check_commit(at)
        return found

    def documents(
        self, stack: str, environment: str, commits: list[str]
    ) -> list[Document | DesiredStateError | None]:
        """Return the document of an environment at each commit: the error of an invalid one."""
        path = document_path(stack, environment)
        contents = read_objects(self.git, [f"{commit}:{path}" for commit in commits])
        return [
            self._missing(commit, path)
            if data is None
            else _decode_at(data, commit, stack, environment)
            for commit, data in zip(commits, contents, strict=True)
        ]

    def _missing(self, commit: str, path: str) -> DesiredStateError | None:
        """Return None if there is no file at a commit, the error if there is one not to be read."""
        if self.git.ask("rev-parse", "--verify", "-q", f"{commit}:{path}") is None:
            return None
        return _invalid(path, commit, UNREADABLE)

    def latest_valid(self, stack: str, environment: str) -> Document | None:
        """Return the newest valid document of an environment, if any.

        An invalid one at the head, which a user may have pushed, is skipped. Raises
        DesiredStateError if the repository cannot be read.
        """
        newest = self.newest(stack, environment)
        if newest is None:
            return None
        path = document_path(stack, environment)
        for commit in self.git.text("rev-list", BRANCH, "--", path).split():
            [found] = self.documents(stack, environment, [commit])
            if not isinstance(found, DesiredStateError):
                return found
        return None

    def environments(self, commit: str | None = None) -> list[tuple[str, str]]:
        """Return each (stack, environment) with a document at a commit (the head by default)."""
        at = commit or self.head()
        if at is None:
            return []
        names = self.git.text("ls-tree", "-r", "-z", "--name-only", at).split("\0")
        parts = [n.split("/") for n in names if n.endswith("/document.json")]
        found = [(p[0], p[1]) for p in parts if len(p) == 3]
        return [key for key in found if all(map(NAME.fullmatch, key))]

    def newest(self, stack: str, environment: str) -> str | None:
        """Return the commit that last changed the document of an environment, if it has one."""
        if self.head() is None:
            return None
        path = document_path(stack, environment)
        found = self.git.text("log", "-1", "--format=%H", "--name-status", BRANCH, "--", path)
        commit, _, change = found.partition("\n\n")
        return None if change.startswith("D") or not commit else commit

    def commit(
        self,
        document: Document,
        *,
        expected: str | None,
        files: Mapping[str, bytes] | None = None,
    ) -> str:
        """Make `document` the desired state of its environment; return the commit that has it.

        That is the newest one if nothing would change: a commit without a change would not be the
        newest one of its environment, so no agent would apply it.

        `files` are its manifests, by their path below the stack's folder. They replace all
        manifests of the environment in the same commit. `expected` is the commit that last changed
        this environment, as far as the caller knows; None for the first. Raises ConflictError if
        there is a newer one, DesiredStateError, or NoSpaceError.
        """
        self.ensure()
        path = document_path(document.stack, document.environment)
        with self.writing():
            newest = self.newest(document.stack, document.environment)
            if newest != expected:
                raise ConflictError(
                    f"Another deployment of {document.stack}/{document.environment} was "
                    "committed first.",
                    hint=f"See `lapwing history -e {document.environment}`, then run the command "
                    "again.",
                )
            contents = {path: encode(document)}
            if newest is not None and self._has(newest, document, contents[path], files):
                return newest
            before = self.latest_valid(document.stack, document.environment)
            text = message.compose(document, before)
            for name, data in (files or {}).items():
                contents[f"{document.stack}/{name}"] = data
            gone = (
                manifests_folder(document.stack, document.environment)
                if files is not None
                else None
            )
            return import_commit(
                self.git, self.head(), text, document.deployment.actor, contents, gone
            )

    def _has(
        self, commit: str, document: Document, text: bytes, files: Mapping[str, bytes] | None
    ) -> bool:
        """Return whether a commit has a document, as text, and its manifests."""
        stack, environment = document.stack, document.environment
        if self.git.data("show", f"{commit}:{document_path(stack, environment)}") != text:
            return False
        return files is None or self.manifests(stack, environment, commit) == dict(files)

    def manifests(self, stack: str, environment: str, commit: str) -> dict[str, bytes]:
        """Return the manifests of an environment at a commit, by path below the stack's folder."""
        folder = manifests_folder(stack, environment)
        listed = self.git.text("ls-tree", "-r", "-z", commit, f"{folder}/").split("\0")
        entries = [line.split("\t", 1) for line in listed if line]
        contents = read_objects(self.git, [facts.split()[2] for facts, _ in entries])
        found = {}
        for (_, name), data in zip(entries, contents, strict=True):
            if data is None:
                raise DesiredStateError(f"{name} in commit {commit[:12]} {UNREADABLE}.")
            found[name.removeprefix(f"{stack}/")] = data
        return found

    def manifests_tree(self, stack: str, environment: str, commit: str) -> str:
        """Return the tree entry of an environment's manifests at a commit; empty without any."""
        return self.git.text("ls-tree", commit, manifests_folder(stack, environment))

    def record_outcome(self, commit: str, outcome: str, reason: str | None = None) -> None:
        """Record the outcome of a commit: succeeded, failed, rolled-back, aborted or superseded.

        Raises DesiredStateError or NoSpaceError.
        """
        text = outcome if not reason else f"{outcome}\n{message.one_line(reason)}"
        with self.writing():
            self.git.text("notes", f"--ref={NOTES}", "add", "-f", "-m", text, commit)

    def is_descendant(self, commit: str, of: str) -> bool:
        """Whether `commit` has `of` among its ancestors: false after a force-push.

        A commit that is missing has no descendants.
        """
        try:
            return self.git.text("merge-base", of, commit) == of
        except DesiredStateError:
            return False

    def pin(self, commit: str, name: str) -> None:
        """Keep a commit as refs/lapwing/<name>, also after a force-push of the branch."""
        with self.writing():
            self.git.text("update-ref", f"refs/lapwing/{name}", commit)

    def verify(self) -> list[str]:
        """Return the errors that `git fsck` finds; empty if the repository is valid."""
        if not (self.path / "HEAD").is_file():
            return [f"{self.path} is not a git repository"] if self.path.exists() else []
        try:
            self.git.text("fsck", "--connectivity-only", "--no-dangling", "--no-progress")
            if self.head() is not None:
                for stack, environment in self.environments():
                    self.read(stack, environment)
        except DesiredStateError as error:
            return [line for line in (error.detail or str(error)).splitlines() if line]
        return []

    def recover(self, documents: list[Document]) -> Path | None:
        """Create a new repository with the given documents.

        The old one is renamed, never deleted; returns its new path, or None without an old one.
        """
        aside: Path | None = None
        if self.path.exists():
            stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
            aside = self.path.with_name(f"{self.path.name}.damaged-{stamp}-{os.getpid()}")
            self.path.rename(aside)
        for document in documents:
            self.commit(document, expected=None)
        return aside

    def maintain(self) -> None:
        """Pack loose objects if there are many, which takes up to some seconds. Prunes nothing."""
        if int(self.git.text("count-objects").split()[0]) < LOOSE_OBJECTS:
            return
        with self.writing():
            self.git.text("gc", "--quiet", "--prune=never")

    def _check_commit(self, commit: str) -> None:
        self.git.text("cat-file", "-e", f"{commit}^{{tree}}")


def _git(path: Path) -> Git:
    hint = "Run `lapwing doctor` to check the repository, `lapwing doctor --repair` to repair it."
    return Git(path, None, DesiredStateError, bare=True, hint=hint)


def _stat_key(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def manifests_folder(stack: str, environment: str) -> str:
    """Return the path of the folder of an environment's manifests."""
    return f"{stack}/{environment}/manifests"


def document_path(stack: str, environment: str) -> str:
    """Return the path of the document of an environment."""
    return f"{stack}/{environment}/document.json"


def _decode_at(
    data: bytes, commit: str, stack: str, environment: str
) -> Document | DesiredStateError:
    """Decode the document of a commit, or return what is wrong with it."""
    path = document_path(stack, environment)
    try:
        document = decode(data)
        if (document.stack, document.environment) == (stack, environment):
            return document
        problem = f"is for {document.stack}/{document.environment}"
    except msgspec.MsgspecError as error:
        problem = f"is invalid: {error}"
    return _invalid(path, commit, problem)


def _invalid(path: str, commit: str, problem: str) -> DesiredStateError:
    return DesiredStateError(
        f"{path} in commit {commit[:12]} {problem}.",
        hint="Revert that commit, or deploy again from the stack file.",
    )
