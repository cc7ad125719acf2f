"""What goes on while nobody deploys: warm slots, static sites, a hung Envoy, an agent that ends for
want of work and is needed that very moment, a stack whose folder is gone."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from lapwing.agent import process_tree, processes
from lapwing.agent.proxy import certificates
from lapwing.observed import agent
from tests.deployed import PATIENCE, until
from tests.installation import envoys
from tests.integration.agent.conftest import kill_agent
from tests.integration.faults import ship as usual
from tests.integration.faults.ship import Ship, Watchers

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("runtime-lifecycle")]
WITH_PAGE = (
    usual.STACK
    + """
  web:
    build: ./web
    static: .
    route: /page
    replicas: 2
    rollout: {analysis: false, keep_old: 10m}
"""
)


@pytest.fixture(scope="module", autouse=True)
def page(ship: Ship) -> None:
    """A static site beside the service."""
    ship.where.write({"web/index.html": "a page"})
    ship.stack(WITH_PAGE)
    ship.where.run("deploy")
    assert ship.get("/page/").text == "a page"


def test_killed_replica_of_a_warm_slot_is_restarted(ship: Ship, watched: Watchers) -> None:
    """Its replicas are killed and come back, and a rollback is a change of route still."""
    ship.deploy()
    warm = ship.pids("idle")
    for pid in warm:
        ship.kill(pid)

    def again() -> list[int]:
        idle = ship.service()["idle"]
        return idle["pids"] if idle["ready"] == 2 and not set(idle["pids"]) & set(warm) else []

    pids = until(again, "the return of the warm slot")
    ship.where.run("rollback")
    assert ship.pids("active") == pids
    ship.version = "v0"
    ship.whole()


def test_warm_slot_is_restarted_before_it_gets_traffic(ship: Ship, watched: Watchers) -> None:
    version = ship.deploy()
    kill_agent(ship)
    for generation in ship.memory().generations:
        if generation.role == "warm" and generation.service == "api":
            for replica in generation.replicas:
                assert replica.pid is not None
                ship.kill(replica.pid)
    ship.where.run("rollback")
    ship.version = "v0"
    assert ship.get().text != version
    ship.whole()


def test_killed_static_replica_is_restarted(ship: Ship, watched: Watchers) -> None:
    victim, other = ship.pids("active", "web")
    ship.kill(victim)
    assert [ship.get("/page/").text for _ in range(20)] == ["a page"] * 20

    def back() -> bool:
        active = ship.service("web")["active"]
        return active["ready"] == 2 and victim not in active["pids"]

    until(back)
    assert other in ship.pids("active", "web")


@contextlib.contextmanager
def hung_envoy(ship: Ship) -> Iterator[None]:
    """Envoy does nothing meanwhile."""
    pids = envoys(ship.where.home)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_unresponsive_envoy_is_reported_until_it_responds(ship: Ship) -> None:
    with hung_envoy(ship):
        until(lambda: "Envoy does not respond" in (ship.status()["problem"] or ""))
        assert not ship.status()["envoy"]["running"]
        shown = ship.where.run("status", status=1).stdout
        assert "Envoy is not running: no request reaches a service." in shown
    until(lambda: ship.status()["problem"] is None)
    assert ship.status()["envoy"]["running"]
    ship.whole()


def kill_envoys(ship: Ship) -> bool:
    """Kill Envoy and what starts it again; returns whether there was any."""
    found = [p.pid for p, owner in process_tree.owned(ship.where.home) if owner == "envoy"]
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(found)


def test_doctor_reports_that_agent_or_envoy_is_not_running(ship: Ship) -> None:
    def checks(status: int) -> dict[str, dict[str, Any]]:
        return {c["check"]: c for c in ship.where.json("doctor", status=status)}

    found = checks(0)
    assert found["agent"]["ok"]
    assert found["traffic"]["ok"]
    ship.where.run("agent", "stop")
    found = checks(1)
    assert not found["agent"]["ok"]
    assert "not restarted. Run `lapwing agent start`." in found["agent"]["seen"]
    assert found["port"]["ok"]
    assert found["port"]["seen"] == f"{ship.where.port} is used by Envoy of this LAPWING_HOME"
    assert found["traffic"]["ok"], "Envoy runs without the agent"
    until(lambda: not kill_envoys(ship), "the end of Envoy and its supervisor")
    seen = checks(1)["traffic"]
    assert not seen["ok"]
    assert "Envoy is not running: no request reaches faults/local" in seen["seen"]
    assert "`lapwing agent start`" in seen["seen"]
    ship.where.run("agent", "start")
    until(lambda: ship.status()["envoy"]["running"])
    assert checks(0)["traffic"]["ok"]
    ship.whole()


def test_reported_problem_ends_during_a_paused_deployment(ship: Ship) -> None:
    ship.next()
    ship.where.run("deploy", "--hold")
    with hung_envoy(ship):
        until(lambda: "Envoy does not respond" in (ship.status()["problem"] or ""))
    until(lambda: ship.status()["problem"] is None)
    assert ship.status()["rollout"]["state"] == "holding"
    ship.where.run("abort")
    ship.whole()


def test_damaged_certificate_is_created_again(ship: Ship, watched: Watchers) -> None:
    """Also during a paused deployment; the authority, which clients trust, stays."""
    ship.next()
    ship.where.run("deploy", "--hold")
    folder = ship.where.settings.certificates
    authority = (folder / "ca.pem").read_bytes()
    (folder / "server.pem").write_bytes((folder / "server.pem").read_bytes()[:300])
    until(lambda: certificates.is_intact(folder))
    assert (folder / "ca.pem").read_bytes() == authority
    ship.where.run("abort")
    ship.whole()


def test_deployment_waits_for_an_unresponsive_envoy(ship: Ship) -> None:
    version = ship.next(start=2)
    deploying = ship.begin("deploy")
    until(lambda: ship.status()["rollout"])
    with hung_envoy(ship):
        time.sleep(3)  # Longer than the release takes to start.
    _, said = deploying.communicate(timeout=120)
    assert deploying.returncode == 0, said
    ship.version = version
    until(lambda: ship.status()["problem"] is None)
    ship.whole()


def test_stack_keeps_running_without_its_folder(ship: Ship, watched: Watchers) -> None:
    """Nothing that runs looks into the folder that it came from; nor does an agent that starts."""
    away = ship.where.folder.with_name("away")
    shutil.move(ship.where.folder, away)
    try:
        kill_agent(ship)
        agents = ship.where.beside("empty")
        agents.run("agent", "start")
        victim = ship.memory().generations[-1].replicas[0].pid
        assert victim is not None
        killed = ship.kill(victim)
        watched.forgive(lambda e: e.sent <= killed)
        assert ship.get().text == ship.version
        until(lambda: processes.started(victim) is None)
    finally:
        shutil.move(away, ship.where.folder)

    until(lambda: all(victim not in s["active"]["pids"] for s in ship.status()["services"]))
    ship.recovers()


@pytest.mark.parametrize("verb", ["up", "rollback"])
def test_deployment_at_the_exit_of_the_agent_is_performed(ship: Ship, verb: str) -> None:
    """After `down` the agent ends by itself. A commit at that very moment must not be lost."""
    log = ship.where.home / "agent" / "agent.log"
    before = log.read_text().count("No environment is running")
    ship.where.run("down")
    end = time.monotonic() + PATIENCE
    while log.read_text().count("No environment is running") == before:
        assert time.monotonic() < end
        time.sleep(0.001)
    ship.where.run(verb)
    ship.whole()
    assert ship.get("/page/").text == "a page"
    assert agent.is_running(ship.where.home / "agent")


def test_log_writer_of_the_agent_is_started_again(ship: Ship) -> None:
    log = ship.where.home / "agent" / "agent.log"

    def writer() -> int | None:
        for process in psutil.process_iter(["cmdline"]):
            if {"lapwing-log", str(log)} <= {*(process.info["cmdline"] or ())}:
                return process.pid
        return None

    before = until(writer, "the log writer")
    os.killpg(before, signal.SIGKILL)
    until(lambda: writer() not in (None, before), "another log writer")
    [victim, _] = envoys(ship.where.home)
    os.kill(victim, signal.SIGKILL)
    until(lambda: f"Envoy (process {victim}) exited" in log.read_text(), "a line in the log")


def test_idle_agent_exits_and_leaves_no_process(ship: Ship) -> None:
    ship.where.run("down")
    until(lambda: not agent.is_running(ship.where.home / "agent"), "the end of the agent")
    assert list(process_tree.owned(ship.where.home)) == []
    ship.where.run("up")
    ship.whole()
