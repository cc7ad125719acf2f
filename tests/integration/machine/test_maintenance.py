"""`lapwing maintenance`: clients get a page until it ends, also across deployments."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator

import pytest

from tests.deployed import until

from .conftest import Yard

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("maintenance")]
PAGE = "<!doctype html><title>Back at noon</title><p>50 % done</p>" + "<!-- padding -->" * 1000


@pytest.fixture(autouse=True)
def ended(yard: Yard) -> Iterator[None]:
    yield
    yard.where.run("maintenance", "off")
    assert yard.get().status_code == 200


def test_page_is_served_until_maintenance_ends(yard: Yard) -> None:
    yard.stack(more="environments: {local: {maintenance: {page: page.html, retry_after: 90s}}}")
    yard.where.write({"page.html": PAGE})
    result = yard.where.json("maintenance", "on")
    assert (result["kind"], result["outcome"]) == ("maintenance", "succeeded")
    for path in ("/", "/any/path?query"):
        found = yard.get(path)
        assert (found.status_code, found.text) == (503, PAGE)
    assert found.headers["retry-after"] == "90"
    assert found.headers["content-type"] == "text/html; charset=utf-8"
    assert found.headers["cache-control"] == "no-store"
    assert yard.get(host=f"preview.{yard.name}.localhost").status_code == 200
    status = yard.status()
    assert status["maintenance"]["actor"] == "tester"
    assert "Maintenance since" in yard.where.run("status").stdout
    again = yard.where.json("maintenance", "on")
    assert again["outcome"] == "unchanged"
    assert "503" in again["hint"]
    assert "`lapwing maintenance off -e local`" in yard.where.run("verify", status=1).stdout
    ended = yard.where.run("maintenance", "off")
    assert "Maintenance is off." in ended.stderr
    assert yard.status()["maintenance"] is None
    assert yard.get(host=f"preview.{yard.name}.localhost").status_code == 404
    kinds = [(e["kind"], e["actor"], e["outcome"]) for e in yard.history()[:2]]
    assert kinds == [("maintenance", "tester", "succeeded")] * 2


def test_deployments_and_restarts_do_not_end_maintenance(yard: Yard) -> None:
    yard.good("before")
    yard.where.run("maintenance", "on", "--message", "Back <soon>")
    page = yard.get().text
    assert "Back &lt;soon&gt;" in page
    assert yard.where.json("maintenance", "on")["outcome"] == "unchanged"
    assert yard.get().text == page
    since = yard.status()["maintenance"]["since"]
    yard.good("during")
    yard.write("broken", exit=1)
    yard.where.run("deploy", status=1)
    yard.where.run("rollback")
    yard.where.run("agent", "stop")
    assert yard.get().status_code == 503
    yard.where.run("agent", "start")
    yard.write("last")
    assert "Run `lapwing maintenance off -e local` to end it." in yard.where.run("deploy").stderr
    found = yard.get()
    assert (found.status_code, found.text) == (503, page)
    assert yard.status()["maintenance"]["since"] == since
    yard.where.run("maintenance", "off")
    assert yard.get().text == "last"


def test_maintenance_begins_during_a_paused_deployment(yard: Yard) -> None:
    yard.good("running")
    yard.write("paused")
    yard.where.run("deploy", "--hold")
    paused = yard.status()["rollout"]["commit"]
    assert yard.where.json("maintenance", "on")["outcome"] == "succeeded"
    assert yard.get().status_code == 503
    assert yard.status()["rollout"]["commit"] == paused
    yard.where.run("abort")
    assert yard.get().status_code == 503
    outcomes = [(e["kind"], e["outcome"]) for e in yard.history()]
    assert outcomes[1:3] == [("maintenance", "succeeded"), ("deploy", "aborted")]
    yard.where.run("maintenance", "off")
    assert yard.get().text == "running"


def test_request_in_progress_is_completed(yard: Yard) -> None:
    yard.stack()
    yard.write("slow", delay=2)
    yard.where.run("deploy")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        slow = pool.submit(yard.get, "/print?begun")
        until(lambda: "begun" in yard.where.run("logs").stdout, "the request")
        yard.where.run("maintenance", "on")
        assert slow.result().text == "slow"
    assert yard.get().status_code == 503
    yard.good("fast")


def test_deployment_that_waits_for_the_agent_runs_its_jobs(yard: Yard) -> None:
    mark = yard.where.folder.parent / "job-ran"
    job = f"  once: {{kind: job, build: ./app, command: 'touch {mark}'}}"
    yard.stack(more=job)
    yard.write("waiting")
    yard.where.run("agent", "stop")
    yard.where.run("ship", "--scan", "off")
    yard.where.run("maintenance", "on")
    assert mark.exists()
    yard.where.run("maintenance", "off")
    assert yard.get().text == "waiting"
    yard.good("without the job")
