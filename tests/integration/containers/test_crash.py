"""The crash tests of processes, with services in containers. `conftest` selects the fast ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.deployed import until
from tests.installation import installation
from tests.integration.crash.runtimes import Containers
from tests.integration.crash.ship import Ship
from tests.integration.crash.test_crash import (
    test_bad_deployment_is_undone_after_the_agent_is_killed,
    test_candidate_that_died_with_the_agent_gets_no_traffic,
    test_deployment_after_a_power_failure,
    test_deployment_completes_after_the_agent_is_killed,
    test_killed_envoy_is_restarted_with_its_routes,
    test_kills_at_random_moments,
    test_paused_deployment_survives_a_kill_of_the_agent,
    test_reboot_restores_running_services,
)
from tests.integration.image.docker import Daemon

pytestmark = [pytest.mark.timeout(2400), pytest.mark.xdist_group("containers")]
__all__ = [
    "test_bad_deployment_is_undone_after_the_agent_is_killed",
    "test_candidate_that_died_with_the_agent_gets_no_traffic",
    "test_deployment_after_a_power_failure",
    "test_deployment_completes_after_the_agent_is_killed",
    "test_killed_envoy_is_restarted_with_its_routes",
    "test_kills_at_random_moments",
    "test_paused_deployment_survives_a_kill_of_the_agent",
    "test_reboot_restores_running_services",
]


@pytest.fixture(scope="module")
def ship(contained: Daemon, base: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ship]:
    """Each crash has to leave it whole."""
    runtime = Containers(contained, base)
    with installation(tmp_path_factory.mktemp("crash"), **runtime.environ) as where:
        yield Ship(where, runtime=runtime)


def test_paused_deployment_resumes_when_the_engine_starts_after_the_agent(
    ship: Ship, contained: Daemon
) -> None:
    version = ship.next_version()
    ship.where.run("deploy", "--hold")
    ship.kill_agent()
    contained.stop()
    events = ship.environment / "events.jsonl"
    before = len(events.read_text())
    ship.where.run("agent", "start")
    until(lambda: "Waiting up to 60 s" in events.read_text()[before:], "the wait for the engine")
    contained.start()
    ship.where.run("promote")
    ship.check(version)
    ship.version = version
