"""A folder, a bucket and a Redis for the containers of backups."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.buckets import Bucket, bucket
from tests.installation import free_port
from tests.integration.cluster_backups.pods import PASSWORD, serve
from tests.needs import require


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the user of the containers reaches."""
    require("setpriv")
    require("rclone")
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def objects(folder: Path) -> Iterator[Bucket]:
    (folder / "s3").mkdir()
    with bucket(folder / "s3") as found:
        yield found


@pytest.fixture
def redis(folder: Path) -> Iterator[tuple[int, list[str]]]:
    require("redis")
    port, data = free_port(), folder / "redis"
    data.mkdir()
    quoted = json.dumps(PASSWORD)
    (data / "conf").write_text(f"port {port}\ndir {data}\nrequirepass {quoted}\n")
    client = ["redis-cli", "-p", str(port), "-a", PASSWORD, "--no-auth-warning"]
    with serve("redis-server", str(data / "conf"), answers=[*client, "ping"]):
        yield port, client
