"""The charts of whole stacks: Helm renders what `lapwing render` writes, object by object."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from lapwing.cli.main import run
from lapwing.errors import UsageError
from lapwing.render.helm import stack
from lapwing.render.helm.chart import LEFT_OUT, About
from lapwing.render.kubernetes import render
from lapwing.render.kubernetes.objects import ClusterEnvironment
from lapwing.render.kubernetes.setting import Scope, resolve
from lapwing.stack.load import load
from tests.unit.render.clusters import CLUSTERS
from tests.unit.render.helm import helm

FLEET = Path(__file__).parents[4] / "stacks" / "fleetdm" / "lapwing.yaml"
SMALLEST = """
stack: tiny
services: {web: {image: "nginx:1.29", route: /, user: 101}}
environments: {local: {target: kubernetes}, here: {target: kubernetes}}
"""
SHOP = """
stack: shop
services:
  api:
    image: registry.example/shop/api:1.4.0
    command: gunicorn app:app
    route: /api
    health: {path: /api/healthz, live: /api/alive}
    replicas: {min: 2, max: 5, cpu: 60%}
    needs: [db, cache]
    secrets: [SESSION_KEY, {name: SIGNING_KEY, generate: 48}]
    env: {GREETING: 'say "{{ hello }}" $(NOT) #1', CACHE: "${cache.host}:${cache.port}"}
    rollout: {smoke: [{get: /api/healthz}, {run: pytest smoke}], hold: true}
  my-web: {image: "registry.example/shop/web:2", static: dist, route: /}
  mailer: {kind: worker, image: "registry.example/shop/api:1.4.0", command: mail, needs: [db]}
  import: {kind: job, image: "registry.example/shop/api:1.4.0", command: import, needs: [db]}
  warm-up:
    kind: job
    image: "registry.example/shop/api:1.4.0"
    after: [api, my-web, mailer]
    env: {WISH: 'a "b" {{ c }} $d', NUMBER: 1, CACHE: "${cache.host}"}
    needs: [cache]
resources:
  db: {kind: mongodb, version: "8"}
  cache: {kind: redis, version: "7"}
environments:
  local: {target: kubernetes}
  kind: {target: kubernetes, domain: localhost}
  rollouts: {target: kubernetes, domain: shop.test, rollouts: true}
  ingress: {target: kubernetes, domain: shop.test, gateway: {kind: ingress, issuer: letsencrypt}}
  gateway: {target: kubernetes, domain: shop.test, gateway: gateway}
  production:
    target: kubernetes
    domain: shop.example
    cloud: {provider: gcp, region: us-central1}
    spot: true
"""
PLACED = (CLUSTERS / "placed-pods" / "lapwing.yaml").read_text()
CASES = [
    *((SMALLEST, "here"),),
    *((SHOP, e) for e in ("kind", "rollouts", "ingress", "gateway", "production")),
    *((FLEET.read_text(), e) for e in ("kind", "hosts-25000", "production")),
    *((PLACED, e) for e in ("cluster", "spot")),
]


def cluster_environment(folder: Path, text: str, environment: str) -> ClusterEnvironment:
    (folder / "lapwing.yaml").write_text(text)
    return render.prepare(load(folder / "lapwing.yaml", environment))


def key(item: dict[str, Any]) -> tuple[str, str]:
    return item["kind"], item["metadata"]["name"]


def own(found: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Objects that `render` also writes, without the labels of a chart."""
    found = helm.without_chart_labels(found)
    names = {i["metadata"]["labels"]["app.kubernetes.io/name"] for i in found}
    assert names
    only = ("secret-maker", "test")
    return {
        key(i): i for i in found if i["metadata"]["labels"]["app.kubernetes.io/name"] not in only
    }


def rendered(made: ClusterEnvironment) -> dict[tuple[str, str], dict[str, Any]]:
    scopes = {**made.scopes, Scope.MANAGER: "Helm"}
    trees = [m.tree for m in render.manifests(made) if m.tree["kind"] not in LEFT_OUT]
    return {key(o): o for o in (resolve(tree, scopes) for tree in trees)}


