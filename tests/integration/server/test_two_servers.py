"""Deployments to two servers at once, under load, with a fault in the middle of each.

cut      every SSH connection of both servers ends in a state of the rollout
reboot   the second server loses its power in that state, outside of its load
disk     the disk of the first server is full
clock    the clock of the first server is wrong by an hour
upgrade  the agent and Envoy of the first server are replaced
"""

from __future__ import annotations

import itertools
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lapwing.load.client import Client, Plan, running
from lapwing.load.record import Ledger
from lapwing.load.worker import Traffic
from tests import clock
from tests.disk import Disk, mounted
from tests.installation import installation
from tests.integration.server.conftest import STACK, Laptop, make_key
from tests.integration.server.machines import Machine
from tests.integration.server.test_server import upgrade
from tests.needs import require

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("server"), pytest.mark.timeout(7200)]
DEPLOYMENTS = int(os.environ.get("LAPWING_TEST_DEPLOYMENTS", "6"))
"""How many deployments at least, on both servers together."""
FAULTS = [
    ("cut", "building"), ("reboot", "analysing"), ("disk", "full"), ("clock", "3600"),
    ("upgrade", "agent"), ("cut", "starting"), ("reboot", "building"), ("cut", "analysing"),
    ("reboot", "starting"), ("clock", "-3600"), ("cut", "resources"), ("reboot", "resources"),
    ("cut", "switching"), ("reboot", "switching"), ("cut", "succeeded"), ("reboot", "succeeded"),
]  # fmt: skip
"""Each fault with its detail: for `cut` and `reboot` the state of the rollout, where `building` is
before the commit; for `clock` the seconds by which it is wrong."""
DISK = "4g"
FREE = 64 * 2**20
"""How many bytes a disk has free before it is filled."""
TRAFFIC = (
    Traffic(kind="new", path="/", interval=0.1),
    Traffic(kind="keep-alive", path="/", interval=0.1),
)


class Server(Laptop):
    """One of the servers, seen from a laptop that knows both."""

    def __init__(self, environment: str, laptop: Laptop, machine: Machine, disk: Disk) -> None:
        self.environment, self.where, self.machine = environment, laptop.where, machine
        self.laptop, self.disk = laptop, disk
        self.failures: list[tuple[str, str | None]] = []
        self.sent = 0
        self.faults: list[tuple[str, str]] = []
        self._exit = ExitStack()
        self.client: Client

    @property
    def clock(self) -> Path:
        return self.machine.root / "clock/jump"

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
        self.machine.run("pkill -KILL -f '[s]shd: (root|lapwing)' || true")

    def reboot(self) -> None:
        self.machine.power_off()
        self.machine.boot()

    def deploy(self) -> subprocess.Popen[str]:
        return self.where.begin("deploy", "-e", self.environment)


def during(
    servers: list[Server], commands: list[subprocess.Popen[str]], fault: tuple[str, str],
    act: Callable[[Server], None],
) -> None:  # fmt: skip
    """Do something to each server when its rollout enters the state of the fault."""
    step = fault[1]
    offsets = {s.environment: s.events.stat().st_size for s in servers}
    waiting = dict(zip(servers, commands, strict=True))
    if step == "building":
        time.sleep(1.5)
    while waiting:
        for server, command in list(waiting.items()):
            seen = server.events.read_bytes()[offsets[server.environment] :]
            if step == "building" or f'"state":"{step}"'.encode() in seen:
                act(server)
                server.faults.append(fault)
            elif command.poll() is None:
                continue
            del waiting[server]
        time.sleep(0.02)


def finish(server: Server, command: subprocess.Popen[str], *, may_fail: bool) -> None:
    """Wait for a deployment. If it ended before its commit, it is run again."""
    out, err = command.communicate(timeout=600)
    assert "Traceback" not in err, err
    if may_fail and command.returncode:
        assert "The connection to " in err, err
        server.where.run("deploy", "-e", server.environment)
    else:
        assert command.returncode == 0, out + err


def fail_on_a_full_disk(server: Server) -> None:
    """Deploy to a server without free space: that fails, and changes nothing."""
    server.disk.shrink(FREE)
    server.disk.fill()
    out, err = server.deploy().communicate(timeout=600)
    server.disk.free()
    server.disk.resize(DISK)
    assert "Traceback" not in err, err
    assert "No space" in err or "disk is full" in err, out + err


def round_of(servers: list[Server], fault: tuple[str, str], folder: Path) -> None:
    """Deploy to both servers, with a fault."""
    one, other = servers
    kind, detail = fault
    is_early = detail == "building"
    if kind == "disk":
        fail_on_a_full_disk(one)
        one.faults.append(fault)
    elif kind == "clock":
        one.clock.write_text(detail)
        one.faults.append(fault)
    elif kind == "reboot":
        other.end_load()
    commands = [server.deploy() for server in servers]
    if kind == "cut":
        during(servers, commands, fault, Server.cut)
    elif kind == "reboot":
        during([other], commands[1:], fault, Server.reboot)
        one.laptop.know([s.machine for s in servers])
    elif kind == "upgrade":
        upgrade(one, folder / "upgrade")
        one.faults.append(fault)
    for server, command in zip(servers, commands, strict=True):
        is_hit = kind == "cut" or (kind == "reboot" and server is other)
        finish(server, command, may_fail=is_early and is_hit)
    if kind == "reboot":
        other.begin_load(folder / "again")
    one.clock.write_text("0")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """Two servers that are set up from one laptop, which has deployed to both."""
    parts, folder = Path(require("server")), tmp_path_factory.mktemp("two")
    require("tmpfs")
    with ExitStack() as stack:
        machines, disks = [], []
        key = make_key(folder / "id")
        for number in (1, 2):
            address, place = f"127.0.0.{number}", folder / f"m{number}"
            disks.append(stack.enter_context(mounted(place, DISK)))
            made = Machine(place, parts, 200 + number + os.getpid() % 100, address)
            stack.callback(made.remove)
            made.allow(key)
            for name in ("clock", "etc/lapwing"):
                (made.root / name).mkdir()
            clock.make(made.root / "clock")
            (made.root / "etc/lapwing/environment.local").write_text("PYTHONPATH=/clock\n")
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
        pairs = zip(("vps", "qa"), machines, disks, strict=True)
        yield [Server(name, laptop, machine, disk) for name, machine, disk in pairs]


def test_no_request_fails_on_two_servers_with_faults(servers: list[Server], tmp_path: Path) -> None:
    one, _ = servers
    began = time.monotonic()
    rounds = max(3, DEPLOYMENTS // 2)
    for server in servers:
        server.begin_load(tmp_path / server.environment)
    for number, fault in enumerate(itertools.islice(itertools.cycle(FAULTS), rounds)):
        print(f"round {number} of {rounds}: {' '.join(fault)}", flush=True)
        version = f"round {number}"
        one.write(version)
        folder = tmp_path / f"round-{number}"
        folder.mkdir()
        round_of(servers, fault, folder)
        for server in servers:
            assert server.ask() == version
            print(f"  {server.environment}: {server.faults[-1:]}", flush=True)
    for server in servers:
        server.end_load()
        print(server.environment, server.sent, "requests;", len(server.faults), "faults")
    print(f"{2 * rounds} deployments in {time.monotonic() - began:.0f} s")
    assert [s.failures for s in servers] == [[], []]
    assert all(s.sent > 100 and s.faults for s in servers)
