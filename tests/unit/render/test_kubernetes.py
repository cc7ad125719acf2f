"""`lapwing render`: the golden cases of tests/golden/kubernetes, and what must hold for each.

LAPWING_GOLDEN_WRITE=1 writes the expectations again.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from lapwing.cli.main import cli
from lapwing.errors import UsageError
from lapwing.plan.names import secret_part
from lapwing.render.kubernetes import argo, pod_settings, render
from lapwing.stack.load import load
from tests.unit.render.clusters import CLUSTERS, cases, cluster_environment
from tests.unit.render.stacks import compare

Json = dict[str, Any]
WORKLOADS = ("Rollout", "Deployment", "StatefulSet")


def run(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["-C", str(folder), "render", *arguments])


def pods_of(tree: Json) -> Iterator[Json]:
    """Every pod template below an object, those of analyses included."""
    if tree.get("kind") in (*WORKLOADS, "Job"):
        yield tree["spec"]["template"]
    for metric in tree.get("spec", {}).get("metrics", []):
        if "job" in metric.get("provider", {}):
            yield metric["provider"]["job"]["spec"]["template"]


@pytest.mark.parametrize(("case", "environment"), cases())
def test_manifests_equal_golden_files(case: str, environment: str, tmp_path: Path) -> None:
    shutil.copy(CLUSTERS / case / "lapwing.yaml", tmp_path)
    out = tmp_path / "out"
    result = run(tmp_path, "-e", environment, "-o", str(out))
    assert result.exit_code == 0, result.output
    found = {p.relative_to(out).as_posix(): p.read_text() for p in out.rglob("*.yaml")}
    compare(CLUSTERS / case / "expected" / environment, found)


def test_folder_has_files_in_the_order_of_kubectl_and_no_other_object(tmp_path: Path) -> None:
    shutil.copy(CLUSTERS / "workers-and-jobs" / "lapwing.yaml", tmp_path)
    out = tmp_path / "out"
    [environment] = [e for c, e in cases() if c == "workers-and-jobs"][:1]
    old = json.dumps({"namespace.yaml": hashlib.sha256(b"old").hexdigest()})
    out.mkdir()
    (out / "namespace.yaml").write_text("old")
    (out / ".lapwing-rendered.json").write_text(old)
    assert run(tmp_path, "-e", environment, "-o", str(out)).exit_code == 0
    applied = [p for p in sorted(out.iterdir()) if p.suffix in (".yaml", ".yml", ".json")]
    made = cluster_environment("workers-and-jobs", environment)
    read = [d for path in applied for d in yaml.safe_load_all(path.read_text())]
    assert read[0]["kind"] == "Namespace"
    assert [p.name.partition("-")[2] for p in applied] == list(render.files(made))
    assert len(read) == len(render.objects(made))


def test_render_lists_the_secrets_that_kubectl_needs_before(tmp_path: Path) -> None:
    (tmp_path / "lapwing.yaml").write_text(
        "stack: shop\n"
        "services: {web: {image: 'shop/web:v1', route: /, needs: [db], secrets: [KEY]}}\n"
        "resources: {db: {kind: mysql}}\n"
        "environments: {kind: {target: kubernetes}}\n"
    )
    shown = run(tmp_path, "-e", "kind", "-o", str(tmp_path / "out"))
    assert "in the namespace shop-kind" in shown.output
    assert "shop-db: keys password, root-password" in shown.output
    assert "shop-secret-key: keys value" in shown.output
    assert "shop-edge-tls: type kubernetes.io/tls" in shown.output


def test_all_missing_images_are_reported_at_once(tmp_path: Path) -> None:
    path = tmp_path / "lapwing.yaml"
    path.write_text(
        "stack: shop\nservices:\n"
        "  api: {build: ., command: serve, route: /api}\n"
        "  web: {image: registry.example/web:1, route: /}\n"
        "  mail: {build: ., command: send}\n"
        "environments: {kind: {target: kubernetes}}\n"
    )
    with pytest.raises(UsageError, match=r"No image is given for: api, mail\.") as refused:
        render.prepare(load(path, "kind"))
    assert "--image api=REGISTRY/REPOSITORY@DIGEST --image mail=" in str(refused.value.hint)


@pytest.mark.parametrize("registry", ["", "registry: registry.example/shop\n"])
def test_missing_image_for_argo_cd_names_the_missing_repository(
    registry: str, tmp_path: Path
) -> None:
    path = tmp_path / "lapwing.yaml"
    path.write_text(
        f"stack: shop\n{registry}services: {{api: {{build: ., command: serve, route: /}}}}\n"
        "environments: {production: {target: kubernetes, cloud: "
        "{provider: gcp, region: europe-west1}}}\n"
    )
    with pytest.raises(UsageError, match="No image is given for: api") as refused:
        render.prepare(load(path, "production"))
    assert "`repository: URL`" in str(refused.value.hint)


def test_variables_of_dotenv_files_are_rendered(tmp_path: Path) -> None:
    (tmp_path / "api.env").write_text("GREETING='Hello, $(NAME)'\n")
    (tmp_path / "lapwing.yaml").write_text(
        "stack: shop\nservices: {api: {image: registry.example/api:1, route: /, env_file: api.env}}"
        "\nenvironments: {kind: {target: kubernetes}}\n"
    )
    trees = render.objects(render.prepare(load(tmp_path / "lapwing.yaml", "kind")))
    containers = [c for t in trees for p in pods_of(t) for c in p["spec"]["containers"]]
    variables = [v for c in containers for v in c.get("env", [])]
    assert {"name": "GREETING", "value": "Hello, $$(NAME)"} in variables


@pytest.mark.parametrize(("case", "environment"), cases())
def test_files_parse_to_rendered_objects(case: str, environment: str) -> None:
    made = cluster_environment(case, environment)
    read = [d for t in render.files(made).values() for d in yaml.safe_load_all(t)]
    key = json.dumps
    assert sorted(map(key, read)) == sorted(map(key, render.objects(made)))


@pytest.mark.parametrize(("case", "environment"), cases())
def test_selectors_match_only_their_own_pods(case: str, environment: str) -> None:
    trees = render.objects(cluster_environment(case, environment))
    pods = [(t["metadata"]["name"], p["metadata"]["labels"]) for t in trees for p in pods_of(t)]
    for tree in trees:
        if tree["kind"] in (*WORKLOADS, "PodDisruptionBudget"):
            chosen = tree["spec"]["selector"]["matchLabels"]
        elif tree["kind"] == "Service":
            chosen = tree["spec"]["selector"]
        else:
            continue
        matched = [name for name, labels in pods if chosen.items() <= labels.items()]
        assert len(matched) == 1, (tree["kind"], tree["metadata"]["name"], matched)


@pytest.mark.parametrize(("case", "environment"), cases())
def test_referenced_objects_exist(case: str, environment: str) -> None:
    made = cluster_environment(case, environment)
    trees = render.objects(made)
    names = {(t["kind"], t["metadata"]["name"]) for t in trees}
    for tree in trees:
        for pod in pods_of(tree):
            account = pod["spec"].get("serviceAccountName")
            assert account is None or ("ServiceAccount", account) in names
            for volume in pod["spec"].get("volumes", []):
                if "configMap" in volume:
                    assert ("ConfigMap", volume["configMap"]["name"]) in names
        if tree["kind"] == "HorizontalPodAutoscaler":
            scaled = tree["spec"]["scaleTargetRef"]
            assert (scaled["kind"], scaled["name"]) in names
        if tree["kind"] == "Rollout":
            blue_green = tree["spec"]["strategy"]["blueGreen"]
            for key in ("activeService", "previewService"):
                assert ("Service", blue_green[key]) in names
            for key in ("prePromotionAnalysis", "postPromotionAnalysis"):
                for template in blue_green.get(key, {}).get("templates", []):
                    assert ("AnalysisTemplate", template["templateName"]) in names


@pytest.mark.parametrize(("case", "environment"), cases())
def test_every_pod_meets_restricted_pod_security(case: str, environment: str) -> None:
    """Pod Security Standards, "restricted", and what Lapwing promises beyond."""
    for tree in render.objects(cluster_environment(case, environment)):
        for pod in pods_of(tree):
            spec = pod["spec"]
            assert spec["automountServiceAccountToken"] is False
            assert spec["securityContext"]["runAsNonRoot"] is True
            assert spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
            assert not spec.get("hostNetwork")
            for container in [*spec["containers"], *spec.get("initContainers", [])]:
                rights = container["securityContext"]
                assert rights["allowPrivilegeEscalation"] is False
                assert rights["readOnlyRootFilesystem"] is True
                assert rights["capabilities"] == {"drop": ["ALL"]}
                assert {"cpu", "memory"} <= container["resources"]["requests"].keys()


def pods_below(tree: Any) -> Iterator[Json]:
    """Every pod in a tree: its metadata and spec, wherever it is."""
    if isinstance(tree, dict):
        if "containers" in tree.get("spec", {}):
            yield tree
        for value in tree.values():
            yield from pods_below(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from pods_below(value)


def account_of(pod: Json) -> str:
    """The service or resource whose service account a pod has; "" for one that runs curl."""
    return str(pod["spec"].get("serviceAccountName", "")).removeprefix("shop-")


def test_every_pod_has_the_settings_of_its_environment_and_service() -> None:
    found = {
        environment: render.objects(cluster_environment("placed-pods", environment))
        for environment in ("cluster", "spot")
    }
    for environment, objects in found.items():
        pods = list(pods_below(objects))
        kinds = {"CronJob", "Job", "StatefulSet", "Rollout", "AnalysisTemplate", "Deployment"}
        assert {o["kind"] for o in objects if list(pods_below(o))} == kinds
        text = json.dumps(objects)
        assert len(pods) == text.count('"containers": [') > 12
        for pod in pods:
            part, spec, is_spot = account_of(pod), pod["spec"], environment == "spot"
            on_spot = is_spot and part not in ("db", "cache", "backup")
            assert spec["nodeSelector"] == {
                "pool": "apps",
                **({"disk": "ssd"} if part == "db" and not is_spot else {}),
                **({pod_settings.SPOT: "true"} if on_spot else {}),
            }
            keys = [t["key"] for t in spec["tolerations"] if t["key"] != pod_settings.SPOT]
            assert keys == (["api"] if part == "api" and not is_spot else ["pool"])
            assert (len(keys) < len(spec["tolerations"])) == on_spot
            assert list(spec["affinity"]) == ["nodeAffinity"]
            login = "api-login" if part == "api" and is_spot else "mirror-login"
            assert spec["imagePullSecrets"] == [{"name": login}]
            annotations = pod["metadata"]["annotations"]
            assert annotations["example.com/team"] == "shop"
            assert ("example.com/port" in annotations) == (part == "api" and not is_spot)
    claims = [
        claim["spec"]["storageClassName"]
        for o in found["cluster"]
        for claim in o.get("spec", {}).get("volumeClaimTemplates", ())
    ]
    assert claims == ["fastest", "fast"]
    [backup] = [o for o in found["cluster"] if o["kind"] == "CronJob" and "backup" in str(o)]
    assert '"storageClassName": "fast"' in json.dumps(backup)


def test_login_of_registry_is_beside_those_of_the_stack_file() -> None:
    """The pull secrets of a pod replace those of its service account."""
    loaded = load(CLUSTERS / "placed-pods" / "lapwing.yaml", "cluster", folders=False)
    objects = render.objects(render.prepare(loaded, has_pull_secret=True))
    names = [{s["name"] for s in p["spec"]["imagePullSecrets"]} for p in pods_below(objects)]
    assert set(map(frozenset, names)) == {frozenset({"mirror-login", "shop-registry-login"})}


@pytest.mark.parametrize(("case", "environment"), cases())
def test_network_policies_deny_by_default_and_cover_every_pod(case: str, environment: str) -> None:
    trees = render.objects(cluster_environment(case, environment))
    policies = {t["metadata"]["name"]: t["spec"] for t in trees if t["kind"] == "NetworkPolicy"}
    everyone = [p for p in policies.values() if not p.get("ingress") and not p.get("egress")]
    assert any(set(p["policyTypes"]) == {"Ingress", "Egress"} for p in everyone)
    for name, policy in policies.items():
        for rule in policy.get("egress", []):
            assert rule, "a rule without `to` and `ports` opens everything"
        for rule in policy.get("ingress", []):
            assert rule.get("ports"), "a rule without `ports` opens all of them"
            assert rule.get("from") or name.endswith("-edge"), "only the edge is for everybody"


def test_project_allows_every_kind_that_is_ever_rendered() -> None:
    """Argo CD prunes only what the project allows: the last CronJob, after it left the stack."""
    found = {
        (tree["apiVersion"].rpartition("/")[0], tree["kind"])
        for case, environment in cases()
        for tree in render.objects(cluster_environment(case, environment))
    }
    allowed = {(group, kind) for group, kinds in argo.KINDS.items() for kind in kinds}
    assert found == allowed | {("", "Namespace")}


def test_manifests_contain_no_secret_values() -> None:
    for case, environment in cases():
        for tree in render.objects(cluster_environment(case, environment)):
            assert tree["kind"] != "Secret"
            text = json.dumps(tree)
            assert not re.search(r"://[^$/\" ]*:[^$/@\" ]+@", text), tree["metadata"]["name"]


def expanded(text: str, known: dict[str, str]) -> str:
    """What a container sees of a variable's value. Source: Kubernetes API reference, EnvVar."""
    return re.sub(
        r"\$(\$|\((\w+)\))",
        lambda m: "$" if m[1] == "$" else known.get(m[2], m[0]),
        text,
    )


