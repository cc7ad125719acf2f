"""What this machine remembers of an environment on a cluster: which context it is in, and whether
somebody is at work on it.

The context is remembered because the kubeconfig's current one is changed by other tools: a second
`lapwing deploy` must not go to another cluster than the first did. Being at work is a lock of the
kernel, as every writer of ours takes one: it goes with its process, however that ends, so nobody
has to clear it by hand.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from lapwing.errors import ConflictError
from lapwing.system import locks
from lapwing.system.files import write_atomic

CONTEXT = "context"
LOCK = "lock"


def read_context(folder: Path) -> str | None:
    """The context that an environment was last applied to; `folder` is the environment's."""
    try:
        return (folder / CONTEXT).read_text().strip() or None
    except FileNotFoundError:
        return None


def save_context(folder: Path, name: str) -> None:
    """Remember a context."""
    write_atomic(folder / CONTEXT, f"{name}\n".encode())


def forget_context(folder: Path) -> None:
    """Forget the context: its cluster is gone."""
    (folder / CONTEXT).unlink(missing_ok=True)


@contextlib.contextmanager
def environment_lock(folder: Path, what: str) -> Iterator[None]:
    """Be the only one that changes the environment. Raises ConflictError if another one does."""
    try:
        descriptor = locks.acquire(folder / LOCK, wait=False)
    except BlockingIOError:
        raise ConflictError(
            f"Another `lapwing` is changing {what} at the moment.",
            hint="Wait for it, or end it with Ctrl-C; then run the command again.",
        ) from None
    try:
        yield
    finally:
        os.close(descriptor)


def is_locked(folder: Path) -> bool:
    """Whether somebody is changing the environment."""
    return locks.is_held(folder / LOCK)