@pytest.mark.parametrize(("text", "environment"), CASES)
def test_helm_template_equals_lapwing_render(text: str, environment: str, tmp_path: Path) -> None:
    made = cluster_environment(tmp_path, text, environment)
    name = made.loaded.stack.stack
    path = helm.write(tmp_path / "chart", stack.files(made, About(name, "1.0.0", "1", "A stack")))
    found = own(helm.template(path, release=name, namespace=made.namespace))
    wanted = rendered(made)
    assert found.keys() == wanted.keys()
    for which, item in wanted.items():
        assert found[which] == item
    linted = helm.run("lint", "--strict", path)
    assert linted.returncode == 0, linted.stdout


def test_presets_of_fleet_render_their_environments(tmp_path: Path) -> None:
    text = FLEET.read_text()
    kind = cluster_environment(tmp_path, text, "kind")
    sizes = [cluster_environment(tmp_path, text, f"hosts-{n}") for n in (1000, 25000, 150000)]
    about = About("fleetdm-stack", "1.0.0", "v4.93.0", "Fleet")
    cloud = cluster_environment(tmp_path, text, "production")
    files = stack.files(kind, about, [*sizes, cloud])
    assert sorted(f for f in files if f.startswith("values-")) == [
        "values-hosts-1000.yaml", "values-hosts-150000.yaml", "values-hosts-25000.yaml",
    ]  # fmt: skip
    path = helm.write(tmp_path / "chart", files)
    for size in sizes:
        values = path / f"values-{size.loaded.environment}.yaml"
        found = helm.template(
            path, "--values", str(values), release="fleetdm-stack", namespace="here"
        )
        scopes = {**size.scopes, Scope.MANAGER: "Helm", Scope.NAMESPACE: "here"}
        wanted = [resolve(m.tree, scopes) for m in render.manifests(size)]
        for item in wanted:
            if item["kind"] not in (*LEFT_OUT, "Job"):
                same = own(found)[key(item)]
                assert same == json.loads(json.dumps(item).replace(size.loaded.environment, "kind"))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("fleet")
    made = cluster_environment(folder, FLEET.read_text(), "kind")
    files = stack.files(made, About("fleetdm-stack", "1.0.0", "v4.93.0", "Fleet"))
    return helm.template(helm.write(folder / "chart", files), release="fleetdm-stack")


def test_fleet_services_keep_names_of_upstream_chart(fleet: list[dict[str, Any]]) -> None:
    services = {i["metadata"]["name"] for i in fleet if i["kind"] == "Service"}
    assert {"fleetdm-stack-mysql", "fleetdm-stack-redis-master"} <= services


