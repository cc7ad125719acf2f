"""Checks that every worker process of a starting replica answers, where it has no health path.

A server with several worker processes opens one port, and the kernel gives a connection to any of
them. So a few requests prove nothing about the others. The workers are the processes of the replica
that have the listening socket open, but for the master that started them; the process that has the
socket of a connection open has accepted it (/proc/PID/fd). Connections are opened until each worker
has accepted one and has answered a request on it with a status below 500. Linux only, and not for
containers.

A process may have inherited the socket and accept no connection, such as one of a pool. Those whose
parent has answered are not waited for, others for TIMEOUT_S. A worker that does not answer in that
time is no reason: a bad response is, and workers that are replaced again and again. A server that
passes connections on to its workers, such as Node's cluster module, has one process with the
socket.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from lapwing.agent import ports, probe
from lapwing.agent.process_tree import Member
from lapwing.plan.model import Health

MAX_CONNECTIONS = 64
"""Connections that are open at once, at most: first twice as many as workers, then more."""
TIMEOUT_S = 10.0
"""Time to wait for workers that have not answered."""
CONNECT_S = 0.1
"""How long a connection may take: on loopback, only a full backlog delays it."""
STEADY_S = 0.5
"""How long no worker has been added: gunicorn starts them up to 0.1 s apart."""
PAUSE_S = 0.03
CONNECT_PAUSE_S = 0.002
"""Time between two connections of a burst: else the worker that is awake accepts all."""


async def check(
    port: int, path: str, health: Health, members: Callable[[], Awaitable[dict[int, Member]]]
) -> str | None:
    """Send requests until each worker of a replica has answered; returns why one is not healthy.

    `members` returns the processes of the replica.
    """
    loop = asyncio.get_running_loop()
    changed = loop.time()
    until = changed + TIMEOUT_S
    known, asked, count = set[int](), set[int](), 0
    while loop.time() < until:
        holding = await asyncio.to_thread(_holding, port, (await members()).values())
        workers = _workers(holding)
        if not workers:
            return None
        now = loop.time()
        required = {pid for pid in workers if holding[pid] not in asked}
        if required != known:
            known, changed, count = required, now, len(workers)
        if workers - asked:
            count = min(2 * count, MAX_CONNECTIONS)
            pids, limit = set(holding) - asked, min(until, now + health.timeout)
            reached = await _ask(port, path, health.host, pids, count, limit)
            if isinstance(reached, str):
                return reached
            asked |= reached
        if required <= asked and now >= changed + STEADY_S:
            return None
        await asyncio.sleep(PAUSE_S)
    steady = changed <= until - TIMEOUT_S / 2
    return None if steady else "its server keeps replacing worker processes"


async def _ask(
    port: int, path: str, host: str, pids: set[int], count: int, until: float
) -> set[int] | str:
    """Open `count` connections, and send a request on one to each process that accepted any.

    All are opened first, so workers that serve one connection at a time accept one each. The others
    are closed before the requests, as such a worker may have accepted one of them first. Returns
    the processes that responded, or why a response is not healthy.
    """
    with contextlib.ExitStack() as stack:
        connections = []
        for _ in range(count):
            try:
                async with asyncio.timeout(CONNECT_S):
                    connection = await probe.connect(port)
            except TimeoutError:
                break
            if isinstance(connection, str):
                return connection
            connections.append(stack.enter_context(contextlib.closing(connection)))
            await asyncio.sleep(CONNECT_PAUSE_S)
        await asyncio.sleep(PAUSE_S)
        clients = {connection.client for connection in connections}
        holders = await asyncio.to_thread(_holders, port, clients, pids)
        chosen = [c for c in connections if c.client in holders.values()]
        for connection in connections:
            if connection not in chosen:
                connection.close()
        answers = await asyncio.gather(*(_answer(c, path, host, until) for c in chosen))
    for answer in answers:
        if isinstance(answer, str):
            return answer
        if answer is not None and answer >= 500:
            return f"GET {path} responded with status {answer} from one of its worker processes"
    responded = {c.client for c, answer in zip(chosen, answers, strict=True) if answer}
    return {pid for pid, client in holders.items() if client in responded}


async def _answer(
    connection: probe.Connection, path: str, host: str, until: float
) -> int | str | None:
    """Send a request; returns the result as `Connection.get`, or None if there is none in time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout_at(until):
            return await connection.get(path, host)
    return None


def _holding(port: int, members: Iterable[Member]) -> dict[int, int]:
    """Return the processes that have the listening socket open, with their parents."""
    listening = {listener.inode for listener in ports.listeners(port)}
    return {m.identity.pid: m.parent for m in members if listening & _sockets(m.identity.pid)}


def _workers(holding: dict[int, int]) -> set[int]:
    """Return the worker processes of a server; none if it is one process."""
    masters = set(holding.values()) - {pid for pid in holding if holding[pid] in holding}
    return set(holding) - masters if len(holding) > 1 else set()


def _holders(port: int, clients: set[int], pids: set[int]) -> dict[int, int]:
    """Return the client port of one of these connections for each process that accepted any."""
    inodes = {inode: c for c, inode in ports.accepted(port).items() if c in clients}
    return {pid: inodes[i] for pid in pids for i in _sockets(pid) if i in inodes}


def _sockets(pid: int) -> set[str]:
    """Return the inodes of the sockets that a process has open; none if it may not be read."""
    found = set()
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(str(descriptor.readlink()).removeprefix("socket:[").removesuffix("]"))
    return found
