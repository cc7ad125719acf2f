"""Dump the data of mongod, a program of this machine, and load a dump into new data.

Its files cannot be copied while it runs, so the tools of MongoDB, which are in a separate package,
have to be on the PATH. They dump all databases, one collection after the other.

Source: MongoDB Database Tools, mongodump and mongorestore.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from lapwing.errors import BackupError
from lapwing.plan.model import Resource

DUMP, RESTORE, HOST = "mongodump", "mongorestore", "--host=127.0.0.1"
SYSTEM = ("--nsExclude=admin.*", "--nsExclude=config.*")
"""The databases with users and sessions: a dump of them is not loaded into another server."""
MAX_MESSAGE_CHARS = 1000


def runs(resource: Resource) -> bool:
    """Return whether a resource is a mongod that is a program of this machine."""
    return resource.provider == "binary" and is_mongod(resource.program)


def is_mongod(program: str | None) -> bool:
    """Return whether a program is mongod."""
    return program is not None and Path(program).name == "mongod"


def missing() -> str | None:
    """Return the tool that is missing on this machine; None if both are installed."""
    return next((name for name in (DUMP, RESTORE) if shutil.which(name) is None), None)


def dump(name: str, environment: str, port: int, to: Path) -> None:
    """Write a dump of the server at a port into a new file. Raises BackupError, OSError."""
    with to.open("xb") as file:
        done = subprocess.run(
            [DUMP, HOST, f"--port={port}", "--archive"],
            stdout=file, stderr=subprocess.PIPE, check=False,
        )  # fmt: skip
    if done.returncode:
        raise BackupError(
            f"{name} cannot be dumped: {_message(done.stderr)}",
            hint=f"Check that it is running: `lapwing status -e {environment}`.",
        )


def load(name: str, environment: str, port: int, dumped: Path) -> None:
    """Load a dump into the server at a port, and remove it. Raises BackupError, OSError."""
    if missing() is not None:
        raise BackupError(
            f"{missing()} is not installed, so {name} cannot be restored.",
            hint="Install the MongoDB Database Tools.",
        )
    done = subprocess.run(
        [RESTORE, HOST, f"--port={port}", f"--archive={dumped}", "--stopOnError", *SYSTEM],
        stderr=subprocess.PIPE, check=False,
    )  # fmt: skip
    if done.returncode:
        raise BackupError(
            f"{name} cannot be restored: {_message(done.stderr)}",
            hint=f"Restore another backup: `lapwing backup list -e {environment}` shows them.",
        )
    dumped.unlink()


def _message(messages: bytes) -> str:
    return messages.decode(errors="replace").strip()[-MAX_MESSAGE_CHARS:] or "no message"
