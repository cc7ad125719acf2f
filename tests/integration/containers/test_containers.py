"""Services in containers: deployed, killed and stopped as processes are, by the same tests.

The tests that are imported are those of processes; `ship` is another one here.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import httpx
import pytest

from lapwing.agent import processes
from lapwing.agent.engine import Engine
from lapwing.observed import agent as observed
from tests.deployed import until
from tests.integration.faults import test_rejections as rejections
from tests.integration.faults import test_replicas as replicas
from tests.integration.faults.ship import STACK, Watchers
from tests.integration.faults.test_promotion import test_warm_rollback_starts_no_process
from tests.integration.faults.test_replicas import (
    test_process_ignoring_sigterm_is_killed_after_grace,
    test_release_that_exits_is_rejected,
)
from tests.integration.image.docker import Daemon, Docker

from .conftest import ContainerShip

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("containers")]
__all__ = [
    "test_process_ignoring_sigterm_is_killed_after_grace",
    "test_release_that_exits_is_rejected",
    "test_warm_rollback_starts_no_process",
]
REJECTING = rejections.QUIET.replace(
    "    rollout: {analysis: false, keep_old: 10m, stop_grace: 1s}\n",
    """
    rollout:
      keep_old: 10m
      stop_grace: 1s
      analysis: false
      smoke: [{run: python app.py check, timeout: 60s}]
