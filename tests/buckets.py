"""A real S3 server, versitygw, whose objects are files in a folder."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.deployed import until
from tests.installation import free_port
from tests.needs import require

ACCESS_KEY, SECRET_KEY = "test-access-key", "test-secret-key"
BUCKET = "backups"


@dataclass(frozen=True)
class Bucket:
    """A bucket of a server at `endpoint`; its objects are files in `folder`."""

    endpoint: str
    folder: Path

    def objects(self) -> list[str]:
        """The keys of all objects."""
        files = (p for p in self.folder.rglob("*") if p.is_file())
        return sorted(p.relative_to(self.folder).as_posix() for p in files)


@contextlib.contextmanager
def bucket(folder: Path) -> Iterator[Bucket]:
    """Serve an empty bucket, whose requests have to be signed."""
    program, port = require("versitygw"), free_port()
    (folder / "root" / BUCKET).mkdir(parents=True)
    (folder / "metadata").mkdir()
    process = subprocess.Popen(
        [program, "--port", f"127.0.0.1:{port}", "posix", "--sidecar", str(folder / "metadata"),
         str(folder / "root")],
        env={**os.environ, "ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def listens() -> bool:
        assert process.poll() is None, "versitygw ended"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    try:
        until(listens, "versitygw")
        yield Bucket(f"http://127.0.0.1:{port}", folder / "root" / BUCKET)
    finally:
        process.kill()
        process.wait()