@pytest.mark.parametrize(
    "written", ["US$", "$$", "a$$b", "$(HOME)", "$$(HOME)", "$$$(HOME)", "$HOME"]
)
def test_env_value_reaches_container_unchanged(written: str, tmp_path: Path) -> None:
    (tmp_path / "lapwing.yaml").write_text(
        SMALL.replace("route: /", f"route: /, env: {{A: {json.dumps(written)}}}")
    )
    loaded = load(tmp_path / "lapwing.yaml", "kind")
    [app] = [t for t in render.objects(render.prepare(loaded)) if t["kind"] == "Deployment"
             and t["metadata"]["name"] == "tiny-app"]  # fmt: skip
    env = app["spec"]["template"]["spec"]["containers"][0]["env"]
    [value] = [e["value"] for e in env if e["name"] == "A"]
    assert expanded(value, {"HOME": "/root"}) == written


@pytest.mark.parametrize(
    "written",
    ["echo $$; wait", "echo $(date)", "echo $PORT | cat", "a$$b c", "run $$ $PORT", "x $$$(PORT)"],
)
def test_command_reaches_container_unchanged(written: str, tmp_path: Path) -> None:
    """The cluster expands `$$` and `$(NAME)` in commands; only `$PORT` alone is left to it."""
    seen = command_in_container(written, tmp_path)
    if seen[:2] == ["/bin/sh", "-c"]:
        assert seen[2] == written
    else:
        assert " ".join(seen) == written.replace("$PORT", "8080")


