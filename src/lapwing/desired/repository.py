"""The desired state: a bare git repository with one document per environment.

    <stack>/<environment>/document.json
    <stack>/<environment>/manifests/*.yaml      where a cluster runs it
    <stack>/argocd/<environment>.yaml           for Argo CD; <stack>/root.yaml brings them

Git is the only database. One commit is one deployment; it changes one document. Writers are
optimistic: `commit` names the commit its author last saw of that environment, and a `ConflictError`
says that somebody was faster. Nothing is ever rewritten, and outcomes are git notes, so history
and what became of it travel together.

Everything is done with git's plumbing on a bare repository: a commit is one `git fast-import`
(blob, trees, commit and the move of the branch, or nothing), about 10 ms.
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
from lapwing.errors import ConflictError, DesiredStateError
from lapwing.plan.model import Document, decode, encode
from lapwing.system import locks
from lapwing.system.git import Git

BRANCH = "refs/heads/main"
NOTES = "refs/notes/lapwing"
COMMIT = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
"""The name of a commit, by SHA-1 or SHA-256."""
LOOSE_OBJECTS = 2000
"""About how many unpacked objects (300 deployments) make packing worth while."""

_GIT_LOCKS = ("HEAD.lock", "packed-refs.lock", "config.lock", "index.lock", "shallow.lock")
_GIT_REMAINS = ("fast_import_crash_*", "objects/pack/tmp_*")
"""Files that git leaves when it is killed, or when the disk is full."""


class DesiredRepository:
    """Reads and writes the desired state at `path`. Calls block for some milliseconds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.git = _git(path)

    def ensure(self) -> None:
        """Create the repository if there is none; a half-made one never shows.

        Raises DesiredStateError if something else is in its place.
        """
        if (self.path / "HEAD").is_file() and (self.path / "objects").is_dir():
            return
        if self.path.exists() and any(self.path.iterdir()):
            raise DesiredStateError(
                f"{self.path} is there but is not a git repository.",
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
                if not (self.path / "HEAD").is_file():  # Another process was faster otherwise.
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Exclude the other writers of this machine, and remove what a killed git has left.

        git's own lock files outlive a killed git. All our writers hold this lock, so a `*.lock`
        that is found while holding it belongs to no running process.
        """
        with locks.hold(self.path / "lapwing.lock"):
            left = [self.path / name for name in _GIT_LOCKS]
            left += (self.path / "refs").rglob("*.lock")
            for pattern in _GIT_REMAINS:
                left += self.path.glob(pattern)
            for file in left:
                file.unlink(missing_ok=True)
            yield

    def head(self) -> str | None:
        """The newest commit; None before the first. Reads files only, no git process.

        Raises DesiredStateError if the branch names no commit: a power cut can leave such a file.
        """
        try:
            found = (self.path / BRANCH).read_text(errors="replace").strip()
        except FileNotFoundError:
            found = self._packed_head()
        if not found:
            return None
        if not COMMIT.fullmatch(found):
            raise DesiredStateError(
                f"{self.path / BRANCH} is damaged: it names no commit.",
                hint="`lapwing doctor --repair` writes down again what runs.",
            )
        return found

    def _packed_head(self) -> str:
        try:
            packed = (self.path / "packed-refs").read_text(errors="replace")
        except FileNotFoundError:
            return ""
        lines = (line.split(" ", 1) for line in packed.splitlines())
        return next((line[0] for line in lines if line[1:] == [BRANCH]), "")

    def traces(self) -> tuple[tuple[int, int, int] | None, ...]:
        """What changes whenever the branch moves: the facts of the files that hold it. Cheap enough
        to be asked many times a second."""
        return tuple(_facts(self.path / name) for name in (BRANCH, "packed-refs"))

    def read(self, stack: str, environment: str, commit: str | None = None) -> Document | None:
        """The document of an environment at a commit (the head by default), None if it has none.

        Raises DesiredStateError if it cannot be read or understood.
        """
        at = commit or self.head()
        if at is None:
            return None
        [data] = self.blobs([f"{at}:{path_of(stack, environment)}"])
        if data is None:
            self._must_exist(at)
            return None
        return decode_at(data, at, path_of(stack, environment))

    def understood(self, stack: str, environment: str) -> Document | None:
        """The document of an environment at the head; if somebody has put there what is none, the
        newest one that can be understood. None if there is none at all.

        Raises DesiredStateError if the repository cannot be read.
        """
        newest = self.newest(stack, environment)
        if newest is None:
            return None
        path = path_of(stack, environment)
        commits = self.git.text("rev-list", BRANCH, "--", path).split()
        for commit in commits:
            [data] = self.blobs([f"{commit}:{path}"])
            try:
                return None if data is None else decode_at(data, commit, path)
            except DesiredStateError:
                continue
        return None

    def environments(self, commit: str | None = None) -> list[tuple[str, str]]:
        """Every (stack, environment) that has a document at a commit (the head by default)."""
        at = commit or self.head()
        if at is None:
            return []
        names = self.git.data("ls-tree", "-r", "-z", "--name-only", at).decode().split("\0")
        parts = [n.split("/") for n in names if n.endswith("/document.json")]
        return [(p[0], p[1]) for p in parts if len(p) == 3]

    def newest(self, stack: str, environment: str) -> str | None:
        """The commit that last changed the document of an environment."""
        if self.head() is None:
            return None
        found = self.git.text("rev-list", "-1", BRANCH, "--", path_of(stack, environment))
        return found or None

    def commit(
        self,
        document: Document,
        *,
        expected: str | None,
        files: Mapping[str, bytes] | None = None,
    ) -> str:
        """Make `document` the wanted state of its environment; returns the new commit. `files` are
        the manifests that go with it, by their path below the stack's folder; those of the
        environment that are not among them leave in the same commit.

        `expected` is the commit that last changed this environment as the caller knows it, None
        for a first one. Raises ConflictError if there is a newer one, DesiredStateError, or
        NoSpaceError.
        """
        self.ensure()
        path = path_of(document.stack, document.environment)
        with self.writing():
            newest = self.newest(document.stack, document.environment)
            if newest != expected:
                raise ConflictError(
                    f"Another deployment of {document.stack}/{document.environment} came first.",
                    hint="Look at `lapwing history`, then run the command again.",
                )
            before = self.understood(document.stack, document.environment)
            text = message.compose(document, before)
            contents = {path: encode(document)}
            for name, data in (files or {}).items():
                contents[f"{document.stack}/{name}"] = data
            gone = manifests_of(document.stack, document.environment) if files is not None else None
            return self._import(text, document.deployment.actor, contents, gone)

    def manifests(self, stack: str, environment: str, commit: str) -> dict[str, bytes]:
        """The manifests of an environment at a commit, by their path below the stack's folder."""
        folder = manifests_of(stack, environment)
        listed = self.git.data("ls-tree", "-r", "-z", "--name-only", commit, f"{folder}/").decode()
        names = [n for n in listed.split("\0") if n]
        contents = self.blobs([f"{commit}:{n}" for n in names])
        found = zip(names, contents, strict=True)
        return {n.removeprefix(f"{stack}/"): data for n, data in found if data is not None}

    def tree(self, stack: str, environment: str, commit: str) -> str:
        """What names the content of an environment's manifests at a commit; empty without any."""
        return self.git.text("ls-tree", commit, manifests_of(stack, environment))

    def note(self, commit: str, outcome: str, reason: str | None = None) -> None:
        """Write down what became of a commit: succeeded, failed, rolled-back, aborted or
        superseded, and why. Raises DesiredStateError or NoSpaceError."""
        text = outcome if not reason else f"{outcome}\n{message.one_line(reason)}"
        with self.writing():
            self.git.text("notes", f"--ref={NOTES}", "add", "-f", "-m", text, commit)

    def is_descendant(self, commit: str, of: str) -> bool:
        """Whether `commit` has `of` among its ancestors: false after a force-push. A commit that
        is gone has no descendants."""
        try:
            return self.git.text("merge-base", of, commit) == of
        except DesiredStateError:
            return False

    def keep(self, commit: str, name: str) -> None:
        """Hold a commit under refs/lapwing/<name>, so that no rewrite of the branch loses it."""
        with self.writing():
            self.git.text("update-ref", f"refs/lapwing/{name}", commit)

    def verify(self) -> list[str]:
        """What is wrong with the repository, in git's words; empty if it is whole."""
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
        """Begin a new repository with the given documents. What was there is moved aside, never
        deleted; returns where to (None if nothing was there)."""
        aside: Path | None = None
        if self.path.exists():
            stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
            aside = self.path.with_name(f"{self.path.name}.damaged-{stamp}-{os.getpid()}")
            self.path.rename(aside)
        for document in documents:
            self.commit(document, expected=None)
        return aside

    def maintain(self) -> None:
        """Pack what has gathered, if it is much. For idle moments: takes up to some seconds then.
        Nothing is pruned."""
        if int(self.git.text("count-objects").split()[0]) < LOOSE_OBJECTS:
            return
        with self.writing():
            self.git.text("gc", "--quiet", "--prune=never")

    def _import(
        self, text: str, actor: str, contents: Mapping[str, bytes], gone: str | None
    ) -> str:
        head = self.head()
        now = f"{int(time.time())} +0000"
        name = "".join(c for c in message.one_line(actor, 80) if c not in "<>") or "unknown"
        body = text.encode()
        lines = [
            b"feature done\n",
            f"commit {BRANCH}\nmark :1\n".encode(),
            f"author {name} <lapwing@localhost> {now}\n".encode(),
            f"committer Lapwing <lapwing@localhost> {now}\n".encode(),
            f"data {len(body)}\n".encode() + body + b"\n",
            f"from {head}\n".encode() if head else b"",
            f"D {gone}\n".encode() if gone and head else b"",
            *(
                f"M 100644 inline {path}\ndata {len(data)}\n".encode() + data + b"\n"
                for path, data in contents.items()
            ),
            b"get-mark :1\n",
            b"done\n",
        ]
        out = self.git.text("fast-import", "--quiet", "--cat-blob-fd=1", given=b"".join(lines))
        return out.split()[0]

    def _must_exist(self, commit: str) -> None:
        self.git.text("cat-file", "-e", f"{commit}^{{tree}}")

    def blobs(self, names: list[str]) -> list[bytes | None]:
        """The contents of objects by name, None for each that is missing; one git process."""
        given = "".join(f"{n}\n" for n in names).encode()
        out = self.git.data("cat-file", "--batch", given=given)
        found: list[bytes | None] = []
        position = 0
        for _ in names:
            end = out.index(b"\n", position)
            header = out[position:end].rsplit(b" ", 2)
            position = end + 1
            if header[-1] == b"missing" or not header[-1].isdigit():
                found.append(None)
                continue
            size = int(header[-1])
            found.append(out[position : position + size])
            position += size + 1
        return found


def _git(path: Path) -> Git:
    hint = "Run `lapwing doctor` to check the repository, `lapwing doctor --repair` to repair it."
    return Git(path, None, DesiredStateError, bare=True, hint=hint)


def _facts(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def manifests_of(stack: str, environment: str) -> str:
    """The folder of an environment's manifests."""
    return f"{stack}/{environment}/manifests"


def path_of(stack: str, environment: str) -> str:
    return f"{stack}/{environment}/document.json"


def decode_at(data: bytes, commit: str, path: str) -> Document:
    try:
        return decode(data)
    except msgspec.MsgspecError as error:
        raise DesiredStateError(
            f"{path} in commit {commit[:12]} cannot be understood: {error}.",
            hint="Revert that commit, or deploy again from the stack file.",
        ) from error
