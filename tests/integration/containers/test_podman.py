"""Services in containers of Podman, by the tests of Docker's containers."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import pytest

from tests.integration.containers.conftest import ContainerShip
from tests.integration.containers.test_containers import (
    test_container_has_no_privileges_and_is_reachable_on_loopback_only,
    test_container_without_a_record_is_removed,
    test_down_leaves_no_container,
    test_failing_job_and_smoke_test_reject_releases,
    test_killed_container_is_restarted,
    test_memory_limit_ends_a_replica_with_the_reason,
    test_process_ignoring_sigterm_is_killed_after_grace,
    test_program_that_is_not_in_the_image_is_reported,
    test_release_that_exits_is_rejected,
    test_warm_rollback_starts_no_process,
)
from tests.integration.image.docker import Daemon, daemon
from tests.needs import require

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("containers")]
__all__ = [
    "test_container_has_no_privileges_and_is_reachable_on_loopback_only",
    "test_container_without_a_record_is_removed",
    "test_down_leaves_no_container",
    "test_failing_job_and_smoke_test_reject_releases",
    "test_killed_container_is_restarted",
    "test_memory_limit_ends_a_replica_with_the_reason",
    "test_process_ignoring_sigterm_is_killed_after_grace",
    "test_program_that_is_not_in_the_image_is_reported",
    "test_release_that_exits_is_rejected",
    "test_warm_rollback_starts_no_process",
]


@pytest.fixture(scope="module")
def contained() -> Iterator[Daemon]:
    """Podman, in whose network the tests run."""
    with daemon(require("podman")) as running:
        yield running


def test_engine_limits_the_size_of_logs(ship: ContainerShip) -> None:
    """Podman shows the limit only in the arguments of the process that writes the log."""
    for pid in ship.pids("active"):
        writer = psutil.Process(pid).parent()
        assert writer is not None
        assert "--log-size-max 10000000" in " ".join(writer.cmdline())
