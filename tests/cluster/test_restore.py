"""Restores of a database by the real API server, controllers and Argo Rollouts.

No image runs; tests/integration/cluster_backups has the data, with a simulated API server.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lapwing.errors import BackupError, StateError
from lapwing.kubernetes import apply, restores, wait
from lapwing.kubernetes.applyset import Scope
from lapwing.kubernetes.backups import BackupJobs
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.objects import Reference
from lapwing.kubernetes.restores import Restore, RestoreLockedError, Restoring
from lapwing.kubernetes.wait import WaitLimits
from lapwing.render.kubernetes import render
from lapwing.stack.load import load
from tests.cluster.control_plane import Cluster
from tests.cluster.objects import volume
from tests.cluster.stacks import Stack

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
STACK = """
stack: {name}
services:
  api: {{image: "shop/api:v1", route: /, user: 1000, replicas: {{min: 2, max: 4}}, needs: [store]}}
  feeds: {{kind: worker, image: "shop/api:v1", command: feeds, user: 1000, needs: [store]}}
  digest: {{kind: job, image: "shop/api:v1", command: digest, schedule: "0 3 * * *", user: 1000}}
resources: {{store: {{kind: redis}}}}
environments:
  staging:
    target: kubernetes
    domain: shop.example
    rollouts: {rollouts}
    backup: {{every: daily, to: "s3://backups"}}
