"""Offline upgrades by the real API server and controllers. No image runs: what a pod becomes
follows from its tag (see stages.yaml), and the database's own scripts have a test against a real
MySQL (tests/integration/upgrade)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lapwing.errors import LapwingError
from lapwing.kubernetes import apply, wait
from lapwing.kubernetes.applyset import Scope
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.objects import Reference
from lapwing.kubernetes.status import read_status
from lapwing.kubernetes.upgrade.backup import BackupCommands
from lapwing.kubernetes.upgrade.driver import DowntimeError, UpgradeError
from lapwing.kubernetes.upgrade.guard import UpgradeOptions, run_upgrades
from lapwing.kubernetes.upgrade.record import UpgradeLockedError
from lapwing.kubernetes.upgrade.steps import UpgradeSteps
from lapwing.kubernetes.wait import WaitLimits
from lapwing.render.kubernetes import render
from lapwing.stack.load import load
from tests.cluster.control_plane import Cluster, wait_until
from tests.cluster.objects import volume
from tests.cluster.shop import Shop as People
from tests.cluster.shop import volumes
from tests.cluster.simulated import Printed, prints

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
LIMITS = WaitLimits(deadline=180.0, patience=2.0)
YES = UpgradeOptions(allow_downtime=True, lease=2.0)
STACK = """
stack: {name}
services:
  api:
    image: shop/api:v1
    command: serve
    route: /
    user: 1000
    replicas: {{min: 2, max: 4}}
    needs: [db]
    migrate: {{run: migrate, mode: offline}}
    rollout: {{keep_old: 10m, analysis: false}}
  feeds: {{kind: worker, image: "shop/api:v1", command: feeds, user: 1000, needs: [db]}}
resources:
  db: {{kind: mysql, version: "8.4", backup: {backup}}}
environments:
  staging: {{target: kubernetes, domain: shop.example, rollouts: {rollouts}}}
