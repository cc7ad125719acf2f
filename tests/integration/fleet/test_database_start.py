"""The start scripts of databases in a cluster: the settings that follow their memory limit."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lapwing.render.kubernetes.data import SERVERS
from tests.cluster.control_plane import wait_until
from tests.installation import free_port
from tests.needs import require

PASSWORD = 'a "quoted" \\ $(word) %s #1'
MIB = 2**20


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[int]:
    """The port of a Redis that the script has started, with 256 MiB."""
    program, port = require("redis"), free_port()
    script = SERVERS["redis"].start or ""
    script = script.replace("/tmp/redis.conf", str(tmp_path / "redis.conf"))
    script = script.replace("exec redis-server", f"exec {program}")
    script = script.replace("dir /data", f"dir {tmp_path}\n  echo port {port}")
    environ = {
        "PATH": os.environ["PATH"],
        "REDISCLI_AUTH": PASSWORD,
        "MEMORY": str(256 * MIB),
    }
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(["/bin/sh", "-c", script], env=environ, stdout=log, stderr=log)
    try:
        wait_until(lambda: _answers(port), "Redis answers", 60)
        yield port
    finally:
        process.terminate()
        process.wait(60)


def _answers(port: int) -> bool:
    try:
        return bool(_ask(port, "PING"))
    except OSError:
        return False


def _ask(port: int, *requests: str) -> str:
    """Send inline commands; return the replies, with a line for each."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall("".join(f"{r}\r\n" for r in (*requests, "QUIT")).encode())
        return b"".join(iter(lambda: connection.recv(4096), b"")).decode()


def test_redis_has_a_quoted_password_and_a_memory_limit(redis: int) -> None:
    escaped = PASSWORD.replace("\\", "\\\\").replace('"', '\\"')
    assert "NOAUTH" in _ask(redis, "CONFIG GET maxmemory")
    found = _ask(redis, f'AUTH "{escaped}"', "CONFIG GET maxmemory", "CONFIG GET maxmemory-policy")
    assert found.startswith("+OK")
    assert str(192 * MIB) in found
    assert "noeviction" in found


@pytest.mark.parametrize(
    ("memory", "pool", "connections"), [(1024 * MIB, 614, 151), (16 * 1024 * MIB, 9830, 2048)]
)
def test_mysql_arguments_follow_the_memory_limit(
    tmp_path: Path, memory: int, pool: int, connections: int
) -> None:
    entrypoint = tmp_path / "docker-entrypoint.sh"
    entrypoint.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    entrypoint.chmod(0o755)
    environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "MEMORY": str(memory)}
    script = (SERVERS["mysql"].start or "").replace("/var/lib/mysql", str(tmp_path / "data"))
    ran = subprocess.run(
        ["/bin/sh", "-euc", script], env=environ, capture_output=True, text=True, check=True
    )
    program, *arguments = ran.stdout.splitlines()
    settings = dict(a.removeprefix("--").split("=") for a in arguments)
    assert program == "mysqld"
    assert int(settings["innodb-buffer-pool-size"]) // MIB == pool
    assert settings["max-connections"] == str(connections)
    assert settings["binlog-expire-logs-seconds"] == str(3 * 86400)
    assert Path(settings["tmpdir"]).is_relative_to(tmp_path / "data")
    assert Path(settings["tmpdir"]).is_dir()
