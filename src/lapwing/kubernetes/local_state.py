"""What this machine keeps of an environment in a cluster: its context, and a lock.

The context is saved because other tools change the current one of the kubeconfig: a second
`lapwing deploy` must not go to another cluster than the first. The lock is a kernel lock, which is
released when its process ends, so there is no stale lock to clear.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from lapwing.errors import ConflictError
from lapwing.system import locks
from lapwing.system.files import write_atomic

CONTEXT = "context"
LOCK = "lock"


def read_context(folder: Path) -> str | None:
    """Return the context that an environment was last applied to; `folder` is its own."""
    try:
        return (folder / CONTEXT).read_text().strip() or None
    except FileNotFoundError:
        return None


def save_context(folder: Path, name: str) -> None:
    """Save the context of an environment."""
    write_atomic(folder / CONTEXT, f"{name}\n".encode())


def forget_context(folder: Path) -> None:
    """Delete the saved context: its cluster is gone."""
    (folder / CONTEXT).unlink(missing_ok=True)


@contextlib.contextmanager
def environment_lock(folder: Path, what: str) -> Iterator[None]:
    """Hold the lock of an environment. Raises ConflictError if another command holds it."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locks.hold(folder / LOCK, wait=False))
        except BlockingIOError:
            raise ConflictError(
                f"Another `lapwing` command is changing {what}.",
                hint="Wait for it, or end it with Ctrl-C; then run this command again.",
            ) from None
        yield


def is_locked(folder: Path) -> bool:
    """Return whether a command is changing the environment."""
    return locks.is_held(folder / LOCK)