@pytest.mark.parametrize(
    ("written", "script"),
    [("cd web && node a.js", "cd web && exec node a.js"), ("A=1 serve", "A=1 exec serve")],
)
def test_shell_is_replaced_by_last_program_of_container(
    written: str, script: str, tmp_path: Path
) -> None:
    """So that SIGTERM reaches the application."""
    assert command_in_container(written, tmp_path) == ["/bin/sh", "-c", script]


def command_in_container(written: str, folder: Path) -> list[str]:
    """Render a service with a command; return the command as the cluster expands it."""
    file = folder / "lapwing.yaml"
    file.write_text(SMALL.replace("route: /", f"route: /, command: {json.dumps(written)}"))
    [app] = [t for t in render.objects(render.prepare(load(file, "kind")))
             if t["kind"] == "Deployment" and t["metadata"]["name"] == "tiny-app"]  # fmt: skip
    command = app["spec"]["template"]["spec"]["containers"][0]["command"]
    return [expanded(word, {"PORT": "8080"}) for word in command]


def test_long_timeout_is_rendered_without_exponent(tmp_path: Path) -> None:
    """Envoy takes no exponent: `1.0368e+06s` is no duration."""
    file = tmp_path / "lapwing.yaml"
    file.write_text(
        "stack: shop\n"
        "services: {api: {image: 'registry.example/api:1', route: /, timeout: 12d}}\n"
        "environments: {kind: {target: kubernetes}}\n"
    )
    edge = render.files(render.prepare(load(file, "kind", folders=False)))["edge.yaml"]
    assert 'timeout: "1036800s"' in edge or "timeout: 1036800s" in edge
    assert "e+0" not in edge


