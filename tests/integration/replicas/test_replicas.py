"""Real processes, watched and started again."""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lapwing.agent import ports, processes, termination
from lapwing.agent.processes import Identity, Launch
from lapwing.agent.replicas import Replicas
from lapwing.agent.state import Generation, Replica
from lapwing.errors import ReplicaError
from lapwing.plan.model import Health, Rollout, Service

WORKER = Service(
    kind="worker",
    release="mailer-1",
    revision="r1",
    health=Health(settle=0.05),
    rollout=Rollout(stop_grace=5.0),
)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; the test's own time limit is the bound."""
    while not condition():
        await asyncio.sleep(0.01)


def worker(count: int = 1) -> Generation:
    """A generation of a worker that is not started yet."""
    replicas = [Replica(index=i, port=0) for i in range(count)]
    return Generation(
        number=1, service="mailer", slot="blue", role="active", spec=WORKER, replicas=replicas
    )


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Callable[..., Replicas]]:
    """Makes Replicas that start the Python program given; everything is stopped at the end."""
    made: list[Replicas] = []
    seen: list[tuple[Generation, Replica]] = []

    def maker(program: str, report: Callable[[str], None] = lambda _text: None) -> Replicas:
        async def launch(generation: Generation, replica: Replica) -> Launch:
            seen.append((generation, replica))
            mark = {processes.MARK: f"{tmp_path}|{generation.label}/{replica.index}"}
            return Launch((sys.executable, "-c", program), mark, tmp_path)

        found = Replicas(
            environment="local",
            launch=launch,
            log_of=lambda _g, r: tmp_path / f"{r.index}.log",
            mark_of=lambda g, r: f"{tmp_path}|{g.label}/{r.index}",
            changed=lambda: None,
            report=report,
        )
        made.append(found)
        return found

    yield maker
    for replicas in made:
        for generation, _ in seen:
            await replicas.stop(generation, 1.0)


def pid_of(generation: Generation) -> int:
    """The process id of the first replica, which has one."""
    pid = generation.replicas[0].pid
    assert pid is not None
    return pid


async def kill(generation: Generation) -> None:
    """Kill the first replica."""
    await termination.kill(Identity(pid_of(generation), generation.replicas[0].started))


SLEEPS = "import time; time.sleep(600)"


async def test_killed_worker_is_restarted(make: Callable[..., Replicas]) -> None:
    told: list[str] = []
    replicas, one = make(SLEEPS, told.append), worker()
    await replicas.start(one)
    first = pid_of(one)
    assert one.replicas[0].ready
    await kill(one)
    await until(lambda: one.replicas[0].restarts == 1)
    await until(lambda: one.replicas[0].ready)
    assert pid_of(one) != first
    assert len(told) == 1
    assert told[0].startswith("Replica mailer blue-1.0 ")


ANSWERS = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print("got", self.path, flush=True)
        self.send_response(204)
        self.end_headers()
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print("port", server.server_port, flush=True)
server.serve_forever()
"""
"""A server that fails if it cannot write to its log."""


@pytest.mark.parametrize("watched", [True, False], ids=["agent", "no agent"])
async def test_killed_log_writer_fails_no_request_and_loses_no_later_line(
    make: Callable[..., Replicas], tmp_path: Path, watched: bool
) -> None:
    """The running agent, or the next one, starts another writer. The last block of `dd` is lost."""
    replicas, one, log = make(ANSWERS), worker(), tmp_path / "0.log"
    await replicas.start(one)
    pid = pid_of(one)
    await until(lambda: "port" in log.read_text())
    port = int(log.read_text().split()[1])
    for number in range(4):
        writer = processes.log_writers[pid].pid
        if not watched:
            replicas.unwatch_all()
        os.killpg(writer, signal.SIGKILL)
        for request in range(20):
            await asyncio.to_thread(get, port, f"/{number}/{request}")
        if not watched:
            await asyncio.to_thread(processes.log_writers[pid].wait, 60)
            replicas.adopt(one)
        await until(lambda writer=writer: processes.log_writers[pid].pid != writer)
        await asyncio.to_thread(get, port, f"/{number}/after")
        await until(lambda number=number: f"got /{number}/after\n" in log.read_text())
    assert pid_of(one) == pid
    assert one.replicas[0].restarts == 0


def get(port: int, path: str) -> None:
    """Send a request that has to succeed."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path)
        assert connection.getresponse().status == 204
    finally:
        connection.close()


async def test_exited_candidate_is_not_restarted(make: Callable[..., Replicas]) -> None:
    replicas, one = make("import sys; print('no DB_URL'); sys.exit(3)"), worker()
    one.spec = msgspec.structs.replace(WORKER, health=Health(settle=60.0))
    with pytest.raises(ReplicaError, match="exited with status 3 during start-up") as caught:
        await replicas.start(one)
    assert "no DB_URL" in str(caught.value.detail)
    assert one.replicas[0].restarts == 0
    assert one.replicas[0].pid is None


async def test_start_keeps_running_replicas(make: Callable[..., Replicas]) -> None:
    replicas, two = make(SLEEPS), worker(2)
    await replicas.start(two)
    before = [r.pid for r in two.replicas]
    await replicas.start(two)
    assert [r.pid for r in two.replicas] == before


async def test_start_during_a_restart_delay_spawns_once(
    make: Callable[..., Replicas], tmp_path: Path
) -> None:
    """A watcher that was about to start a dead replica finds that `start` was faster."""
    count = f"open({str(tmp_path / 'count')!r}, 'a').write('x'); " + SLEEPS
    replicas, one = make(count), worker()
    replicas.adopt(one)
    await asyncio.sleep(0)
    await replicas.start(one)
    pid = pid_of(one)
    await asyncio.sleep(0.5)
    await until((tmp_path / "count").exists)
    assert pid_of(one) == pid
    assert (tmp_path / "count").read_text() == "x"


async def test_restarted_agent_adopts_and_restarts_replicas(make: Callable[..., Replicas]) -> None:
    old, two = make(SLEEPS), worker(2)
    await old.start(two)
    old.unwatch_all()
    living, dead = two.replicas[1].pid, pid_of(two)
    await kill(two)
    new = make(SLEEPS)
    new.adopt(two)
    await until(lambda: two.replicas[0].pid not in (None, dead) and two.replicas[0].ready)
    assert two.replicas[1].pid == living


async def test_stop_ends_the_processes(make: Callable[..., Replicas]) -> None:
    replicas, two = make(SLEEPS), worker(2)
    await replicas.start(two)
    pids: list[Any] = [r.pid for r in two.replicas]
    await replicas.stop(two, 5.0)
    assert [processes.started(pid) for pid in pids] == [None, None]
    assert [r.pid for r in two.replicas] == [None, None]


@pytest.mark.parametrize(
    ("address", "is_public"),
    [("127.0.0.1", False), ("::1", False), ("0.0.0.0", True), ("::", True)],
)
def test_listener_beyond_loopback_is_found(address: str, is_public: bool) -> None:
    port = ports.free_port(set())
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, port), family=family):
        assert [listener.address for listener in ports.listeners(port)] == [address]
        assert (ports.public_listener(port) == address) is is_public