"""


class Died(BaseException):
    """The command was killed."""


class Shop:
    """A stack with a database in the cluster, and the deployments of it that a test makes."""

    def __init__(self, api: ApiClient, cluster: Cluster, scope: Scope, folder: Path) -> None:
        self.api, self.cluster, self.folder = api, cluster, folder
        self.name = scope.stack
        self.scope = Scope(scope.stack, "staging", f"{scope.stack}-staging")
        self.told: list[str] = []
        self.write()

    def write(self, *, backup: bool = True, rollouts: bool = True) -> None:
        text = STACK.format(name=self.name, backup=str(backup).lower(),
                            rollouts=str(rollouts).lower())  # fmt: skip
        (self.folder / "lapwing.yaml").write_text(text)

    def things(self, tag: str) -> list[dict[str, Any]]:
        loaded = load(self.folder / "lapwing.yaml", "staging")
        images = {n: f"shop/api:{tag}" for n in ("api", "feeds")}
        return render.objects(render.prepare(loaded, images))

    def apply(self, tag: str) -> None:
        def ready(references: Any) -> None:
            served = [
                r for r in references if r.kind not in ("Deployment",) or "edge" not in r.name
            ]
            wait.wait_until_ready(self.api, served, limits=LIMITS)

        self.volumes()
        apply.apply_objects(self.api, self.scope, self.things(tag), commit=tag, wait=ready)

    def volumes(self) -> None:
        """Create volumes for the claims of this stack."""
        for claim in (f"data-{self.name}-db-0", f"{self.name}-db-backups"):
            path, name = "/api/v1/persistentvolumes", f"{self.name}-{claim}"
            if self.cluster.call("GET", f"{path}/{name}") is None:
                self.cluster.call("POST", path, volume(self.scope, name, claim))

    def guard(self, tag: str, options: UpgradeOptions = YES) -> list[str]:
        return run_upgrades(self.api, self.scope, self.things(tag), options, self.told.append)

    def deploy(self, tag: str, options: UpgradeOptions = YES) -> list[str]:
        done = self.guard(tag, options)
        self.apply(tag)
        return done

    def running(self, *, dying: bool = True) -> set[str]:
        """The tags of the pods that use the database."""
        labels = "app.kubernetes.io/name in (api,feeds)"
        pods = self.api.list("v1", "Pod", self.scope.namespace, labels)
        kept = [p for p in pods if dying or not p["metadata"].get("deletionTimestamp")]
        return {p["spec"]["containers"][0]["image"].partition(":")[2] for p in kept}

    def served(self) -> set[str]:
        """The tags of the pods that the Service really selects."""
        service = self.get("v1", "Service", f"{self.name}-api")
        assert service is not None
        labels = ",".join(f"{k}={v}" for k, v in service["spec"]["selector"].items())
        pods = self.api.list("v1", "Pod", self.scope.namespace, labels)
        return {p["spec"]["containers"][0]["image"].partition(":")[2] for p in pods}

    def get(self, version: str, kind: str, name: str) -> Any:
        return self.api.get(Reference(version, kind, self.scope.namespace, name))

    def tasks(self) -> set[str]:
        jobs = self.api.list("batch/v1", "Job", self.scope.namespace)
        return {j["metadata"]["labels"].get("lapwing.dev/task", "") for j in jobs} - {""}

    def nothing_is_left(self) -> None:
        """What an upgrade makes for its own time is gone; its claim stays."""
        assert self.tasks() == set()
        maps = self.api.list("v1", "ConfigMap", self.scope.namespace)
        assert not [m for m in maps if m["metadata"]["name"].startswith("lapwing-upgrade")]
        policies = self.api.list("networking.k8s.io/v1", "NetworkPolicy", self.scope.namespace)
        assert not [p for p in policies if "upgrade" in p["metadata"]["name"]]
        assert self.get("v1", "Pod", f"{self.name}-api-probe") is None


@pytest.fixture
def shop(api: ApiClient, cluster: Cluster, scope: Scope, tmp_path: Path) -> Shop:
    return Shop(api, cluster, scope, tmp_path)


@pytest.mark.parametrize("rollouts", [True, False])
def test_upgrade_succeeds(shop: Shop, rollouts: bool) -> None:
    """With a warm slot of the version before the last, which has to go, too."""
    shop.write(rollouts=rollouts)
    shop.deploy("v0")
    assert shop.deploy("v1") == []
    schedule = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "nightly", "namespace": shop.scope.namespace,
                     "labels": {k: v for k, _, v in
                                (p.partition("=") for p in shop.scope.selector.split(","))}},
        "spec": {"schedule": "0 3 * * *", "jobTemplate": {"spec": {"template": {"spec": {
            "restartPolicy": "Never", "securityContext": {"runAsNonRoot": True, "runAsUser": 1000,
            "seccompProfile": {"type": "RuntimeDefault"}}, "containers": [
                {"name": "main", "image": "shop/api:v1"}]}}}}},
    }  # fmt: skip
    shop.api.create(schedule)
    seen: list[set[str]] = []
    suspended: list[bool] = []

    def look(line: str) -> None:
        shop.told.append(line)
        if line.startswith(("checking", "backing", "migrating")):
            seen.append(shop.running())
            found = shop.get("batch/v1", "CronJob", "nightly")
            suspended.append(bool(found["spec"].get("suspend")))

    assert run_upgrades(shop.api, shop.scope, shop.things("v2-pending"), YES, look) == ["api"]
    assert seen == [set(), set(), set()], "the database had connections"
    assert suspended == [True, True, True]
    assert not shop.get("batch/v1", "CronJob", "nightly")["spec"].get("suspend")
    assert shop.running() == {"v2-pending"}
    assert shop.served() == {"v2-pending"}
    shop.nothing_is_left()
    assert shop.get("v1", "PersistentVolumeClaim", f"{shop.name}-db-backups") is not None
    pods = {p["metadata"]["uid"] for p in shop.api.list("v1", "Pod", shop.scope.namespace)}
    shop.apply("v2-pending")  # The rest of the deployment finds it done.
    after = {p["metadata"]["uid"] for p in shop.api.list("v1", "Pod", shop.scope.namespace)}
    assert after <= pods
    status = read_status(shop.api, shop.scope, "")
    assert status is not None
    assert {s.phase for s in status.services if s.name in ("api", "feeds")} == {"running"}


def test_no_pending_migration_changes_nothing(shop: Shop) -> None:
    shop.deploy("v1")
    assert shop.guard("v2", UpgradeOptions(lease=2.0)) == []
    assert shop.running() == {"v1"}
    shop.nothing_is_left()
    with pytest.raises(UpgradeError, match="does not start"):
        shop.guard("crash-v3", UpgradeOptions(lease=2.0))
    assert shop.running() == {"v1"}
    shop.nothing_is_left()


def test_upgrade_is_refused_without_consent_or_backup(shop: Shop) -> None:
    shop.deploy("v1")
    before = _specs(shop)
    with pytest.raises(DowntimeError, match="--allow-downtime is missing"):
        shop.guard("v2-pending", UpgradeOptions(lease=2.0))
    shop.write(backup=False)
    with pytest.raises(DowntimeError, match="a way to make a backup is missing"):
        shop.guard("v2-pending", YES)
    assert _specs(shop) == before
    assert shop.running() == {"v1"}
    shop.nothing_is_left()


def _specs(shop: Shop) -> list[Any]:
    kinds = (("argoproj.io/v1alpha1", "Rollout"), ("apps/v1", "Deployment"),
             ("apps/v1", "StatefulSet"), ("batch/v1", "Job"))  # fmt: skip
    return [t["spec"] for k in kinds for t in shop.api.list(*k, shop.scope.namespace)]


def test_version_older_than_the_schema_is_refused(shop: Shop, tmp_path: Path) -> None:
    """A version that was never deployed here, and is healthy on a schema that it does not know."""
    shop.deploy("v2")
    probe = {"metadata": {"name": f"{shop.name}-api-probe", "namespace": shop.scope.namespace}}
    printed = Printed(tmp_path / "probe.log")
    printed.say("#   Your Fleet database has unrecognized migrations.", *["started"] * 500)
    prints(shop.cluster, probe, printed.path)
    for options in (YES, UpgradeOptions(lease=2.0)):
        with pytest.raises(UpgradeError, match="must not run with a newer schema"):
            shop.guard("v1", options)
    assert shop.running() == {"v2"}
    shop.nothing_is_left()


@pytest.mark.parametrize("rollouts", [True, False])
@pytest.mark.parametrize("tag", ["pending-badmigration", "crash-pending"])
def test_failure_after_the_migration_began_restores_the_backup(
    shop: Shop, rollouts: bool, tag: str
) -> None:
    """The migration fails, or the new version does not come to run after it."""
    shop.write(rollouts=rollouts)
    shop.deploy("v1")
    with pytest.raises(UpgradeError, match="was rolled back") as told:
        shop.guard(tag)
    assert "exit status" in told.value.message + str(told.value.detail)
    assert any(line.startswith("restoring ") for line in shop.told)
    assert shop.running() == {"v1"}
    assert shop.served() == {"v1"}
    shop.nothing_is_left()
    assert shop.deploy("v2-pending") == ["api"]  # The next attempt begins anew.
    assert shop.running() == {"v2-pending"}


def test_failure_before_the_migration_restarts_the_old_version(shop: Shop) -> None:
    shop.deploy("v1")
    rollout = shop.get("argoproj.io/v1alpha1", "Rollout", f"{shop.name}-api")
    failing = BackupCommands("echo told; exit 3", "true")
    with pytest.raises(UpgradeError, match="`echo told; exit 3` failed with status 3"):
        shop.guard("v2-pending", UpgradeOptions(allow_downtime=True, commands=failing, lease=2.0))
    assert not any(line.startswith("restoring ") for line in shop.told)
    again = shop.get("argoproj.io/v1alpha1", "Rollout", f"{shop.name}-api")
    assert again["metadata"]["uid"] == rollout["metadata"]["uid"], "it was only scaled"
    assert shop.served() == {"v1"}
    shop.nothing_is_left()


def test_backup_commands_of_the_user(shop: Shop, tmp_path: Path) -> None:
    shop.write(backup=False)
    shop.deploy("v1")
    note = tmp_path / "restored"
    environ = {"PATH": "/usr/bin:/bin", "NOTE": str(note)}
    own = BackupCommands(
        "echo asking; echo backup-7", 'printf "%s" "$LAPWING_BACKUP" > "$NOTE"', environ
    )
    options = UpgradeOptions(allow_downtime=True, commands=own, lease=2.0)
    with pytest.raises(UpgradeError, match="was rolled back"):
        shop.guard("pending-badmigration", options)
    assert note.read_text() == "backup-7"
    assert shop.served() == {"v1"}


@pytest.mark.parametrize("tag", ["v2-pending", "pending-badmigration"])
def test_command_killed_at_every_step_is_completed_by_the_next(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, tag: str
) -> None:
    """Each act is killed twice: before its effect, and after it but before that is saved."""
    shop.deploy("v1")
    fates: dict[str, list[str]] = {}
    for act in ("probe", "stop_old", "await_no_connection", "back_up", "migrate", "start_new",
                "switch", "stop_new", "restore", "start_old"):  # fmt: skip
        fates[act] = ["late", "early"]
        monkeypatch.setattr(UpgradeSteps, act, _dying(getattr(UpgradeSteps, act), fates[act]))
    outcome = None
    while outcome is None:
        try:
            outcome = _outcome(shop, tag)
        except Died:
            assert len(shop.running()) <= 1, "two versions run"
    way_back = {"stop_new", "restore", "start_old"}
    ahead = set(fates) - way_back - (set() if outcome else {"start_new", "switch"})
    assert {a for a, left in fates.items() if not left} == (ahead if outcome else ahead | way_back)
    assert shop.served() == ({tag} if outcome else {"v1"})
    assert shop.running() == ({tag} if outcome else {"v1"})
    shop.nothing_is_left()


def _outcome(shop: Shop, tag: str) -> list[str]:
    """The services that were upgraded; none if it was rolled back."""
    try:
        return shop.guard(tag)
    except UpgradeError:
        return []


def _dying(act: Callable[..., Any], fates: list[str]) -> Callable[..., Any]:
    def died(*arguments: Any) -> Any:
        fate = fates.pop() if fates else "lives"
        if fate == "early":
            raise Died
        found = act(*arguments)
        if fate == "late":
            raise Died
        return found

    return died


def test_concurrent_upgrades_exclude_each_other(shop: Shop) -> None:
    shop.deploy("v1")
    began, go_on = threading.Event(), threading.Event()
    done: list[Any] = []

    def tell(line: str) -> None:
        if line.startswith("migrating"):
            began.set()
            assert go_on.wait(120)

    def first() -> None:
        options = UpgradeOptions(allow_downtime=True, lease=20.0, holder="the first")
        try:
            done.append(
                run_upgrades(shop.api, shop.scope, shop.things("v2-pending"), options, tell)
            )
        except LapwingError as error:
            done.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    try:
        assert began.wait(300)
        go_on.set()
        with pytest.raises(UpgradeLockedError, match=r"running this upgrade \(the first\)"):
            shop.guard("v2-pending", UpgradeOptions(allow_downtime=True, lease=20.0, holder="me"))
    finally:
        go_on.set()
        thread.join()
    assert done == [["api"]]
    wait_until(lambda: shop.served() == {"v2-pending"}, "the first went through")


def test_command_considered_dead_stops_before_its_next_step(shop: Shop) -> None:
    """It slept through its lease; another command has gone on with the upgrade meanwhile."""
    shop.deploy("v1")
    second: list[Any] = []

    def tell(line: str) -> None:
        if line.startswith("migrating"):
            second.append(shop.guard("v2-pending"))

    options = UpgradeOptions(allow_downtime=True, lease=600.0)
    with pytest.raises(UpgradeLockedError):
        run_upgrades(shop.api, shop.scope, shop.things("v2-pending"), options, tell)
    assert second == [["api"]]
    assert shop.served() == {"v2-pending"}
    shop.nothing_is_left()


def test_upgrade_by_the_command_line(cluster: Cluster, scope: Scope, tmp_path: Path) -> None:
    """Refused, allowed, killed while it migrates, and gone on with by the same command."""
    volumes(cluster)
    people = People(cluster, tmp_path, scope.stack)

    def write(tag: str) -> None:
        text = STACK.format(name=scope.stack, backup="true", rollouts="true")
        text = text.replace("shop/api:v1", f"shop/api:{tag}")
        text = text.replace("staging: {target", "kind: {target").replace(
            "shop.example", "localhost"
        )
        (people.folder / "lapwing.yaml").write_text(text)

    def served() -> set[str]:
        pods = people.get("pods?labelSelector=app.kubernetes.io/name%3Dapi")["items"]
        return {p["spec"]["containers"][0]["image"] for p in pods}

    write("v1")
    people.run("up")
    write("v2-pending")
    told = people.json("deploy", status=1)["error"]
    assert told["code"] == "downtime"
    assert "--allow-downtime" in told["hint"]
    assert people.outcomes() == [("deploy", "succeeded")]
    assert served() == {"shop/api:v1"}
    assert people.json("deploy", "--allow-downtime", "--backup", "x", status=2)["error"]
    process = people.start("deploy", "--allow-downtime")
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if "migrating" in line:
            break
    process.kill()
    process.communicate()
    assert "migrating" in said, said
    assert served() == set()
    assert "is in progress" in people.json("abort", status=1)["error"]["message"]
    assert served() == set()
    write("v2-pending")
    people.run("deploy")
    assert served() == {"shop/api:v2-pending"}
    found = people.json("status")
    assert {s["phase"] for s in found["services"] if s["name"] in ("api", "feeds")} == {"running"}
    # Another machine has no history of deployments and only finds the data.
    people.run("down")
    people.environ["LAPWING_HOME"] = str(tmp_path / "other")
    write("v1")
    refused = people.json("up", status=1)["error"]
    assert "was migrated by api:v2-pending" in refused["message"]
    assert "--image api=shop/api:v2-pending" in refused["hint"]
    assert served() == set()
    write("v2-pending")
    people.run("up")
