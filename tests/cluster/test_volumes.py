"""Volumes of databases grow in place on a real API server; no driver resizes a file system here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from lapwing.errors import StateError, UsageError
from lapwing.kubernetes import apply, volumes, wait
from lapwing.kubernetes.applyset import Scope
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.objects import Reference
from lapwing.kubernetes.wait import WaitLimits
from tests.cluster import objects
from tests.cluster.control_plane import Cluster, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
LIMITS = WaitLimits(deadline=180.0, patience=60.0)


def database(scope: Scope, storage: str, grows: bool, *, named: bool = True) -> dict[str, Any]:
    found = objects.workload(scope, "db", "mysql:8.4", replicas=1, kind="StatefulSet")
    claim = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": storage_class(grows)["metadata"]["name"],
        "resources": {"requests": {"storage": storage}},
    }
    if not named:
        del claim["storageClassName"]
    found["spec"]["volumeClaimTemplates"] = [{"metadata": {"name": "data"}, "spec": claim}]
    return found


def storage_class(grows: bool) -> dict[str, Any]:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": f"grows-{str(grows).lower()}"},
        "provisioner": "example.com/none",
        "allowVolumeExpansion": grows,
    }


def deploy(api: ApiClient, scope: Scope, storage: str, *, grows: bool = True) -> list[str]:
    """Apply the database; return what was reported."""
    said: list[str] = []

    def ready(references: Sequence[Reference]) -> None:
        wait.wait_until_ready(api, references, limits=LIMITS)

    api.create(storage_class(grows))
    name = f"{scope.stack}-data"
    called = storage_class(grows)["metadata"]["name"]
    api.create(objects.volume(scope, name, claim(scope).name, storageClassName=called))
    things = [objects.namespace(scope), database(scope, storage, grows)]
    apply.apply_objects(api, scope, things, commit="c1", wait=ready, report=said.append)
    return said


def claim(scope: Scope) -> Reference:
    workload = database(scope, "1Gi", True)["metadata"]["name"]
    return Reference("v1", "PersistentVolumeClaim", scope.namespace, f"data-{workload}-0")


def requested(api: ApiClient, scope: Scope) -> str:
    found = api.get(claim(scope))
    assert found is not None
    return str(found["spec"]["resources"]["requests"]["storage"])


def pod_uids(api: ApiClient, scope: Scope) -> set[str]:
    return {p["metadata"]["uid"] for p in api.list("v1", "Pod", scope.namespace)}


def test_volume_grows_while_its_database_keeps_running(
    api: ApiClient, cluster: Cluster, scope: Scope
) -> None:
    assert deploy(api, scope, "1Gi") == []
    before = pod_uids(api, scope)
    assert len(before) == 1
    assert any("from 1Gi to 5Gi" in line for line in deploy(api, scope, "5Gi"))
    assert requested(api, scope) == "5Gi"
    reference = Reference.of(database(scope, "5Gi", True))

    def adopted() -> bool:
        [pod] = api.list("v1", "Pod", scope.namespace)
        workload = api.get(reference)
        assert workload is not None
        owners = {o["uid"] for o in pod["metadata"].get("ownerReferences") or ()}
        return workload["metadata"]["uid"] in owners

    wait_until(adopted, "the new StatefulSet adopts the pod")
    assert pod_uids(api, scope) == before
    assert deploy(api, scope, "5Gi") == []

    live = api.get(reference)
    assert live is not None
    kept = volumes.with_sizes_of(database(scope, "1Gi", True), live)
    [template] = kept["spec"]["volumeClaimTemplates"]
    assert template["spec"]["resources"]["requests"]["storage"] == "5Gi"


def test_interrupted_growth_is_completed(
    api: ApiClient, cluster: Cluster, scope: Scope, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(api, scope, "1Gi")
    monkeypatch.setattr(apply, "apply_object", interrupted)
    with pytest.raises(KeyboardInterrupt):
        deploy(api, scope, "5Gi")
    monkeypatch.undo()
    deploy(api, scope, "5Gi")
    assert requested(api, scope) == "5Gi"
    assert len(pod_uids(api, scope)) == 1


def interrupted(api: ApiClient, thing: Any, *_: Any) -> bool:
    """Fail where the new StatefulSet would be applied."""
    if thing["kind"] == "StatefulSet":
        raise KeyboardInterrupt
    api.apply(thing, force=True)
    return True


@pytest.mark.parametrize(
    ("storage", "grows", "message"),
    [("500Mi", True, "cannot shrink to 500Mi"), ("5Gi", False, "grows-false does not allow it")],
)
def test_volume_that_cannot_change_is_refused_before_anything_changes(
    api: ApiClient, cluster: Cluster, scope: Scope, storage: str, grows: bool, message: str
) -> None:
    deploy(api, scope, "1Gi", grows=grows)
    with pytest.raises((StateError, UsageError), match=message):
        deploy(api, scope, storage, grows=grows)
    assert requested(api, scope) == "1Gi"


@pytest.mark.parametrize("grows", [True, False])
def test_claim_of_upgrades_grows_with_the_database(
    api: ApiClient, cluster: Cluster, scope: Scope, grows: bool
) -> None:
    deploy(api, scope, "1Gi", grows=grows)  # Its claim takes the place of one of backups.
    wait_until(lambda: (api.get(claim(scope)) or {})["status"]["phase"] == "Bound", "the claim")
    said: list[str] = []
    for storage in ("500Mi", "5Gi", "5Gi"):
        [template] = database(scope, storage, grows)["spec"]["volumeClaimTemplates"]
        wanted = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": claim(scope).name, "namespace": scope.namespace},
            "spec": template["spec"],
        }
        volumes.create_claim(api, wanted, said.append)
    if grows:
        assert said == [f"growing the volume {claim(scope).name} from 1Gi to 5Gi"]
    else:
        assert "cannot grow to 5Gi: its storage class grows-false does not allow it" in said[0]
    assert requested(api, scope) == ("5Gi" if grows else "1Gi")


def test_dry_run_reports_a_volume_that_grows(
    api: ApiClient, cluster: Cluster, scope: Scope
) -> None:
    deploy(api, scope, "1Gi")
    wanted = database(scope, "5Gi", True)
    actions = apply.dry_run(api, scope, [objects.namespace(scope), wanted])
    assert actions[Reference.of(wanted)] == "change"


def test_class_of_a_volume_is_left_out_while_its_database_keeps_running(
    api: ApiClient, cluster: Cluster, scope: Scope
) -> None:
    deploy(api, scope, "1Gi")
    before = pod_uids(api, scope)
    things = [objects.namespace(scope), database(scope, "1Gi", True, named=False)]
    apply.apply_objects(api, scope, things, commit="c2", wait=lambda _: None)
    live = api.get(Reference.of(things[1]))
    assert live is not None
    [template] = live["spec"]["volumeClaimTemplates"]
    assert "storageClassName" not in template["spec"]
    assert pod_uids(api, scope) == before
    with pytest.raises(UsageError, match="which cannot be changed to grows-false"):
        apply.check_objects(api, scope, [database(scope, "1Gi", False)])
