"""A deployment of several services switches all of them in one update, or none.

A client asks all services in turn, again and again, on one connection. Once one of them has
answered with a new version, none may answer with an older one: there is no moment in between.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lapwing.load.connection import Connection, Target
from tests.installation import Installation, installation
from tests.integration.switching.service import run

SERVICES = ("one", "two", "three")
SERVICE = """
  {name}:
    build: ./{name}
    command: python app.py
    route: /{name}
    health: /{name}/healthz
    rollout: {{analysis: false}}
"""


def write(where: Installation, number: int, *, fails: bool = False) -> None:
    """A version of all services; one whose last service fails its health check, if asked for."""
    for name in SERVICES:
        run.source(where.folder / name, f"v{number:03}", prefix=f"/{name}")
    if fails:
        (where.folder / SERVICES[-1] / "app.py").write_text("raise SystemExit(3)\n")
    stack = "stack: together\nservices:" + "".join(SERVICE.format(name=n) for n in SERVICES)
    where.write({"lapwing.yaml": stack})


@contextmanager
def watching(target: Target, clients: int = 3) -> Iterator[list[list[str]]]:
    """Clients that ask all services in turn; gives, for each client, the versions it was told."""
    told: list[list[str]] = [[] for _ in range(clients)]
    stop = threading.Event()

    async def ask(versions: list[str]) -> None:
        connection = await Connection.open(target, target.tls())
        while not stop.is_set():
            for name in SERVICES:
                response = await connection.request("GET", f"/{name}/version")
                versions.append((await response.read()).decode())
            await asyncio.sleep(0.001)
        connection.close()

    async def ask_all() -> None:
        async with asyncio.TaskGroup() as group:
            for versions in told:
                group.create_task(ask(versions))

    failed: list[BaseException] = []

    def work() -> None:
        try:
            asyncio.run(ask_all())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield told
    finally:
        stop.set()
        thread.join()
    assert failed == []


def test_all_services_switch_together_or_not_at_all(tmp_path: Path) -> None:
    with installation(tmp_path) as where:
        write(where, 0)
        where.run("up")
        with watching(where.target("together")) as told:
            for number in range(1, 6):
                write(where, number)
                where.run("deploy")
                if number % 2:
                    write(where, number + 500, fails=True)
                    where.run("deploy", status=1)
        for versions in told:
            assert versions == sorted(versions)
            assert set(versions) == {f"v{number:03}" for number in range(6)}
