"""Running git on a bare repository: plumbing only, and nobody's configuration.

Git's own lock files outlive a killed git. Every writer of ours holds a kernel lock on
`lapwing.lock` (dropped by the kernel when we die, however we die), so a `*.lock` that is found
while holding it belongs to nobody and is removed. Nobody has to clear a lock by hand.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from lapwing.errors import DesiredStateError, NoSpaceError, UsageError
from lapwing.system import locks

FULL = ("No space left", "Out of diskspace", "Disk quota exceeded")
"""What git says on a full disk; the second is fast-import's own."""
_LEFT_OVER = ("fast_import_crash_*", "objects/pack/tmp_*")
"""What a git leaves behind that died, or met a full disk."""
_LOCKS = ("HEAD.lock", "packed-refs.lock", "config.lock", "index.lock", "shallow.lock")


class Git:
    """The git command on one bare repository."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(
        self, *arguments: str, given: bytes = b"", environ: dict[str, str] | None = None
    ) -> str:
        """Run a git command and return what it printed, without the last newline.

        Raises DesiredStateError with git's words, NoSpaceError, or UsageError if there is no git.
        """
        return self.raw(*arguments, given=given, environ=environ).decode().removesuffix("\n")

    def raw(
        self, *arguments: str, given: bytes = b"", environ: dict[str, str] | None = None
    ) -> bytes:
        """As `run`, for output that is not text."""
        try:
            done = subprocess.run(
                ["git", "--git-dir", str(self.path), *arguments],
                input=given,
                capture_output=True,
                env=_environ() | (environ or {}),
                start_new_session=True,
                check=False,
            )
        except FileNotFoundError as error:
            raise UsageError(
                "git is not installed.", hint="Install git; Lapwing keeps its state in it."
            ) from error
        if done.returncode != 0:
            words = done.stderr.decode(errors="replace").strip()
            if any(sign in words for sign in FULL):
                raise NoSpaceError(
                    f"The disk that holds {self.path} is full.", hint="Free some space, try again."
                )
            last = words.splitlines()[-1] if words else "it did not say why"
            raise DesiredStateError(
                f"git {arguments[0]} failed in {self.path}: {last}.",
                hint="`lapwing doctor` checks the repository, and repairs it with --repair.",
                detail=words,
            )
        return done.stdout

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only writer of ours; what a killed git has left is cleared."""
        with locks.hold(self.path / "lapwing.lock"):
            self._clear_locks()
            yield

    def _clear_locks(self) -> None:
        for name in _LOCKS:
            (self.path / name).unlink(missing_ok=True)
        for lock in (self.path / "refs").rglob("*.lock"):
            lock.unlink(missing_ok=True)
        for pattern in _LEFT_OVER:
            for file in self.path.glob(pattern):
                file.unlink(missing_ok=True)


def _environ() -> dict[str, str]:
    """Git without the user's configuration, hooks or signing."""
    return {
        "PATH": os.defpath + ":/usr/local/bin:/opt/homebrew/bin",
        "HOME": "/nonexistent",
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_AUTHOR_NAME": "Lapwing",
        "GIT_AUTHOR_EMAIL": "lapwing@localhost",
        "GIT_COMMITTER_NAME": "Lapwing",
        "GIT_COMMITTER_EMAIL": "lapwing@localhost",
    }
