"""Add-ons: what `lapwing bootstrap` installs in a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from lapwing.commands.bootstrap import rendered_environment
from lapwing.errors import IntegrityError
from lapwing.render.kubernetes import addons
from lapwing.render.kubernetes.addons import ARGO_CD, METRICS_SERVER, ROLLOUTS, AddOn
from lapwing.render.kubernetes.objects import ClusterEnvironment
from lapwing.render.terraform.files import files as terraform
from lapwing.stack.load import load
from lapwing.stack.quantities import cpu, size
from tests.unit.render.stacks import written

COMPANY = Path(__file__).parents[3] / "examples/company-inc/lapwing.yaml"


def environment(folder: Path, settings: str) -> ClusterEnvironment:
    text = (
        "stack: shop\nservices: {web: {image: 'shop/web:v1', route: /}}\n"
        f"environments: {{test: {{target: kubernetes, {settings}}}}}\n"
    )
    return rendered_environment(load(written(text, folder), "test"))


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ("delivery: direct", ["metrics-server"]),
        ("rollouts: true", ["metrics-server", "argo-rollouts"]),
        ("cloud: {provider: gcp, region: us-central1}", ["argo-rollouts", "argo-cd"]),
        ("delivery: direct, cloud: {provider: gcp, region: us-central1}", []),
    ],
)
def test_add_ons_follow_the_settings_of_the_environment(
    tmp_path: Path, settings: str, names: list[str]
) -> None:
    cluster = environment(tmp_path, settings)
    assert [a.name for a in addons.needed(cluster)] == names
    assert bool(addons.applications(cluster)) == ("argo-cd" in names)


def test_requests_of_add_ons_fit_the_overhead_that_the_example_states() -> None:
    cluster = rendered_environment(load(COMPANY, "production"))
    sizes = [
        requests
        for addon in addons.needed(cluster)
        for name, requests in addon.requests.items()
        if name not in addon.idle
    ]
    sizes += [addons.EXTERNAL_SECRETS_REQUESTS] * 3
    overhead = cluster.settings.overhead
    assert sum(cpu(c) for c, _ in sizes) <= (overhead.cpu or 0)
    assert sum(size(m) for _, m in sizes) <= (overhead.memory or 0)


def test_external_secrets_runs_as_the_account_that_iam_allows_to_read_secrets() -> None:
    loaded = load(COMPANY, "production")
    application, root = addons.applications(rendered_environment(loaded))
    spec = application["spec"]
    account = spec["source"]["helm"]["valuesObject"]["serviceAccount"]["name"]
    member = f"/subject/ns/{spec['destination']['namespace']}/sa/{account}"
    assert member in terraform([loaded])["production"]["secrets.tf.json"]
    assert root["metadata"]["name"] == "company-inc-root"


@pytest.mark.parametrize("addon", [ROLLOUTS, ARGO_CD])
def test_changed_manifests_are_refused(addon: AddOn) -> None:
    with pytest.raises(IntegrityError, match=f"{addon.name} {addon.version}"):
        addons.objects(addon, b"kind: ConfigMap\n")


def test_metrics_server_trusts_the_nodes_of_a_local_cluster_only() -> None:
    for is_local in (True, False):
        [deployment] = [
            t
            for t in addons.objects(METRICS_SERVER, None, is_local=is_local)
            if t["kind"] == "Deployment"
        ]
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        assert ("--kubelet-insecure-tls" in container["args"]) == is_local
        assert container["resources"]["requests"] == {"cpu": "100m", "memory": "200Mi"}


def test_rendered_metrics_server_verifies_the_nodes_of_a_cluster_that_is_not_known(
    tmp_path: Path,
) -> None:
    [text] = addons.files(environment(tmp_path, "delivery: direct"), {}).values()
    assert "kind: Deployment" in text
    assert "--kubelet-insecure-tls" not in text
