"""`lapwing restore` on a cluster: the whole command, with a real Redis and a real bucket.

The API server is simulated here (api_server.py); tests/cluster/test_restore.py has a real one.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lapwing.kubernetes import kubeconfig
from lapwing.kubernetes.applyset import Scope
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.upgrade import guard
from lapwing.kubernetes.upgrade import objects as upgrade_objects
from lapwing.kubernetes.upgrade.plan import plans
from lapwing.kubernetes.upgrade.probe import probe
from lapwing.kubernetes.upgrade.states import UNKNOWN_MIGRATIONS, Event
from lapwing.kubernetes.wait import ResourceWaiter
from tests.buckets import Bucket
from tests.cluster.control_plane import wait_until
from tests.installation import Installation

from . import api_server
from .pods import Pods

DEPLOYMENT = "/apis/apps/v1/namespaces/shop-production/deployments/shop-web"
CRON_JOB = "/apis/batch/v1/namespaces/shop-production/cronjobs/shop-backup"
RECORD = "/api/v1/namespaces/shop-production/configmaps/lapwing-restore"


class Shop:
    """A stack with a Redis in a simulated cluster; `held` stops a container of this name."""

    def __init__(self, folder: Path, objects: Bucket, port: int, client: list[str]) -> None:
        self.pods = Pods(folder, "redis", "s3://backups", objects.endpoint, port)
        self.client, self.bucket = client, objects
        self.held: str | None = None
        self.holding, self.released = threading.Event(), threading.Event()
        self.scales: list[int] = []
        self.probes: list[str] = []
        """Pods that are connected to the database while it is loaded."""
        self.kubeconfig = folder / "kubeconfig"

    def process(self, container: dict[str, Any], pod: str) -> tuple[int, str]:
        called = "load" if pod.endswith("-load") else str(container["name"])
        if (
            called == "store"
            and self.held == "store"
            and container["command"][-1].startswith("set")
        ):
            self.holding.set()
            self.released.wait(60)
        if called == "load":
            self.probes += [path for path in self.cluster.objects if path.endswith("-probe")]
        if called == self.held == "load":
            self.holding.set()
            self.released.wait(60)
        self.scales.append(self.cluster.objects[DEPLOYMENT]["spec"]["replicas"])
        return self.pods.process(container, pod)

    def start(self, cluster: api_server.Cluster, where: Installation) -> None:
        self.cluster, self.where = cluster, where
        for thing in self.pods.objects:
            if thing["kind"] in ("CronJob", "StatefulSet", "Deployment"):
                cluster.add(thing)
        web = cluster.objects[DEPLOYMENT]
        cluster.add({**web, "spec": {**web["spec"], "replicas": 2}})

    def ask(self, *words: str) -> str:
        return subprocess.check_output([*self.client, *words], text=True).strip()

    def back_up(self) -> str:
        return self.where.run("backup", "-e", "production").stdout.strip()

    def is_running(self) -> bool:
        objects = self.cluster.objects
        is_suspended = objects[CRON_JOB]["spec"]["suspend"]
        return (objects[DEPLOYMENT]["spec"]["replicas"], is_suspended) == (2, False)


@pytest.fixture
def shop(
    folder: Path, objects: Bucket, redis: tuple[int, list[str]], tmp_path: Path
) -> Iterator[Shop]:
    shop = Shop(folder, objects, *redis)
    with api_server.serve(shop.process, shop.kubeconfig) as cluster:
        where = Installation(tmp_path / "here", KUBECONFIG=str(shop.kubeconfig))
        shutil.copy(folder / "lapwing.yaml", where.folder)
        shop.start(cluster, where)
        yield shop


def test_restore_replaces_the_data_and_keeps_what_was_there(shop: Shop) -> None:
    shop.ask("mset", "a", "1", "b", "2")
    made = shop.back_up()
    shop.ask("set", "later", "1")
    wait_until(lambda: shop.back_up() != made, "another backup")  # As many as are kept.
    refused = shop.where.run("restore", "store", made, "-e", "production", status=2)
    assert "the restore was not confirmed" in refused.stderr
    shop.scales.clear()
    done = shop.where.run("restore", "store", made, "-e", "production", "--yes")
    assert f"Restored store from {made}." in done.stderr
    assert shop.is_running()
    assert 2 in shop.scales  # It was checked while everything ran,
    assert 0 in shop.scales  # and loaded while nothing did.
    before = done.stderr.partition("restore is in the backup ")[2].partition(".")[0]
    assert shop.ask("get", "later") == ""
    listed = shop.where.run("backup", "list", "-e", "production").stdout
    assert made in listed
    assert before in listed
    again = shop.where.json(
        "restore", "store", before, "-e", "production", "--yes", "--output", "json"
    )
    assert (again["kind"], again["outcome"]) == ("restore", "succeeded")
    assert shop.ask("get", "later") == "1"
    assert RECORD not in shop.cluster.objects


def test_damaged_backup_stops_nothing(shop: Shop) -> None:
    made = shop.back_up()
    (shop.bucket.folder / f"shop/production/{made}/store.tar.gz").unlink()
    shop.scales.clear()
    failed = shop.where.run("restore", "store", "-e", "production", "--yes", status=1)
    assert "fetch: terminated" in failed.stderr
    assert set(shop.scales) == {2}
    unknown = shop.where.run("restore", "other", "-e", "production", "--yes", status=2)
    assert "'store'" in unknown.stderr or "store" in unknown.stderr


@pytest.mark.parametrize("moment", ["store", "load"])
def test_killed_restore_is_completed_by_the_same_command(shop: Shop, moment: str) -> None:
    shop.ask("set", "a", "1")
    made = shop.back_up()
    shop.ask("set", "a", "2")
    shop.held = moment
    with shop.where.begin("restore", "store", made, "-e", "production", "--yes") as process:
        assert shop.holding.wait(60)
        process.kill()
    shop.held = None
    assert shop.cluster.objects[DEPLOYMENT]["spec"]["replicas"] == 0
    refused = shop.where.run("backup", "-e", "production", status=1)
    assert f"or run `lapwing restore store {made} -e production` to complete it" in refused.stderr
    shop.released.set()
    done = shop.where.run("restore", "store", "-e", "production", "--yes")
    assert f"Restored store from {made}." in done.stderr
    assert shop.ask("get", "a") == "1"
    assert shop.is_running()
    before = done.stderr.partition("restore is in the backup ")[2].partition(".")[0]
    shop.where.run("restore", "store", before, "-e", "production", "--yes")
    assert shop.ask("get", "a") == "2"


def test_restore_does_not_start_an_old_version_with_a_newer_schema(shop: Shop) -> None:
    [job] = [o for o in shop.pods.objects if o["kind"] == "Job"]
    shop.cluster.add(job)
    shop.ask("set", "a", "1")
    made = shop.back_up()
    shop.ask("set", "a", "2")
    shop.cluster.output = f"Warning: {UNKNOWN_MIGRATIONS}"
    refused = shop.where.run("restore", "store", made, "-e", "production", "--yes", status=1)
    assert "web:v1 reports unknown migrations in the restored store" in refused.stderr
    assert shop.cluster.objects[DEPLOYMENT]["spec"]["replicas"] == 0
    assert not [path for path in shop.cluster.objects if path.endswith("-probe")]
    before = refused.stderr.partition("Run `lapwing restore store ")[2].partition(" ")[0]
    shop.cluster.quota = False
    failed = shop.where.run("restore", "store", made, "-e", "production", "--yes", status=1)
    assert "schema was not checked, and the services are stopped" in failed.stderr
    assert "exceeded quota" in failed.stderr
    assert f"`lapwing restore store {made} -e production` to repeat it" in failed.stderr
    assert f"`lapwing restore store {before} -e production` to return" in failed.stderr
    [plan] = plans(shop.pods.objects)
    shop.cluster.add(upgrade_objects.probe(plan))  # As a killed restore leaves it.
    shop.where.run("restore", "store", before, "-e", "production", "--yes")
    assert shop.ask("get", "a") == "2"
    assert shop.is_running()
    assert not shop.probes
    shop.cluster.output, shop.cluster.quota = "", True
    shop.where.run("restore", "store", made, "-e", "production", "--yes")
    assert shop.ask("get", "a") == "1"


def test_probe_ends_at_its_deadline_and_only_of_services_that_migrate_the_database(
    shop: Shop,
) -> None:
    things = [o for o in shop.pods.objects if o["kind"] == "Job"]
    shop.cluster.add(things[0])
    shop.cluster.output = f"Warning: {UNKNOWN_MIGRATIONS}"
    scope, lines = Scope("shop", "production", "shop-production"), list[str]()
    with ApiClient(kubeconfig.read([shop.kubeconfig]), {}) as api:
        waiter = ResourceWaiter(api, lambda: None)
        assert guard.outdated(api, scope, "other", waiter, lines.append) is None
        assert not lines
        assert guard.outdated(api, scope, "store", waiter, lines.append) == "web:v1"
        shop.cluster.is_ready = False
        [plan] = plans(shop.pods.objects)
        assert probe(api, plan, waiter, lines.append, deadline=0).event is Event.OUTDATED
        shop.cluster.output = "Starting."
        assert probe(api, plan, waiter, lines.append, deadline=0).event is Event.FAILED


def test_argo_cd_has_to_be_paused_and_managed_databases_are_refused(shop: Shop) -> None:
    file = shop.where.folder / "lapwing.yaml"
    text = file.read_text()
    made = shop.back_up()
    cloud = "cloud: {provider: gcp, region: us-central1}"
    file.write_text(text.replace("target: kubernetes", f"target: kubernetes\n    {cloud}"))
    name = {"name": "shop-production", "namespace": "argocd", "annotations": {}}
    application = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "metadata": name}
    shop.cluster.add(application)
    words = ("restore", "store", made, "-e", "production", "--yes")
    refused = shop.where.run(*words, status=1)
    assert "would start the services again during the restore" in refused.stderr
    pause = (
        "kubectl -n argocd annotate application shop-production argocd.argoproj.io/skip-reconcile"
    )
    assert f"`{pause}=true`" in refused.stderr
    name["annotations"] = {"argocd.argoproj.io/skip-reconcile": "true"}
    done = shop.where.run(*words)
    assert f"Let Argo CD apply the environment again: `{pause}-`." in done.stderr
    managed = f"target: kubernetes\n    {cloud}\n    resources: {{store: {{managed: true}}}}\n"
    file.write_text(text.partition("target: kubernetes")[0] + managed)
    refused = shop.where.run(*words, status=2)
    assert "store does not run in the cluster" in refused.stderr
    assert "gcloud redis instances import" in refused.stderr
