"""Company Inc. on a real node: Flask, React and MongoDB, behind the rendered edge.

The images of its services are built by Lapwing from its source. FerretDB takes the place of mongod
in the image of MongoDB; its shell, which the probes call, is the real one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from lapwing.load.client import Plan, running
from lapwing.plan import server_images
from tests import company as company_inc
from tests import database_images
from tests.cluster import node_images, node_volumes
from tests.cluster.node import Node
from tests.cluster.node_stack import NodeStack
from tests.conftest import FIGURES
from tests.needs import require
from tests.registries import Server

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(2400), pytest.mark.xdist_group("node")]

ENVIRONMENT = """
  node:
    target: kubernetes
    domain: company-inc.example
    registry: "{registry}/company-inc"
    rollouts: true
    services:
      api: {{resources: {{cpu: 100m, memory: 256Mi}}, rollout: {{keep_old: 60s}}}}
      web: {{resources: {{cpu: 50m, memory: 64Mi}}, rollout: {{keep_old: 60s}}}}
"""
"""The node has two CPUs for all releases that run during `keep_old`, and for their clients."""
STEPS = ("deploy", "deploy", "rollback", "deploy", "deploy", "rollback", "deploy")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The packages of the example, in place of those of the other tests."""
    return company_inc.download_packages(tmp_path_factory.mktemp("packages"))


class Company(NodeStack):
    """The stack, whose services name their release in every response."""

    def write_stack(self) -> None:
        """Copy the example, with an environment for the node and a base image that it has."""
        base = f"{self.registry.host}/{node_images.PYTHON}"
        environment = ENVIRONMENT.format(registry=self.registry.host)
        company_inc.copy_example(self.folder, base, environment)

    def release(self, version: str) -> None:
        """Commit a version of the API and of the page."""
        self.write(company_inc.release(version))


@pytest.fixture
def company(
    argo: None, tmp_path: Path, node: Node, registry: Server, packages: dict[str, str]
) -> Company:
    node_volumes.add(node, company_inc.NAME)
    image = server_images.reference("mongodb", None, "8")
    made = database_images.mongodb(tmp_path, shell=True)
    node_images.push_database(registry, made, image)
    company = Company(tmp_path, node, registry, packages, company_inc.NAME)
    company.write_stack()
    return company


def test_no_request_fails_in_deployments_and_rollbacks_of_company_inc(
    company: Company, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    company.release("v0")
    company.json("up", "-e", "node", "--yes")
    expected, done = {"v0"}, []
    with running(Plan(company.edge(), company_inc.TRAFFIC), tmp_path) as client:
        client.wait_for_answers()
        for number, verb in enumerate(STEPS, 1):
            if verb == "deploy":
                company.release(f"v{number}")
                expected.add(f"v{number}")
            done.append(company.json(verb, "-e", "node", "--yes")["outcome"])
        ledger = client.stop()
    figures = f"{ledger.sent} requests, {len(ledger.failures)} failed"
    record_property(FIGURES, f"{figures}, {len(STEPS)} deployments and rollbacks")
    assert done == ["succeeded"] * len(STEPS)
    assert [(e.kind, e.failure, e.version) for e in ledger.failures] == []
    assert expected <= set(ledger.versions())
    [database] = company.get("pods?labelSelector=app.kubernetes.io/component%3Dmongodb")["items"]
    assert [c["restartCount"] for c in database["status"]["containerStatuses"]] == [0]
    assert shown_customers(company) > 0
    company.replace("company-inc-db-0")
    company.address_of("company-inc-db-0")
    assert shown_customers(company) > 0
    company.run("down", "-e", "node", "--volumes", "--yes")


def shown_customers(company: Company) -> int:
    """Load the page through the edge in a browser; the number of customers that it shows."""
    target = company.edge()
    rule = f"--host-resolver-rules=MAP {company.host} {target.address}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=require("chromium"), args=[*FLAGS, rule]
        )
        page = browser.new_page(ignore_https_errors=True)
        page.goto(target.url)
        rows = page.get_by_role("table").locator("tbody tr")
        expect(rows.first).to_be_visible(timeout=60_000)
        found = rows.count()
        browser.close()
    return found