def test_variables_that_differ_in_case_get_separate_secrets() -> None:
    variables = ["API_KEY", "api_key", "Api_Key", "_API_KEY", "API__KEY", "_", "__"]
    assert len({secret_part(v) for v in variables}) == len(variables)
    assert all(re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", secret_part(v)) for v in variables)


SMALL = (CLUSTERS / "smallest/lapwing.yaml").read_text()


@pytest.mark.parametrize(
    ("text", "arguments", "message", "hint"),
    [
        (SMALL.replace("image: registry.example/tiny/app:1.2.3", "build: ., command: x"),
         ("-e", "kind"), "No image is given for: app.", "--image app="),
        (SMALL, ("-e", "kind", "--image", "ap=x:1"), "no service `ap`", "mean `app`?"),
        (SMALL, ("-e", "kind", "--image", "app=UPPER//x"), "Invalid image of 'app'", ""),
        (SMALL.replace("tiny", "t" * 40).replace("  app:", f"  {'a' * 40}:"), ("-e", "kind"),
         "the maximum is 63", "Shorten the name"),
        (SMALL.replace("image: registry.example/tiny/app:1.2.3", "build: ., command: x"),
         ("-e", "local"), "has `target: machine`", "target: kubernetes"),
        (SMALL, ("-e", "kynd"), "no environment `kynd`", "kind"),
    ],
)  # fmt: skip
def test_invalid_render_request_is_reported(
    text: str, arguments: tuple[str, ...], message: str, hint: str, tmp_path: Path
) -> None:
    (tmp_path / "lapwing.yaml").write_text(text)
    result = run(tmp_path, "-o", str(tmp_path / "out"), *arguments)
    assert result.exit_code != 0
    assert message in str(result.exception)
    assert hint in (getattr(result.exception, "hint", None) or "")
    assert not (tmp_path / "out").exists()


def test_image_option_without_reference_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "lapwing.yaml").write_text(SMALL)
    result = run(tmp_path, "-e", "kind", "-o", str(tmp_path / "out"), "--image", "app")
    assert result.exit_code == 2
    assert "SERVICE=REF" in result.output