""",
)


def test_failing_job_and_smoke_test_reject_releases(ship: ContainerShip, watched: Watchers) -> None:
    ship.stack(REJECTING)
    rejections.test_failing_job_rejects_the_release(ship, watched)
    rejections.test_failing_smoke_command_rejects_the_release(ship, watched)
    ship.stack(STACK)


def test_container_has_no_privileges_and_is_reachable_on_loopback_only(
    ship: ContainerShip, docker: Docker, watched: Watchers
) -> None:
    until(lambda: not ship.where.json("status")["stopping"], "the end of earlier containers")
    for name in ship.containers(docker):
        [found] = json.loads(docker("inspect", name))
        host = found["HostConfig"]
        assert (host["ReadonlyRootfs"], host["Privileged"]) == (True, False)
        assert host["SecurityOpt"] == ["no-new-privileges"]
        assert host["RestartPolicy"]["Name"] == "no"
        assert found["Config"]["User"] == "65532:65532"
        [[published]] = found["NetworkSettings"]["Ports"].values()
        assert published["HostIp"] == "127.0.0.1"
    for pid in ship.pids("active"):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        found = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        capabilities = {found[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")}
        assert capabilities == {"0" * 16}


def test_engine_limits_the_size_of_logs(ship: ContainerShip, docker: Docker) -> None:
    [found] = json.loads(docker("inspect", ship.containers(docker)[0]))
    wanted = {"max-size": "10m", "max-file": "2"}
    assert found["HostConfig"]["LogConfig"]["Config"] == wanted


def test_killed_container_is_restarted(ship: ContainerShip, clients: Watchers) -> None:
    """Requests may fail until Envoy knows: the engine accepts connections for a dead container."""
    replicas.test_killed_replica_is_restarted(ship, clients)


def test_output_is_kept_while_the_agent_is_dead(ship: ContainerShip) -> None:
    def announced() -> int:
        printed = ship.where.run("logs", "api", "-n", "500").stdout
        return printed.count(f"This is {ship.version} as web.")

    before = announced()
    agent = observed.read(ship.where.home / "agent")
    assert agent is not None
    ship.kill(agent.pid)
    [victim, kept] = ship.pids("active")
    os.kill(victim, signal.SIGKILL)
    ship.where.run("agent", "start")
    ship.recovers()
    assert kept in ship.pids("active")
    assert announced() == before + 1  # No line of a replica that was adopted is there twice.


def test_memory_limit_ends_a_replica_with_the_reason(ship: ContainerShip) -> None:
    ship.stack(STACK.replace("replicas: 2\n", "replicas: 2\n    resources: {memory: 64Mi}\n"))
    ship.deploy()
    active = ship.memory().of("api", "active")
    assert active is not None
    with pytest.raises(httpx.HTTPError):
        httpx.post(f"http://127.0.0.1:{active.replicas[0].port}/eat", content=b"x", timeout=60)
    until(lambda: ship.service()["active"]["restarts"] > 0, "its restart")
    ship.recovers()
    events = (ship.environment / "events.jsonl").read_text()
    reason = "killed by the kernel, out of memory; the limit is 64Mi: raise `resources:"
    assert reason in events
    assert reason in ship.where.call("status").stdout
    ship.stack(STACK)
    ship.deploy()


def test_program_that_is_not_in_the_image_is_reported(
    ship: ContainerShip, watched: Watchers
) -> None:
    ship.stack(STACK.replace("command: python app.py\n", "command: no-such-program\n"))
    said = ship.rejected()
    ship.stack(STACK)
    assert "cannot be started" in said
    assert "no-such-program" in said
    assert "Check `command` in the stack file" in said


def test_container_without_a_record_is_removed(ship: ContainerShip, docker: Docker) -> None:
    [found] = json.loads(docker("inspect", ship.containers(docker)[0]))
    labels = {**found["Config"]["Labels"], "dev.lapwing.owner": "faults/local/api/green-99/0"}
    options = [f"--label={key}={value}" for key, value in labels.items()]
    docker("run", "--detach", "--name", "stray", *options, found["Image"], "sleep", "600")
    agent = observed.read(ship.where.home / "agent")
    assert agent is not None
    ship.kill(agent.pid)
    ship.where.run("agent", "start")
    until(lambda: "stray" not in ship.containers(docker), "the end of the container")
    ship.whole()


def test_containers_start_again_with_the_engine(ship: ContainerShip, contained: Daemon) -> None:
    before = set(ship.pids("active"))
    contained.stop()
    until(lambda: ship.service()["phase"] == "crashing", "the report of the status")
    events = ship.environment / "events.jsonl"
    until(lambda: "is not running" in events.read_text(), "the reason in the event log")
    said = ship.where.run("deploy", status=0 if ship.next() is None else 1).stderr
    assert "api runs as a container. The container engine at" in said
    assert "systemctl start docker" in said
    contained.start()
    ship.recovers()
    assert not before & set(ship.pids("active"))


async def test_container_is_removed_by_several_at_once(docker: Docker, base: str) -> None:
    """As by the end of a failed start, and by the removal of containers without a record."""
    async with Engine(Path(docker.environ["DOCKER_HOST"].removeprefix("unix://"))) as engine:
        for number in range(5):
            name = f"removed-{number}"
            docker("run", "--detach", "--name", name, base, "sleep", "600")
            await asyncio.gather(*(engine.remove(name) for _ in range(4)))
            assert await engine.container(name) is None


def test_down_leaves_no_container(ship: ContainerShip, docker: Docker) -> None:
    pids = ship.pids("active")
    ship.where.run("down")
    until(lambda: ship.containers(docker) == [], "the end of the containers")
    assert not any(processes.started(pid) for pid in pids)
    ship.where.run("up")
    ship.version = f"v{ship.number}"
    ship.recovers()


@pytest.mark.parametrize("restarted", [False, True])
def test_down_while_the_engine_is_not_running_removes_containers_later(
    ship: ContainerShip, contained: Daemon, docker: Docker, restarted: bool
) -> None:
    """They have the secrets of the stack in their environment."""
    left = "Stopped containers of faults/local could not be removed"
    contained.stop()
    assert left in ship.where.run("down").stderr
    assert left in ship.where.call("status").stdout
    if restarted:
        ship.where.run("agent", "stop")
        ship.where.run("agent", "start")
    contained.start()
    until(lambda: ship.containers(docker) == [], "the end of the containers")
    until(lambda: left not in ship.where.call("status").stdout, "the report of the status")
    ship.where.run("up")
    ship.version = f"v{ship.number}"
    ship.recovers()
