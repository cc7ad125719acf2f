"""What is decided before anything is applied: which cluster to make, which Secrets, in which order,
and who may be at work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapwing.errors import ConflictError, ContextError, SecretError, UnmanagedObjectError
from lapwing.kubernetes import applyset, local_cluster, local_state, secrets, waves
from lapwing.kubernetes.apply import ApplyOptions
from lapwing.kubernetes.applyset import Scope
from lapwing.kubernetes.local_cluster import Tool
from lapwing.kubernetes.objects import Reference
from lapwing.kubernetes.waves import group_by_wave
from lapwing.plan.model import Deployment, Document, Service
from lapwing.plan.names import RequiredSecret
from lapwing.targets.select import is_direct

SCOPE = Scope("shop", "kind", "shop-kind")
GIVEN = RequiredSecret("secret-token", {"value": None}, "TOKEN")
MADE = RequiredSecret("secret-key", {"value": 32}, "KEY")
DATABASE = RequiredSecret("mysql", {"password": 32, "root-password": 32})


def secret(name: str, *keys: str, ours: bool = True, **annotations: str) -> dict[str, Any]:
    labels = SCOPE.labels if ours else {}
    metadata = {"name": name, "namespace": "shop-kind", "labels": labels}
    made = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata}
    metadata["annotations"] = {f"lapwing.dev/{k}": v for k, v in annotations.items()}
    return {**made, "data": dict.fromkeys(keys, "eA==")}


def choose(given: dict[str, str], *live: dict[str, Any]) -> secrets.SecretPlan:
    there = {t["metadata"]["name"]: t for t in live}
    return secrets.plan_secrets(SCOPE, [GIVEN, MADE, DATABASE], given, there)


def test_in_an_empty_cluster_values_are_made_up_and_the_others_are_asked_for() -> None:
    choice = choose({})
    assert [(m.name, m.keys) for m in choice.generated] == [
        ("shop-secret-key", {"value": 32}),
        ("shop-mysql", {"password": 32, "root-password": 32}),
    ]
    with pytest.raises(SecretError, match="TOKEN is not set") as told:
        secrets.check_missing(choice, "kind")
    assert "lapwing secret set TOKEN -e kind" in str(told.value.hint)


def test_what_was_made_is_never_made_again() -> None:
    there = (secret("shop-secret-key", "value"), secret("shop-mysql", "password", "root-password"))
    choice = choose({"TOKEN": "v1"}, *there)
    assert choice.generated == []
    assert choice.versions == {"TOKEN": "v1"}
    secrets.check_missing(choice, "kind")


def test_a_key_that_is_missing_is_added_to_ours_and_to_nobody_elses() -> None:
    [added] = choose({"KEY": "v1"}, secret("shop-mysql", "password")).generated
    assert (added.keys, added.adds) == ({"root-password": 32}, True)
    with pytest.raises(UnmanagedObjectError, match="root-password"):
        choose({"KEY": "v1"}, secret("shop-mysql", "password", ours=False))


def test_a_value_that_only_the_cluster_has_is_kept() -> None:
    strangers = secret("shop-secret-token", "value", ours=False)
    assert choose({}, strangers).versions == {"TOKEN": secrets.UNKNOWN}
    from_elsewhere = secret("shop-secret-token", "value", version="v7")
    assert choose({}, from_elsewhere).versions == {"TOKEN": "v7"}
    assert choose({}, secret("shop-secret-token", "other")).missing == ["TOKEN"]


def test_what_is_made_up_says_that_it_stays() -> None:
    thing = secrets.generate(SCOPE, secrets.GeneratedSecret("shop-mysql", {"password": 32}))
    assert applyset.is_kept(thing)
    assert SCOPE.manages(thing)
    assert len(thing["stringData"]["password"]) == 32
    assert not applyset.is_kept(secrets.set_object(SCOPE, "TOKEN", "x", "v1"))


def test_a_certificate_is_for_the_host_and_for_localhost() -> None:
    from cryptography import x509

    certificate, _ = secrets.self_signed("shop.example")
    read = x509.load_pem_x509_certificate(certificate.encode())
    names = read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["shop.example", "localhost"]


@pytest.mark.parametrize(
    ("context", "environment", "there", "made"),
    [
        (None, "kind", ("kind", "minikube"), "kind-shop"),
        (None, "kind", (), "kind-shop"),
        (None, "staging", ("minikube",), "minikube-shop"),
        (None, "minikube", ("kind", "minikube"), "minikube-shop"),
        ("kind-own", "staging", ("minikube",), "kind-own"),
        ("minikube", "staging", ("kind",), "minikube"),
    ],
)
def test_which_cluster_is_made(
    context: str | None, environment: str, there: tuple[Tool, ...], made: str
) -> None:
    assert local_cluster.choose(context, "shop", environment, there).context == made


def test_no_other_cluster_is_made() -> None:
    for name in ("production", "gke_company_europe-west1", "kind-"):
        with pytest.raises(ContextError, match="names no cluster that Lapwing can create"):
            local_cluster.choose(name, "shop", "kind", ("kind",))


def test_tools_are_called_by_their_own_names() -> None:
    kind, minikube = (
        local_cluster.from_context("kind-shop"),
        local_cluster.from_context("minikube-shop"),
    )
    assert kind is not None
    assert minikube is not None
    assert kind.delete_command == ["kind", "delete", "cluster", "--name", "shop"]
    assert minikube.create_command == ["minikube", "start", "--profile", "minikube-shop"]


def document(**secrets_: str) -> Document:
    service = Service(kind="web", release="api:v1", revision="", secrets=secrets_)
    return Document(
        stack="shop",
        environment="kind",
        target="kubernetes",
        deployment=Deployment(actor="a"),
        services={"api": service},
    )


FILES = {
    "kind/manifests/workloads.yaml": b"""
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop-api, namespace: shop-kind, labels: {app.kubernetes.io/name: api}}
spec: {template: {metadata: {labels: {a: b}}, spec: {}}}
---
apiVersion: v1
kind: Service
metadata: {name: shop-api, namespace: shop-kind}
""",
    "kind/manifests/edge.yaml": b"""
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop-edge, namespace: shop-kind, labels: {app.kubernetes.io/name: edge}}
spec: {template: {metadata: {labels: {a: b}}, spec: {}}}
""",
    "kind/manifests/jobs.yaml": b"""
