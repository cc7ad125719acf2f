"""`access`: whose requests a service gets, with the real agent and Envoy."""

from __future__ import annotations

import pytest

from .conftest import Yard

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("access")]


def replicas(yard: Yard) -> list[int]:
    """The process IDs of the active replicas."""
    return [r.pid for g in yard.memory().generations if g.role == "active" for r in g.replicas]


def limit(yard: Yard, access: str) -> None:
    yard.stack(more=f"environments: {{local: {{access: {access}}}}}", smoke="smoke: [{get: /}]")
    yard.where.run("deploy")


def test_other_clients_are_refused_without_a_restart(yard: Yard) -> None:
    before = replicas(yard)
    limit(yard, "{allow: [192.0.2.0/24]}")
    assert replicas(yard) == before
    assert yard.get().status_code == 403
    assert "limited by `access`" in yard.where.run("verify").stdout
    yard.write("second")
    yard.where.run("deploy", "--hold")
    assert yard.get(host=f"preview.{yard.name}.localhost").text == "second"
    yard.where.run("promote")
    assert yard.get().status_code == 403
    limit(yard, "{allow: [127.0.0.0/8]}")
    assert yard.get().text == "second"
