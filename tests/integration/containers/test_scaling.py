"""Autoscaling of a service in containers, by the CPU that they use."""

from __future__ import annotations

import pytest

from tests.deployed import until
from tests.integration.faults.ship import STACK, Watchers
from tests.integration.image.docker import Docker

from .conftest import ContainerShip

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("containers")]


def test_containers_are_added_and_removed_without_a_failed_request(
    ship: ContainerShip, docker: Docker, watched: Watchers
) -> None:
    ship.stack(STACK.replace("replicas: 2", "replicas: {min: 2, max: 3, cpu: 1%}"))
    ship.where.run("deploy")
    until(lambda: ship.service()["active"]["ready"] == 3, "a third replica", 0.5)
    assert len(ship.containers(docker)) == 3
    found = ship.service()["scaling"]
    assert (found["wanted"], found["max"]) == (3, 3)
    assert "cores of CPU, target 0.01" in found["reason"]
    ship.stack(STACK)
    ship.where.run("deploy")
    until(lambda: len(ship.containers(docker)) == 2, "the end of the third", 0.5)
    assert ship.service()["active"]["replicas"] == 2