apiVersion: batch/v1
kind: Job
metadata: {name: shop-migrate-1, namespace: shop-kind, labels: {app.kubernetes.io/name: migrate}}
spec: {template: {metadata: {}, spec: {}}}
""",
    "kind/manifests/after.yaml": b"""
apiVersion: batch/v1
kind: Job
metadata: {name: shop-seed-1, namespace: shop-kind, labels: {app.kubernetes.io/name: seed}}
spec: {template: {metadata: {}, spec: {}}}
""",
    "kind/manifests/data.yaml": b"""
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: shop-db, namespace: shop-kind, labels: {app.kubernetes.io/name: db}}
spec: {template: {metadata: {labels: {a: b}}, spec: {}}}
""",
    "kind/manifests/namespace.yaml": b"""
apiVersion: v1
kind: Namespace
metadata: {name: shop-kind}
""",
}


@given(st.permutations(sorted(FILES)))
def test_concerns_come_one_after_the_other_however_files_are_listed(names: list[str]) -> None:
    found = waves.objects_to_apply({n: FILES[n] for n in names}, document())
    course = ApplyOptions(waves.wave_numbers(found))
    things = [thing for _, thing in found]
    assert [[t["metadata"]["name"] for t in w] for w in group_by_wave(things, course.wave_of)] == [
        ["shop-kind"], ["shop-db"], ["shop-migrate-1"], ["shop-api", "shop-api"], ["shop-edge"],
        ["shop-seed-1"],
    ]  # fmt: skip


def test_pods_follow_the_versions_of_their_secrets_and_of_no_others() -> None:
    def digests(made: Document) -> dict[str, str | None]:
        found = {}
        for _, thing in waves.objects_to_apply(FILES, made):
            if thing["kind"] in ("Deployment", "StatefulSet"):
                metadata = thing["spec"]["template"]["metadata"]
                found[thing["metadata"]["name"]] = metadata.get("annotations", {}).get(
                    waves.SECRETS
                )
        return found

    one, two = digests(document(TOKEN="v1")), digests(document(TOKEN="v2"))
    assert one["shop-api"] is not None
    assert one["shop-api"] != two["shop-api"]
    assert (one["shop-edge"], one["shop-db"]) == (None, None)
    assert digests(document())["shop-api"] is None


def test_a_job_does_not_run_again_for_what_is_brought_back() -> None:
    import msgspec

    back = Deployment(kind="rollback", actor="a", restores="c1")
    found = waves.objects_to_apply(FILES, msgspec.structs.replace(document(), deployment=back))
    assert Reference("batch/v1", "Job", "shop-kind", "shop-migrate-1") not in {
        Reference.of(thing) for _, thing in found
    }


def test_one_at_a_time_and_the_context_is_remembered(tmp_path: Path) -> None:
    folder = tmp_path / "environments" / "shop" / "kind"
    assert local_state.read_context(folder) is None
    with local_state.environment_lock(folder, "shop/kind"):
        assert local_state.is_locked(folder)
        with (
            pytest.raises(ConflictError, match="changing shop/kind"),
            local_state.environment_lock(folder, "shop/kind"),
        ):
            pass
    assert not local_state.is_locked(folder)
    local_state.save_context(folder, "kind-shop")
    assert local_state.read_context(folder) == "kind-shop"
    local_state.forget_context(folder)
    assert local_state.read_context(folder) is None


@pytest.mark.parametrize(
    ("said", "direct"),
    [
        ({}, True),
        ({"cloud": {"provider": "gcp"}}, False),
        ({"cloud": {"provider": "gcp"}, "delivery": "direct"}, True),
        ({"delivery": "argo", "cloud": {}}, False),
    ],
)
def test_who_applies_an_environment(said: dict[str, Any], direct: bool) -> None:
    assert is_direct(said) is direct
