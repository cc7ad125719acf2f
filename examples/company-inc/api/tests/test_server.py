"""The program as it runs: gunicorn, two processes on one store, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

from conftest import free_port

API = Path(__file__).parent.parent


def environment(tmp_path: Path, port: int = 0) -> dict[str, str]:
    return {
        **os.environ,
        "DB_URL": f"embedded://{tmp_path}/db",
        "SESSION_KEY": "test",
        "LAPWING_RELEASE": "api-test",
        "GUNICORN_CMD_ARGS": f"--bind 127.0.0.1:{port}",
    }


@contextmanager
def server(tmp_path: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A running API on a free port; yields the port and the process."""
    port = free_port()
    log = tmp_path / f"{port}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "app:app"],
            cwd=API,
            env=environment(tmp_path, port),
            stdout=out,
            stderr=out,
        )
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                if ask(port, "GET", "/api/healthz").status == 200:
                    break
            except OSError:
                pass
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield port, process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def ask(port: int, method: str, path: str, body: object = None) -> HTTPResponse:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    headers = {"Content-Type": "application/json"} if body is not None else {}
    connection.request(method, path, json.dumps(body) if body is not None else None, headers)
    return connection.getresponse()


def events(stream: HTTPResponse, count: int) -> list[str]:
    """The next `count` events' names."""
    names: list[str] = []
    while len(names) < count:
        line = stream.readline().decode()
        assert line, f"the stream ended after {names}"
        if line.startswith("event: "):
            names.append(line.split()[1])
    return names


def migrate(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "migrate.py"],
        cwd=API,
        env=environment(tmp_path),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_change_is_seen_through_another_process(tmp_path: Path) -> None:
    migrate(tmp_path)
    with server(tmp_path) as (one, _), server(tmp_path) as (two, _):
        stream = ask(two, "GET", "/api/events")
        assert events(stream, 1) == ["hello"]
        ada = {"name": "Ada", "email": "ada@example.com"}
        assert ask(one, "POST", "/api/customers", ada).status == 201
        assert events(stream, 1) == ["change"]
        stream.close()


def test_a_process_that_is_told_to_stop_ends_its_streams_in_order(tmp_path: Path) -> None:
    migrate(tmp_path)
    with server(tmp_path) as (port, process):
        stream = ask(port, "GET", "/api/events")
        assert events(stream, 1) == ["hello"]
        process.send_signal(signal.SIGTERM)
        stream.read()  # raises IncompleteRead if the connection is cut
        assert process.wait(15) == 0


def test_the_smoke_test_passes_here_and_fails_elsewhere(tmp_path: Path) -> None:
    migrate(tmp_path)
    with server(tmp_path) as (port, _):
        before = json.loads(ask(port, "GET", "/api/customers").read())["total"]
        for url, status in ((f"http://127.0.0.1:{port}", 0), (f"http://127.0.0.1:{port}/no", 1)):
            done = subprocess.run(
                [sys.executable, "smoke.py", url],
                cwd=API,
                env=environment(tmp_path),
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == status, done.stderr
        assert json.loads(ask(port, "GET", "/api/customers").read())["total"] == before


def test_migrating_without_a_database_says_why(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "migrate.py"],
        cwd=API,
        env={**environment(tmp_path), "DB_URL": "nonsense"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "DB_URL" in done.stderr
    assert "Traceback" not in done.stderr
