"""Company Inc. in containers on a machine: Flask, React and MongoDB, under load."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lapwing.load.client import Plan, running
from lapwing.plan import server_images
from tests import company, database_images
from tests.conftest import FIGURES
from tests.installation import installation
from tests.integration.image.docker import Docker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400), pytest.mark.xdist_group("containers")]
ENVIRONMENT = """
  local:
    runtime: container
    services:
      api: {rollout: {analysis: {window: 10s, max_error_rate: 1%, max_p95: 10s}}}
"""
"""The limit of the example, 500 ms, would roll back on a machine that runs other tests."""
STEPS = ("deploy", "deploy", "rollback", "deploy") * 5


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What builds use instead of package indexes: the network of the engine has none."""
    return company.download_packages(tmp_path_factory.mktemp("packages"))


def test_no_request_fails_in_deployments_and_rollbacks_of_company_inc(
    packages: dict[str, str],
    docker: Docker,
    base: str,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    image = server_images.reference("mongodb", None, "8")
    database_images.mongodb(tmp_path).load(docker, image)
    with installation(tmp_path, **packages, **docker.environ) as where:
        company.copy_example(where.folder, base, ENVIRONMENT)
        where.write(company.release("v0"))
        where.run("up")
        expected, done = {"v0"}, []
        with running(Plan(where.target(company.NAME), company.TRAFFIC), tmp_path) as client:
            client.wait_for_answers()
            for number, verb in enumerate(STEPS, 1):
                if verb == "deploy":
                    where.write(company.release(f"v{number}"))
                    expected.add(f"v{number}")
                done.append(where.json(verb)["outcome"])
            ledger = client.stop()
        names = docker("ps", "--format", "{{.Names}}").split()
        where.run("down")
    figures = f"{ledger.sent} requests, {len(ledger.failures)} failed"
    record_property(FIGURES, f"{figures}, {len(STEPS)} deployments and rollbacks")
    assert done == ["succeeded"] * len(STEPS)
    assert [(e.kind, e.failure, e.version) for e in ledger.failures] == []
    assert expected <= set(ledger.versions())
    assert any("api" in name for name in names)