"""
WANTED = Restoring(name="store", backup="20260101T000000Z", sha256="0")
SAVED = "20260102T000000Z"


class Died(BaseException):
    """The command was killed."""


class Shop:
    """A stack with a Redis that is backed up, and the restores that a test makes."""

    def __init__(self, api: ApiClient, cluster: Cluster, scope: Scope, folder: Path) -> None:
        self.api, self.cluster, self.folder = api, cluster, folder
        self.scope = Scope(scope.stack, "staging", f"{scope.stack}-staging")
        self.reported: list[str] = []

    def deploy(self, *, rollouts: bool = True) -> None:
        text = STACK.format(name=self.scope.stack, rollouts=str(rollouts).lower())
        (self.folder / "lapwing.yaml").write_text(text)
        name = f"data-{self.scope.stack}-store-0"
        made = volume(self.scope, f"{self.scope.stack}-{name}", name)
        self.cluster.call("POST", "/api/v1/persistentvolumes", made)

        def ready(references: Any) -> None:
            served = [r for r in references if r.kind != "Deployment" or "edge" not in r.name]
            wait.wait_until_ready(self.api, served, limits=WaitLimits(180.0, 2.0))

        things = render.objects(render.prepare(load(self.folder / "lapwing.yaml", "staging")))
        apply.apply_objects(self.api, self.scope, things, commit="c1", wait=ready)
        path = "/spec/jobTemplate/spec/template/spec/volumes/1"
        nothing = [{"op": "replace", "path": path, "value": {"name": "scratch", "emptyDir": {}}}]
        self.api.patch(self.cron_job("backup"), nothing, kind="json")  # No provisioner.

    def cron_job(self, name: str) -> Reference:
        where, name = self.scope.namespace, f"{self.scope.stack}-{name}"
        return Reference("batch/v1", "CronJob", where, name)

    def restore(self, wanted: Restoring = WANTED, die: str = "") -> Restoring:
        def report(line: str) -> None:
            self.reported.append(line)
            if die and line.startswith(die):
                raise Died

        records = restores.records(self.api, self.scope, "test", lease=2.0)
        records.acquire()
        jobs = BackupJobs(self.api, self.scope, lambda _: None, records.heartbeat)

        def back_up() -> str:
            assert self.pods() == set()
            jobs.back_up(KEEP="1000000")
            return SAVED

        return Restore(jobs, records, back_up, lambda _: None, report).run(wanted)

    def pods(self) -> set[str]:
        names = "app.kubernetes.io/name in (api,feeds,digest)"
        found = self.api.list("v1", "Pod", self.scope.namespace, names)
        return {p["metadata"]["name"] for p in found}

    def replicas(self) -> dict[str, int]:
        kinds = [("argoproj.io/v1alpha1", "Rollout"), ("apps/v1", "Deployment")]
        return {
            w["metadata"]["name"].removeprefix(f"{self.scope.stack}-"): w["spec"]["replicas"]
            for version, kind in kinds
            for w in self.api.list(version, kind, self.scope.namespace, self.scope.selector)
        }

    def is_suspended(self, name: str) -> bool:
        found = self.api.get(self.cron_job(name))
        assert found is not None
        return bool(found["spec"].get("suspend"))

    def is_as_before(self) -> None:
        assert {k: v for k, v in self.replicas().items() if k != "edge"} == {"api": 2, "feeds": 1}
        assert not self.is_suspended("backup")
        assert not self.is_suspended("digest")
        assert restores.recorded(self.api, self.scope) is None
        jobs = self.api.list("batch/v1", "Job", self.scope.namespace)
        assert [j for j in jobs if "backup" in j["metadata"]["name"]] == []


@pytest.fixture
def shop(api: ApiClient, cluster: Cluster, scope: Scope, tmp_path: Path) -> Shop:
    return Shop(api, cluster, scope, tmp_path)


@pytest.mark.parametrize("rollouts", [True, False])
def test_restore_stops_the_services_and_starts_them_again(shop: Shop, rollouts: bool) -> None:
    shop.deploy(rollouts=rollouts)
    edge = shop.replicas()["edge"]
    done = shop.restore()
    assert (done.saved, done.step) == (SAVED, "starting")
    shop.is_as_before()
    assert shop.replicas()["edge"] == edge
    assert len(shop.pods()) == 3


def test_restore_is_completed_after_any_interruption(stack: Stack, shop: Shop) -> None:
    shop.deploy()
    for moment in ("stopping", "backing up", "loading", "loaded"):
        with pytest.raises(Died):
            shop.restore(die=moment)
        found = restores.recorded(shop.api, shop.scope)
        assert found is not None
        assert found.step == ("loading" if moment.startswith("load") else "stopping")
        if moment != "stopping":
            assert shop.pods() == set()
            assert shop.is_suspended("backup")
        with pytest.raises(StateError, match="A restore of store is in progress"):
            restores.check_none(shop.api, shop.scope)
        if moment == "loading":
            shown = stack.call("status")
            assert "a restore of store from backup 20260101T000000Z is in progress" in shown.stdout
            refused = stack.call("down", "--yes")
            assert "`lapwing restore store 20260101T000000Z -e staging`" in refused.stderr
        shop.restore()
        shop.is_as_before()


def test_failure_before_the_load_starts_everything_again(shop: Shop) -> None:
    shop.deploy()
    other = Restoring(name="other", backup="20260101T000000Z", sha256="0")
    with pytest.raises(BackupError, match="the services are stopped") as error:
        shop.restore(other)
    assert f"lapwing restore other {SAVED} -e staging" in str(error.value.hint)
    assert shop.pods() == set()
    shop.restore()
    shop.is_as_before()
    image = f"{shop.scope.stack}:fail"
    path = "/spec/jobTemplate/spec/template/spec/containers/0/image"
    failing = [{"op": "replace", "path": path, "value": image}]
    shop.api.patch(shop.cron_job("backup"), failing, kind="json")
    with pytest.raises(BackupError, match="Nothing was restored"):
        shop.restore()
    shop.is_as_before()


def test_second_command_is_refused_while_the_first_is_running(shop: Shop) -> None:
    shop.deploy()
    records = restores.records(shop.api, shop.scope, "ada on laptop", lease=3.0)
    records.acquire()
    records.save(WANTED)
    other = restores.records(shop.api, shop.scope, "bob on laptop", lease=3.0)
    with pytest.raises(RestoreLockedError, match="ada on laptop"):
        other.acquire(lambda _: records.save(WANTED))
    records.save(None)
