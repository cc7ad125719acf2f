"""Deployments to two servers at once, under load, while connections are cut."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lapwing.load.client import Client, Plan, running
from lapwing.load.record import Ledger
from lapwing.load.worker import Traffic
from tests.deployed import until
from tests.installation import installation
from tests.integration.server.conftest import STACK, Laptop, make_key
from tests.integration.server.machines import Machine
from tests.integration.server.test_server import upgrade
from tests.needs import require

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("server"), pytest.mark.timeout(7200)]
DEPLOYMENTS = int(os.environ.get("LAPWING_TEST_DEPLOYMENTS", "6"))
"""How many deployments, on both servers together."""
STEPS = ("building", "starting", "analysing", "resources", "switching", "succeeded")
"""When the connection is cut: before the commit, or when the rollout enters this state."""
TRAFFIC = (
    Traffic(kind="new", path="/", interval=0.1),
    Traffic(kind="keep-alive", path="/", interval=0.1),
)


class Server(Laptop):
    """One of the servers, seen from a laptop that knows both."""

    def __init__(self, environment: str, laptop: Laptop, machine: Machine) -> None:
        self.environment, self.where, self.machine = environment, laptop.where, machine
        self.laptop = laptop
        self.failures: list[tuple[str, str | None]] = []
        self.sent = 0
        self.cuts = 0
        self._exit = ExitStack()
        self.client: Client

    @property
    def events(self) -> Path:
        folder = f"var/lib/lapwing/state/environments/shop/{self.environment}"
        return self.machine.root / folder / "events.jsonl"

    def begin_load(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        with self.machine.network():
            self.client = self._exit.enter_context(running(Plan(self.target, TRAFFIC), folder))
        self.client.wait_for_answers()

    def end_load(self) -> None:
        ledger: Ledger = self.client.stop()
        self._exit.close()
        self.sent += ledger.sent
        self.failures += [(e.kind, e.failure) for e in ledger.failures]

    def cut(self) -> None:
        """End every SSH connection, as a network that fails does; sshd keeps listening."""
        self.cuts += 1
        self.machine.run("pkill -KILL -f '[s]shd: (root|lapwing)' || true")

    def deploy(self) -> subprocess.Popen[str]:
        return self.where.begin("deploy", "-e", self.environment)


def cut_in(servers: list[Server], commands: list[subprocess.Popen[str]], step: str) -> None:
    """Cut the connections of each server when its rollout enters a state, while it deploys."""
    offsets = {s.environment: s.events.stat().st_size for s in servers}
    waiting = dict(zip(servers, commands, strict=True))
    if step == "building":
        time.sleep(1.5)
    while waiting:
        for server, command in list(waiting.items()):
            seen = server.events.read_bytes()[offsets[server.environment] :]
            if step == "building" or f'"state":"{step}"'.encode() in seen:
                server.cut()
            elif command.poll() is None:
                continue
            del waiting[server]
        time.sleep(0.02)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """Two servers that are set up from one laptop, which has deployed to both."""
    parts, folder = Path(require("server")), tmp_path_factory.mktemp("two")
    with ExitStack() as stack:
        machines = []
        key = make_key(folder / "id")
        for number in (1, 2):
            address = f"127.0.0.{number}"
            made = Machine(folder / f"m{number}", parts, 200 + number + os.getpid() % 100, address)
            stack.callback(made.remove)
            made.allow(key)
            made.boot()
            machines.append(made)
        where = stack.enter_context(installation(tmp_path_factory.mktemp("laptop-of-two")))
        laptop = Laptop(where, machines[0], folder / "id")
        stack.callback(laptop.close)
        text = STACK.replace("root@HOST", "root@127.0.0.1", 1).replace("HOST", "127.0.0.2")
        where.write({"lapwing.yaml": text.replace("qa.example.com", "app.example.com")})
        laptop.know(machines)
        for name in ("vps", "qa"):
            where.run("server", "setup", "-e", name)
            subprocess.run(
                [*where.command, "secret", "set", "TOKEN", "-e", name], cwd=where.folder,
                env=where.environ, input="a-secret-value", text=True, check=True,
            )  # fmt: skip
            where.run("deploy", "-e", name)
        pairs = zip(("vps", "qa"), machines, strict=True)
        yield [Server(name, laptop, machine) for name, machine in pairs]


def test_no_request_fails_on_two_servers_while_connections_are_cut(
    servers: list[Server], tmp_path: Path
) -> None:
    """An upgrade of one agent, and a reboot of the other server, are in between. The reboot is
    outside of the load."""
    one, other = servers
    rounds = max(2, DEPLOYMENTS // 2)
    for server in servers:
        server.begin_load(tmp_path / server.environment)
    for number in range(rounds):
        version = f"round {number}"
        one.write(version)
        commands = [server.deploy() for server in servers]
        step = STEPS[number % len(STEPS)]
        cut_in(servers, commands, step)
        for server, command in zip(servers, commands, strict=True):
            out, err = command.communicate(timeout=600)
            assert "Traceback" not in err
            if step == "building" and command.returncode:
                # It was cut before it had committed anything, and is run again.
                assert "The connection to " in err
                server.where.run("deploy", "-e", server.environment)
            else:
                assert command.returncode == 0, out + err
        for server in servers:
            assert server.ask() == version
        if number == rounds // 2:
            upgrade(one, tmp_path / "upgrade")
            other.end_load()
            other.machine.power_off()
            other.machine.boot()
            one.laptop.know([s.machine for s in servers])
            until(lambda found=version: other.ask() == found, "the stack after the reboot")
            other.begin_load(tmp_path / "again")
    for server in servers:
        server.end_load()
    print({s.environment: {"sent": s.sent, "cuts": s.cuts} for s in servers})
    assert [s.failures for s in servers] == [[], []]
    assert all(s.sent > 100 and s.cuts for s in servers)