BRACES = """\
stack: shop
services:
  api:
    image: registry.example/api:1
    command: serve
    route: /
    env: {FORMAT: "{{.Name}}", OPEN: "{{"}
    rollout:
      smoke:
        - {get: "/?q={{x}}", contains: "{{ user }} and {{{y}}} and {{"}
        - {run: "check --format '{{args.braces}}'"}
environments:
  one: {target: kubernetes, domain: shop.example, rollouts: true}
"""


def as_argo_rollouts_reads(metrics: Any, arguments: list[dict[str, str]]) -> Any:
    """Metrics with their arguments put in. What is in no argument is an error, as in
    `utils/template` of Argo Rollouts; tests/cluster has the real one do it."""
    known = {f"args.{a['name']}": json.dumps(a["value"])[1:-1] for a in arguments}
    text = json.dumps(metrics, separators=(",", ":"))
    assert text.count("{{") == len(re.findall(r"\{\{.*?\}\}", text))
    return json.loads(re.sub(r"\{\{(.*?)\}\}", lambda tag: known[tag[1].strip()], text))


def test_braces_of_stack_file_reach_argo_rollouts_unchanged(tmp_path: Path) -> None:
    (tmp_path / "lapwing.yaml").write_text(BRACES)
    objects = render.objects(render.prepare(load(tmp_path / "lapwing.yaml", "one", folders=False)))
    specs = {
        t["metadata"]["name"].rpartition("-")[2]: t["spec"]
        for t in objects
        if t["kind"] == "AnalysisTemplate"
    }
    assert "args" not in specs["analysis"]
    smoke = specs["smoke"]
    request, command = [
        m["provider"]["job"]["spec"]["template"]["spec"]["containers"][0]
        for m in as_argo_rollouts_reads(smoke["metrics"], smoke["args"])
    ]
    told = {e["name"]: e.get("value") for e in request["env"]}
    assert told["URL"].endswith("/?q={{x}}")
    assert told["CONTAINS"] == "{{ user }} and {{{y}}} and {{"
    told = {e["name"]: e.get("value") for e in command["env"]}
    assert (told["FORMAT"], told["OPEN"]) == ("{{.Name}}", "{{")
    assert "{{args.braces}}" in json.dumps(command)
    (rollout,) = (t for t in objects if t["kind"] == "Rollout")
    assert "{{.Name}}" in json.dumps(rollout)