def test_fleet_liveness_probe_is_independent_of_redis(
    fleet: list[dict[str, Any]],
) -> None:
    (pod,) = [
        i["spec"]["template"]["spec"]
        for i in fleet
        if key(i) == ("Deployment", "fleetdm-stack-fleet")
    ]
    (container,) = pod["containers"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/version"
    assert container["startupProbe"]["httpGet"]["path"] == "/version"
    assert container["readinessProbe"]["httpGet"]["path"] == "/healthz"
    start = container["startupProbe"]
    assert start["periodSeconds"] * start["failureThreshold"] >= 105
    assert (pod["securityContext"]["runAsUser"], pod["securityContext"]["runAsNonRoot"]) == (
        100, True,
    )  # fmt: skip


def test_vulnerabilities_service_requests_ephemeral_storage(
    fleet: list[dict[str, Any]],
) -> None:
    (job,) = [i["spec"] for i in fleet if key(i) == ("CronJob", "fleetdm-stack-vulnerabilities")]
    assert job["suspend"] is True  # On kind.
    pod = job["jobTemplate"]["spec"]["template"]["spec"]
    (scratch,) = [v["emptyDir"]["sizeLimit"] for v in pod["volumes"]]
    resources = pod["containers"][0]["resources"]
    assert scratch == "4Gi"
    assert resources["limits"]["ephemeral-storage"] == "4352Mi"
    assert resources["requests"]["ephemeral-storage"] == "4352Mi"


def test_fleet_has_fewer_database_connections_than_mysql_allows() -> None:
    """Per environment: all pods with a full pool, one more during an update, and the jobs."""
    for name in ("kind", "hosts-1000", "hosts-25000", "hosts-150000", "production"):
        made = render.prepare(load(FLEET, name))
        fleet, mysql = made.services["fleet"], made.own_resources["mysql"]
        pods = (fleet.replicas.max or fleet.replicas.min) + 1 + 2
        pool = int(fleet.env["FLEET_MYSQL_MAX_OPEN_CONNS"])
        assert pods * pool < max(151, (mysql.resources.memory or 0) // 2**23), name


def test_fleet_writes_osquery_logs_to_stdout_and_their_plugin_is_a_value(
    fleet: list[dict[str, Any]],
) -> None:
    (pod,) = [i for i in fleet if key(i) == ("Deployment", "fleetdm-stack-fleet")]
    (container,) = pod["spec"]["template"]["spec"]["containers"]
    values = {e["name"]: e.get("value") for e in container["env"]}
    for log in ("STATUS", "RESULT"):
        assert values[f"FLEET_OSQUERY_{log}_LOG_PLUGIN"] == "stdout"


def test_fleet_accepts_additional_variables_and_volumes(tmp_path: Path) -> None:
    made = cluster_environment(tmp_path, FLEET.read_text(), "kind")
    files = stack.files(made, About("fleetdm-stack", "1.0.0", "v4.93.0", "Fleet"))
    given = {
        "env": {"FLEET_OSQUERY_RESULT_LOG_PLUGIN": "pubsub"},
        "extraEnv": [
            {"name": "FLEET_LICENSE_KEY",
             "valueFrom": {"secretKeyRef": {"name": "license", "key": "key"}}}
        ],
        "extraVolumes": [{"name": "ca", "secret": {"secretName": "mysql-ca"}}],
        "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/mysql-ca", "readOnly": True}],
    }  # fmt: skip
    (tmp_path / "mine.json").write_text(json.dumps({"services": {"fleet": given}}))
    chart = helm.write(tmp_path / "chart", files)
    found = helm.template(chart, "--values", str(tmp_path / "mine.json"), release="fleetdm-stack")
    pods = {
        key(i): i["spec"]["template"]["spec"] for i in found if i["kind"] in ("Deployment", "Job")
    }
    (migration,) = [p for k, p in pods.items() if "-migrate-" in k[1]]
    for pod in (pods["Deployment", "fleetdm-stack-fleet"], migration):
        (container,) = pod["containers"]
        assert container["env"][-1] == given["extraEnv"][0]
        assert {"name": "FLEET_OSQUERY_RESULT_LOG_PLUGIN", "value": "pubsub"} in container["env"]
        assert container["volumeMounts"][-1] == given["extraVolumeMounts"][0]
        assert pod["volumes"][-1] == given["extraVolumes"][0]


