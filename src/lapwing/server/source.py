"""The source of a stack, sent to a server as git objects: only what is missing is sent.

A deployment builds the working tree, also what is not committed yet. So a snapshot is a commit of
the working tree whose parent is HEAD; on the server HEAD is checked out, with the snapshot's files,
and its git sees the same revision and the same changes as the one here.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from lapwing.errors import ServerConnectionError, ServerError, SourceError
from lapwing.stack.branch_names import SEPARATOR, template_of
from lapwing.system.git import Git, first_names
from lapwing.system.retry import RetryPolicy

if TYPE_CHECKING:
    from lapwing.server.ssh import Connection

MAX_NAMED_FILES = 3
REFUSED = ("remote rejected", "unpack failed")
"""Messages of `git push` when the server has received the objects and does not accept them. Without
them the connection was lost. Source: git's transport.c and send-pack.c."""
MOVED = ("but expected", "reference already exists")
"""Messages of `git push` when another push changed the reference at the same time. Source: git's
refs/files-backend.c."""
RETRY = RetryPolicy(attempts=8)


def reference(environment: str) -> str:
    """Return where the repository of a server has the newest snapshot of an environment.

    Those of branches are in one folder of their template, which an SSH key can be limited to.
    """
    return f"refs/lapwing/{environment.replace(SEPARATOR, f'{SEPARATOR}/')}"


class Snapshot(msgspec.Struct, frozen=True):
    """A working tree: HEAD, the commit of the files, and the folder of the stack file in it."""

    head: str
    files: str
    folder: str


def take(folder: Path, environ: Mapping[str, str]) -> Snapshot:
    """Write the working tree of a folder's repository as a commit that no branch has.

    Raises SourceError if there is no repository or no commit.
    """
    git = Git(folder, environ, SourceError)
    top = Path(git.text("rev-parse", "--show-toplevel"))
    head = git.ask("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    if head is None:
        raise SourceError(
            f"The git repository of {folder} has no commit yet.",
            hint="Run `git add -A && git commit -m 'First version'`.",
        )
    return Snapshot(head, _commit(git, top, head), str(folder.resolve().relative_to(top.resolve())))


def check_unchanged(snapshot: Snapshot, paths: Iterable[Path], environ: Mapping[str, str]) -> None:
    """Check that files and folders of the working tree are those of a snapshot.

    Raises SourceError.
    """
    folder, *others = paths
    git = Git(folder if folder.is_dir() else folder.parent, environ, SourceError)
    top = Path(git.text("rev-parse", "--show-toplevel"))
    files = _commit(git, top, snapshot.head)
    changed = git.text(
        "diff", "--name-only", snapshot.files, files, "--", *map(str, (folder, *others))
    )
    if changed:
        names = changed.splitlines()
        raise SourceError(
            f"{first_names(names, MAX_NAMED_FILES)} changed after the command had started: what is "
            "in the folder may differ from what was tested.",
            hint="Run the command again. Nothing was deployed.",
        )


def _commit(git: Git, top: Path, head: str) -> str:
    """Return a commit of all files that git does not ignore; HEAD if they are those of HEAD."""
    with tempfile.TemporaryDirectory(prefix="lapwing-") as temporary:
        index = Path(temporary) / "index"
        known = top / git.text("rev-parse", "--git-path", "index")
        if known.is_file():
            index.write_bytes(known.read_bytes())
        environ = git.without_filters() | {"GIT_INDEX_FILE": str(index)}
        git.data("add", "--all", "--", str(top), environ=environ)
        tree = git.text("write-tree", environ=environ)
        if tree == git.text("rev-parse", f"{head}^{{tree}}"):
            return head
        names = {"NAME": "Lapwing", "EMAIL": "lapwing@localhost", "DATE": "@0 +0000"}
        names = {f"GIT_{r}_{k}": v for k, v in names.items() for r in ("AUTHOR", "COMMITTER")}
        message = "Files that are not committed yet"
        return git.text("commit-tree", tree, "-p", head, "-m", message, environ=names)


def send(folder: Path, snapshot: Snapshot, stack: str, environment: str, to: Connection) -> None:
    """Send what the server lacks of a snapshot.

    Raises ServerConnectionError if the connection fails, ServerError if the server refuses the
    source, or SourceError.
    """
    git = Git(folder, to.environ, SourceError)
    host = to.host
    name = f"[{host.name}]" if ":" in host.name else host.name
    url = f"ssh://{host.user}@{name}{f':{host.port}' if host.port else ''}/{stack}"
    pushed = f"+{snapshot.files}:{reference(environment)}"
    for attempt in range(1, RETRY.attempts + 1):
        done = git.run("push", "--quiet", "--no-verify", url, pushed, environ=to.git())
        if done.status == 0:
            return
        if not any(sign in done.messages for sign in MOVED):
            break
        time.sleep(RETRY.delay(attempt))  # Another user deploys; each needs only the objects.
    if "hidden ref" in done.messages:
        raise ServerError(
            f"This SSH key may not deploy {stack}/{environment}.",
            hint="Create another key and run "
            f"`lapwing server key -e {template_of(environment)} FILE`.",
        )
    if any(sign in done.messages for sign in REFUSED):
        raise ServerError(
            f"{host} refused the source of {stack}.",
            detail=done.messages,
            hint="Nothing was deployed. If git names no other cause, check the free space as an "
            f"administrator of the server: `ssh {host.target} df -h`. Then run the command again.",
        )
    raise ServerConnectionError(
        f"The source of {stack} could not be sent to {host}.",
        detail=done.messages or None,
        hint="Nothing was changed. Run the command again.",
    )


def check_out(repository: Path, snapshot: Snapshot, folder: Path) -> Path:
    """Write the files of a snapshot into a new folder, on the server; return the stack's folder.

    Raises SourceError, and leaves no folder, if the repository lacks the snapshot.
    """
    git = Git(repository, None, SourceError, bare=True)
    folder.mkdir(parents=True)
    git.data("worktree", "prune")
    git.data("worktree", "add", "--quiet", "--detach", "--no-checkout", str(folder), snapshot.head)
    tree = Git(folder, os.environ, SourceError)
    tree.data("read-tree", "--reset", "-u", snapshot.files)
    return folder / snapshot.folder
