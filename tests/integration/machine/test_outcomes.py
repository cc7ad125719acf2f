"""The routes when a command reads the outcome of a deployment, with the real agent and Envoy."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from lapwing.desired.repository import DesiredRepository
from lapwing.observed import agent
from tests.deployed import PATIENCE, until

from .conftest import Yard

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("outcomes")]
EDGE = """
environments:
  local:
    domains: [faults.localhost, {domain}]
    redirects: {{{redirect}: faults.localhost}}
    headers: {{x-edge: {header}}}
    access: {{allow: [127.0.0.0/8]}}
"""
FAILED_JOB = "  check: {kind: job, build: ./app, command: /bin/false, after: [app]}"


def edge(yard: Yard, domain: str, redirect: str, header: str) -> None:
    """Write the stack file with these settings."""
    yard.stack(more=EDGE.format(domain=domain, redirect=redirect, header=header))


def stop_at_change(file: Path, process: int) -> None:
    """Stop a process as soon as a file is replaced."""
    before, until = file.stat().st_ino, time.monotonic() + PATIENCE
    while file.stat().st_ino == before:
        assert time.monotonic() < until
        time.sleep(0.0002)
    os.kill(process, signal.SIGSTOP)


def test_routes_are_in_use_before_the_outcome_is_written(yard: Yard) -> None:
    """The agent is stopped when it has written the outcome, so it publishes nothing later."""
    edge(yard, "one.localhost", "two.localhost", "first")
    yard.where.run("deploy")
    assert yard.get(host="one.localhost").headers["x-edge"] == "first"
    assert yard.get(host="two.localhost").status_code == 308

    held = agent.holder(yard.where.settings.agent)
    assert held is not None
    edge(yard, "two.localhost", "three.localhost", "second")
    deployment = yard.where.begin("deploy")
    stop_at_change(yard.where.settings.desired / "refs" / "notes" / "lapwing", held)
    try:
        assert yard.get(host="two.localhost").headers["x-edge"] == "second"
        assert yard.get(host="three.localhost").status_code == 308
        assert "there is no site with this host name" in yard.get(host="one.localhost").text
    finally:
        os.kill(held, signal.SIGCONT)
    assert deployment.wait() == 0


def test_settings_of_requests_change_at_the_switch_and_are_undone(yard: Yard) -> None:
    """The header of the new release is in its first response, and in none after the rollback."""
    edge(yard, "one.localhost", "two.localhost", "good")
    yard.write("good")
    yard.where.run("deploy")
    edge(yard, "one.localhost", "two.localhost", "bad")
    yard.write("bad", status=500)
    deployment = yard.where.begin("deploy")
    while deployment.poll() is None:
        response = yard.get()
        assert response.headers["x-edge"] == response.headers["x-release"]
    assert deployment.returncode == 1
    response = yard.get()
    assert response.headers["x-edge"] == response.headers["x-release"] == "good"


def test_failed_first_deployment_does_not_affect_other_environments(yard: Yard) -> None:
    """Its candidates drain without a host name: Envoy would reject one without any domain."""
    other = Yard(yard.where.beside("second"), "second")
    other.stack(more=FAILED_JOB)
    other.write("first")
    assert "Job check exited with status 1" in other.where.run("deploy", status=1).stderr
    assert [g.role for g in other.memory().generations] == ["draining"]
    yard.good("unaffected")
    assert yard.get().text == "unaffected"
    assert yard.status()["problem"] is None


def test_used_host_name_is_refused_and_blocks_no_other_deployment(yard: Yard) -> None:
    edge(yard, "one.localhost", "two.localhost", "owner")
    yard.write("owner")
    yard.where.run("deploy")
    other = Yard(yard.where.beside("third"), "third")
    names = "environments: {{local: {{domains: [third.localhost{}]}}}}"
    other.stack(more=names.format(""))
    other.write("first")
    other.where.run("up")
    deployments = other.where.json("history")
    for host in ("one.localhost", "two.localhost", "preview.one.localhost"):
        other.stack(more=names.format(f", {host}"))
        other.write(f"with {host}")
        refused = other.where.run("deploy", status=1).stderr
        assert f"Host name {host} is already used by {yard.name}/local." in refused
        assert other.get().text == "first"
        assert f"Host name {host} is already used" in other.where.run("check").stderr
        assert other.where.json("history") == deployments, "It was refused before the build."
        # As if it had been committed when the other deployment was not yet.
        repository = DesiredRepository(other.where.settings.desired)
        document = repository.latest_valid("third", "local")
        head = repository.newest("third", "local")
        assert document is not None
        wanted = replace(document, domains=(*document.domains, host))
        repository.commit(wanted, expected=head)
        until(lambda: other.where.json("history")[0]["kind"] == "revert", "the outcome")
        assert f"Host name {host} is already" in other.where.json("history")[1]["reason"]
        assert other.get().text == "first"
        deployments = other.where.json("history")
    yard.write("a new release")
    yard.where.run("deploy")
    assert yard.get(host="one.localhost").text == "a new release"
    assert other.status()["problem"] is None
    other.where.run("down")