def test_every_pod_and_volume_accepts_additional_fields(tmp_path: Path) -> None:
    made = cluster_environment(tmp_path, FLEET.read_text(), "kind")
    files = stack.files(made, About("fleetdm-stack", "1.0.0", "v4.93.0", "Fleet"))
    given: dict[str, Any] = {
        "podSpec": {
            "imagePullSecrets": [{"name": "mirror"}],
            "nodeSelector": {"pool": "fleet"},
            "tolerations": [{"key": "pool", "operator": "Exists"}],
        },
        "podMetadata": {"annotations": {"example.com/team": "it"}},
        "resources": {"mysql": {"volumeClaim": {"storageClassName": "fast"}}},
        "services": {"fleet": {"serviceAccountMetadata": {"annotations": {"cloud/role": "fleet"}}}},
    }
    (tmp_path / "mine.json").write_text(json.dumps(given))
    chart = helm.write(tmp_path / "chart", files)
    found = helm.template(chart, "--values", str(tmp_path / "mine.json"), release="fleetdm-stack")
    specs = [s for item in found for s in _found(item, "spec") if "containers" in s]
    kinds = {"CronJob", "Deployment", "Job", "Pod", "StatefulSet"}
    assert {i["kind"] for i in found} >= kinds
    assert len(specs) == sum(i["kind"] in kinds for i in found)
    for spec in specs:
        assert given["podSpec"].items() <= spec.items()
    for item in (i for i in found if i["kind"] in ("Deployment", "StatefulSet")):
        annotations = item["spec"]["template"]["metadata"]["annotations"]
        assert annotations == {"example.com/team": "it"}
    accounts = {
        i["metadata"]["name"]: i["metadata"].get("annotations")
        for i in found
        if i["kind"] == "ServiceAccount"
    }
    annotated = {name: found for name, found in accounts.items() if found}
    assert annotated == {"fleetdm-stack-fleet": {"cloud/role": "fleet"}}
    claims = {
        i["metadata"]["name"]: i["spec"]["volumeClaimTemplates"][0]["spec"].get("storageClassName")
        for i in found
        if i["kind"] == "StatefulSet"
    }
    assert {name: c for name, c in claims.items() if c} == {"fleetdm-stack-mysql": "fast"}


def test_values_of_a_service_are_merged_over_those_of_all_pods(tmp_path: Path) -> None:
    made = cluster_environment(tmp_path, PLACED, "cluster")
    path = helm.write(tmp_path / "chart", stack.files(made, About("shop", "1.0.0", "1", "A stack")))
    values = "podSpec.nodeSelector.zone=a,services.api.podSpec.priorityClassName=high"
    found = {key(o): o for o in helm.template(path, "--set", values)}
    api = found["Rollout", "shop-api"]["spec"]["template"]["spec"]
    assert api["nodeSelector"] == {"pool": "apps", "zone": "a"}
    assert api["priorityClassName"] == "high"
    assert [t["key"] for t in api["tolerations"]] == ["api"]
    database = found["StatefulSet", "shop-db"]["spec"]["template"]["spec"]
    assert database["nodeSelector"] == {"pool": "apps", "disk": "ssd", "zone": "a"}
    assert "priorityClassName" not in database


def test_minimum_above_the_maximum_is_refused(tmp_path: Path) -> None:
    made = cluster_environment(tmp_path, SHOP, "kind")
    path = helm.write(tmp_path / "chart", stack.files(made, About("shop", "1.0.0", "1", "A stack")))
    for low, high in (
        ("services.api.replicas.min", "services.api.replicas.max"),
        ("edge.replicas", "edge.maxReplicas"),
    ):
        ran = helm.run("template", "shop", path, "--set", f"{low}=60")
        assert ran.returncode != 0
        assert f"{low} is larger than {high}" in ran.stderr


def test_no_service_selects_pods_of_jobs(fleet: list[dict[str, Any]]) -> None:
    jobs = [i["spec"]["template"]["metadata"]["labels"] for i in fleet if i["kind"] == "Job"]
    assert len(jobs) == 3
    for item in fleet:
        if item["kind"] != "Service":
            continue
        selector = item["spec"]["selector"].items()
        assert not any(selector <= labels.items() for labels in jobs)


def test_only_hook_is_the_test_pod(fleet: list[dict[str, Any]]) -> None:
    hooks = [i for i in fleet if "helm.sh/hook" in i["metadata"].get("annotations", {})]
    assert [key(h) for h in hooks] == [("Pod", "fleetdm-stack-test")]


def test_every_referenced_secret_is_generated(fleet: list[dict[str, Any]]) -> None:
    named = {(ref["name"], ref["key"]) for item in fleet for ref in _found(item, "secretKeyRef")}
    mounted = {secret["secretName"] for item in fleet for secret in _found(item, "secret")}
    (listed,) = [
        i["data"]["list"] for i in fleet
        if i["kind"] == "ConfigMap" and "secret-maker" in i["metadata"]["name"]
    ]  # fmt: skip
    lines = [line.split() for line in listed.splitlines()]
    made = {(n, pair.split("=")[0]) for n, *pairs in lines for pair in pairs if "=" in pair}
    assert named == {m for m in made if m[1] != "root-password"} | {
        m for m in named if m[1] == "root-password"
    }
    assert named <= made
    assert mounted == {n for n, *pairs in lines if pairs == ["certificate"]}


