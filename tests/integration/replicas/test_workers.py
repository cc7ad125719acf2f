"""A replica without a health path is ready when every worker process of its server answers."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from uv import find_uv_bin

from lapwing.agent import ports, processes, workers
from lapwing.agent.processes import Launch
from lapwing.agent.replicas import Replicas
from lapwing.agent.state import Generation, Replica
from lapwing.errors import ReplicaError
from lapwing.plan.model import Health, Service

SETTINGS = """
import os
import time

workers = 4

def post_fork(server, worker):
    os.environ["NUMBER"] = str(worker.age)
    if worker.age >= int(os.environ.get("EXITS", 1000)):
        time.sleep(0.5)
        os._exit(1)
"""
WSGI = """
import os

def app(environ, start_response):
    with open("answered", "a") as file:
        file.write(f"{os.getpid()}\\n")
    fails = os.environ["NUMBER"] == os.environ.get("FAILS")
    start_response("500 Error" if fails else "200 OK", [("Content-Length", "0")])
    return []
"""
ASGI = """
import os

async def app(scope, receive, send):
    if scope["type"] == "http":
        with open("answered", "a") as file:
            file.write(f"{os.getpid()}\\n")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})
"""
STDLIB = """
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from multiprocessing import get_context

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        with open("answered", "a") as file:
            file.write(f"{os.getpid()}\\n")
        self.send_response(204)
        self.end_headers()

kind, port = sys.argv[1], int(sys.argv[2])
server = (ThreadingHTTPServer if kind == "threads" else HTTPServer)(("127.0.0.1", port), Handler)
if kind == "prefork":
    if all(os.fork() for _ in range(8)):
        os.wait()
else:
    pool = ProcessPoolExecutor(4, mp_context=get_context("fork"))
    assert list(pool.map(abs, range(8))) == list(range(8))
server.serve_forever()
"""
SYNC = "gunicorn -c settings.py wsgi:app"
THREADS = f"{SYNC} --threads 4"
UVICORN = "uvicorn asgi:app --workers 4 --port {port}"
IPV6 = "http.server --bind ::1 {port}"
Start = Callable[..., Awaitable[set[str]]]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with gunicorn and uvicorn, as users install them."""
    folder = tmp_path_factory.mktemp("servers")
    install = [find_uv_bin(), "pip", "install", "-q", "--python", sys.executable]
    packages = ["gunicorn==23.0.0", "uvicorn==0.38.0"]
    subprocess.run([*install, "--target", str(folder), *packages], check=True)
    return folder


@pytest.fixture
async def start(
    servers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Start]:
    """Start a replica by a module, and return the processes that answered; it is stopped then.

    On a busy machine, workers start long after each other, and one may accept most connections.
    """
    monkeypatch.setattr(workers, "STEADY_S", 3.0)
    monkeypatch.setattr(workers, "TIMEOUT_S", 60.0)
    for name, text in (
        ("settings.py", SETTINGS),
        ("wsgi.py", WSGI),
        ("asgi.py", ASGI),
        ("stdlib.py", STDLIB),
    ):
        (tmp_path / name).write_text(text)
    replica = Replica(index=0, port=ports.free_port(set()))
    spec = Service(kind="web", release="a-1", revision="r1", route="/")
    one = Generation(number=1, service="shop", slot="blue", role="active", spec=spec)
    one.replicas.append(replica)
    environ = {
        processes.MARK: f"{tmp_path}|shop",
        "PORT": str(replica.port),
        "PYTHONPATH": str(servers),
    }
    command: list[str] = []

    async def launch(_one: Generation, _replica: Replica) -> Launch:
        return Launch((sys.executable, "-m", *command), environ, tmp_path)

    replicas = Replicas(
        environment="local",
        launch=launch,
        log_of=lambda _one, _replica: tmp_path / "log",
        mark_of=lambda _one, _replica: environ[processes.MARK],
        changed=lambda: None,
        report=lambda _text: None,
    )

    async def run(module: str, timeout: float = 60.0, **variables: str) -> set[str]:
        command[:] = module.format(port=replica.port).split()
        environ.update(variables)
        one.spec = msgspec.structs.replace(spec, health=Health(start_timeout=timeout))
        await replicas.start(one)
        return set((tmp_path / "answered").read_text().split())

    yield run
    await replicas.stop(one, 5.0)


@pytest.mark.parametrize("command", [SYNC, THREADS, UVICORN])
async def test_each_worker_answers_before_replica_is_ready(command: str, start: Start) -> None:
    assert len(await start(command)) == 4


@pytest.mark.parametrize("command", [SYNC, THREADS])
async def test_replica_is_rejected_if_one_worker_fails(command: str, start: Start) -> None:
    with pytest.raises(ReplicaError, match="GET / responded with status 500"):
        await start(command, timeout=2.0, FAILS="4")


async def test_replica_is_rejected_if_one_worker_cannot_start(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "STEADY_S", 60.0)
    monkeypatch.setattr(workers, "TIMEOUT_S", 12.0)
    with pytest.raises(ReplicaError, match="its server keeps replacing worker processes"):
        await start(SYNC, timeout=2.0, EXITS="4")


async def test_reason_names_address_other_than_loopback_of_ipv4(start: Start) -> None:
    expected = r"it listens on ::1, not on \$HOST, which is 127\.0\.0\.1"
    with pytest.raises(ReplicaError, match=expected):
        await start(IPV6, timeout=3.0)


async def test_each_serial_worker_answers_although_the_backlog_is_small(start: Start) -> None:
    assert len(await start("stdlib prefork {port}")) == 8


@pytest.mark.parametrize("kind", ["serial", "threads"])
async def test_processes_of_a_pool_are_not_waited_for(kind: str, start: Start) -> None:
    began = time.monotonic()
    assert len(await start(f"stdlib {kind} {{port}}")) == 1
    assert time.monotonic() < began + workers.TIMEOUT_S