def _found(tree: Any, wanted: str) -> list[Any]:
    if isinstance(tree, list):
        return [f for item in tree for f in _found(item, wanted)]
    if not isinstance(tree, dict):
        return []
    here = [tree[wanted]] if isinstance(tree.get(wanted), dict) else []
    return here + [f for item in tree.values() for f in _found(item, wanted)]


def test_chart_command_writes_folder_and_packages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lapwing.yaml").write_text(SMALLEST)
    at = ["-C", str(tmp_path), "chart", "-o"]
    assert run([*at, str(tmp_path / "c"), "--version", "2.0.0", "--app-version", "v9"]) == 0
    about = yaml.safe_load((tmp_path / "c" / "Chart.yaml").read_text())
    assert (about["name"], about["version"], about["appVersion"]) == ("tiny", "2.0.0", "v9")
    capsys.readouterr()
    for version in ("1.0.0", "1.0.1", "1.0.0"):
        assert run([*at, str(tmp_path / "p"), "--version", version, "--package"]) == 0
    packages = sorted(p.name for p in (tmp_path / "p").glob("*.tgz"))
    assert packages == ["tiny-1.0.0.tgz", "tiny-1.0.1.tgz"]
    with tarfile.open(tmp_path / "p" / packages[0]) as archive:
        assert "tiny/values.schema.json" in archive.getnames()
    assert "tiny-1.0.0.tgz" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--version", "v1"], "Invalid chart version 'v1'"),
        (["-e", "nowhere"], "no environment `nowhere`"),
        (["--image", "wbe=x"], "There is no service `wbe` in lapwing.yaml (--image)."),
        (["--image", "web"], "SERVICE=REF"),
    ],
)
def test_invalid_options_are_reported_and_nothing_is_written(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lapwing.yaml").write_text(SMALLEST)
    status = run(["-C", str(tmp_path), "chart", "-o", str(tmp_path / "c"), *arguments])
    assert status == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_stack_without_kubernetes_environment_has_no_chart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "lapwing.yaml").write_text(
        "stack: s\nservices: {web: {build: web, command: run, route: /}}\n"
    )
    assert run(["-C", str(tmp_path), "chart", "-o", str(tmp_path / "c")]) == 2
    assert "No environment of this stack has `target: kubernetes`" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["test", "edge-test", "secret-maker"])
def test_service_with_name_of_a_chart_object_is_refused(part: str, tmp_path: Path) -> None:
    """The Service of `test` would send requests to the pod of `helm test`."""
    made = cluster_environment(tmp_path, SMALLEST.replace("web:", f"{part}:"), "local")
    with pytest.raises(UsageError, match=f"The name '{part}' is reserved"):
        stack.files(made, About("tiny", "1.0.0", "1", "A stack"))


@pytest.mark.parametrize(
    "change",
    [
        "services.fleet.resources.limits.memory=3Gi",
        "services.fleet.image=fleetdm/fleet:v4.94.0",
        "secretMaker.image=curlimages/curl:8.12.0",
    ],
)
def test_changed_job_gets_new_name(change: str, tmp_path: Path) -> None:
    """A Job's pods may not be changed: `helm upgrade` would fail on one of the same name."""
    made = cluster_environment(tmp_path, FLEET.read_text(), "kind")
    about = About("fleetdm-stack", "1.0.0", "v4.93.0", "Fleet")
    path = helm.write(tmp_path / "chart", stack.files(made, about))

    def jobs(*arguments: str) -> dict[str, Any]:
        found = helm.template(path, *arguments, release="fleetdm-stack")
        return {i["metadata"]["name"]: i["spec"] for i in found if i["kind"] == "Job"}

    before, after = jobs(), jobs("--set", change)
    assert after != before
    assert all(after[name] == before[name] for name in before.keys() & after.keys())
