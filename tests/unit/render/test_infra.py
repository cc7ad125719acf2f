"""`lapwing infra`: the golden cases of tests/golden/infra, and what the rendering must never do.

LAPWING_GOLDEN_WRITE=1 writes the expectations again. A real Terraform reads the same files in
tests/terraform.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from lapwing.cli.main import cli
from lapwing.errors import StackFileError
from lapwing.plan.names import endpoint_group
from lapwing.render.kubernetes import render
from lapwing.render.terraform.files import files
from lapwing.render.terraform.services import service_of
from lapwing.stack.cloud import atlas_region
from lapwing.stack.load import environments, load
from tests.unit.render.stacks import SHIPPED, STACKS, cases, compare, stack, written

NEG = "cloud.google.com/neg"
PROJECT = "${google_project.main.project_id}"
SHORT = (STACKS / "smallest/lapwing.yaml").read_text()


def run(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["-C", str(path.parent), "infra", *arguments])


def infra(path: Path, *arguments: str) -> dict[str, str]:
    """What the command writes: path relative to the folder to text."""
    out = path.parent / "out"
    result = CliRunner().invoke(
        cli, ["-C", str(path.parent), "infra", "-o", str(out), *arguments], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    names = (p for p in out.rglob("*.tf.json"))
    return {p.relative_to(out).as_posix(): p.read_text() for p in sorted(names)}


@pytest.mark.parametrize("case", cases())
def test_terraform_files_equal_golden_files(case: str, tmp_path: Path) -> None:
    compare(STACKS / case / "expected", infra(stack(case, tmp_path)))


@pytest.mark.parametrize("case", cases())
def test_no_secret_values_and_only_expected_roles(case: str, tmp_path: Path) -> None:
    path = stack(case, tmp_path)
    clouds = [n for n, e in load(path).stack.environments.items() if e.cloud]
    roots = files([load(path, name) for name in clouds])
    roles = {}
    for root, texts in roots.items():
        for text in texts.values():
            resources = json.loads(text).get("resource", {})
            assert not any("account_key" in k for k in resources)
            for version in resources.get("google_secret_manager_secret_version", {}).values():
                assert "secret_data" not in version  # It would be in the state.
                assert "secret_data_wo" in version
            for kind, bodies in resources.items():
                if kind.endswith("_iam_member"):
                    for body in bodies.values():
                        roles.setdefault((root == "shared", body["role"]), set()).add(kind)
    writer = "roles/artifactregistry.writer"
    assert {r for s, r in roles if s} == {writer, "roles/iam.workloadIdentityUser"}
    reader = ["roles/artifactregistry.reader", "roles/container.defaultNodeServiceAccount"]
    single = {"roles/secretmanager.secretAccessor", "roles/storage.objectUser"}
    assert sorted({r for s, r in roles if not s} - single) == reader
    assert roles.get((False, "roles/storage.objectUser"), set()) <= {
        "google_storage_bucket_iam_member"
    }
    assert all("project" not in kind for kind in roles[True, writer])


def test_backups_may_use_their_bucket_only(tmp_path: Path) -> None:
    files = infra(stack("everything", tmp_path))
    body = json.loads(files["production/backups.tf.json"])["resource"]
    [(name, access)] = body["google_storage_bucket_iam_member"].items()
    assert (name, access["bucket"]) == ("production-backup", "bank-backups")
    assert access["member"].endswith("/subject/ns/bank-production/sa/bank-backup")
    assert "trial/backups.tf.json" not in files
    loaded = load(tmp_path / "lapwing.yaml", "production")
    objects = render.objects(render.prepare(loaded, {"api": "bank/api:v1", "web": "bank/web:v1"}))
    [job] = [o for o in objects if o["kind"] == "CronJob"]
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert job["metadata"]["namespace"] == "bank-production"
    assert pod["serviceAccountName"] == "bank-backup"


def test_only_needed_files_are_rendered(tmp_path: Path) -> None:
    small = infra(stack("smallest", tmp_path / "a"))
    kinds = {kind for text in small.values() for kind in json.loads(text).get("resource", {})}
    absent = ("mongodbatlas", "url_map", "dns", "certificate", "budget", "secret_manager")
    assert [k for k in kinds if any(part in k for part in absent)] == []
    fleet = json.loads(infra(stack("fleet", tmp_path / "b"))["production/edge.tf.json"])
    backends = fleet["resource"]["google_compute_backend_service"]
    assert {n: b["enable_cdn"] for n, b in backends.items()} == {"edge-production": False}
    shop = json.loads(
        infra(stack("staging-and-production", tmp_path / "c"))["production/edge.tf.json"]
    )
    backends = shop["resource"]["google_compute_backend_service"]
    assert backends["static-production"]["enable_cdn"] is True


@pytest.mark.parametrize(
    ("resources", "tier"),
    [
        ("{}", "db-custom-1-3840"),
        ("{cpu: 250m, memory: 512Mi}", "db-custom-1-3840"),
        ("{cpu: 3, memory: 10Gi}", "db-custom-4-10240"),
        ("{cpu: 1, memory: 8Gi}", "db-custom-2-8192"),
        ("{cpu: 16, memory: 1Gi}", "db-custom-16-14848"),
    ],
)
def test_cloud_sql_has_the_smallest_machine_type_that_fits(
    resources: str, tier: str, tmp_path: Path
) -> None:
    path = stack("managed", tmp_path)
    path.write_text(path.read_text().replace("{cpu: 3, memory: 10Gi}", resources))
    body = json.loads(infra(path)["production/managed.tf.json"])["resource"]
    assert body["google_sql_database_instance"]["production-db"]["settings"]["tier"] == tier


@pytest.mark.parametrize(
    ("kind", "version", "name"),
    [
        ("postgres", "16.4", "POSTGRES_16"),
        ("postgres", "9", None),
        ("mysql", "8", "MYSQL_8_4"),
        ("mysql", "8.0.39", "MYSQL_8_0"),
        ("mysql", "9.1", None),
        ("redis", None, "REDIS_7_2"),
        ("redis", "8", None),
    ],
)
def test_versions_that_google_cloud_does_not_offer_are_refused(
    kind: str, version: str | None, name: str | None, tmp_path: Path
) -> None:
    path = stack("managed", tmp_path)
    asked = f'{kind}, version: "{version}"' if version else kind
    path.write_text(path.read_text().replace("db: {kind: postgres", f"db: {{kind: {asked}"))
    result = run(path, "-o", str(tmp_path / "out"))
    if name is None:
        assert f"Google Cloud does not offer {kind} {version}." in str(result.exception)
    else:
        assert name in (tmp_path / "out/production/managed.tf.json").read_text()


def test_databases_have_a_private_address_and_their_url_in_secret_manager(tmp_path: Path) -> None:
    files = infra(stack("managed", tmp_path))
    body = json.loads(files["production/managed.tf.json"])["resource"]
    for instance in body["google_sql_database_instance"].values():
        assert instance["settings"]["ip_configuration"]["ipv4_enabled"] is False
    secrets = json.loads(files["production/secrets.tf.json"])["resource"]
    for name, version in body["google_secret_manager_secret_version"].items():
        key = re.fullmatch(r"\$\{google_secret_manager_secret\.(.+)\.id\}", version["secret"])
        assert key is not None
        assert key[1] in secrets["google_secret_manager_secret"], name
    firewall = json.loads(files["production/firewall.tf.json"])["resource"]
    rule = firewall["google_compute_firewall"]["allow_out_databases"]
    assert rule["allow"] == [{"protocol": "tcp", "ports": ["3306", "5432", "6379"]}]
    assert rule["destination_ranges"] == ["10.40.0.0/20"]
    staging = json.loads(files["staging/firewall.tf.json"])["resource"]["google_compute_firewall"]
    assert staging["allow_out_databases"]["allow"][0]["ports"] == ["3306"]


@pytest.mark.parametrize("case", cases())
def test_policies_allow_databases_of_a_cloud_in_their_rendered_range_only(case: str) -> None:
    path = STACKS / case / "lapwing.yaml"
    path = path if path.exists() else SHIPPED / case / "lapwing.yaml"
    for loaded in (s for s in environments(path, folders=False) if s.settings.cloud):
        roots = [json.loads(text) for root in files([loaded]).values() for text in root.values()]
        ranges = {s["ip_cidr_range"] for s in _resources(roots, "google_compute_subnetwork")}
        ranges |= {
            f"{a['address']}/{a['prefix_length']}"
            for a in _resources(roots, "google_compute_global_address")
            if "prefix_length" in a
        }
        images = {n: "a/b:1" for n, s in loaded.stack.services.items() if s.image is None}
        objects = render.objects(render.prepare(loaded, images))
        policies = [o["spec"] for o in objects if o["kind"] == "NetworkPolicy"]
        for rule in (rule for policy in policies for rule in policy.get("egress", ())):
            assert rule.get("to"), "a rule without peers allows every address"
            for block in (p["ipBlock"] for p in rule["to"] if "ipBlock" in p):
                known = block["cidr"] in ranges or "except" in block
                assert known or block["cidr"].startswith("169.254.")


def _resources(roots: list[Any], kind: str) -> list[Any]:
    return [r for root in roots for r in root.get("resource", {}).get(kind, {}).values()]


def test_atlas_may_scale_a_cluster_and_terraform_still_compares_its_configuration(
    tmp_path: Path,
) -> None:
    files = infra(stack("company-inc", tmp_path))
    body = json.loads(files["production/database.tf.json"])["resource"]
    [cluster] = body["mongodbatlas_advanced_cluster"].values()
    assert cluster["use_effective_fields"] is True
    assert "lifecycle" not in cluster


def test_free_tier_of_atlas_has_no_private_endpoint_and_no_backups(tmp_path: Path) -> None:
    files = infra(stack("managed", tmp_path))
    body = json.loads(files["production/database.tf.json"])["resource"]
    assert set(body) == {
        "mongodbatlas_project",
        "mongodbatlas_advanced_cluster",
        "mongodbatlas_project_ip_access_list",
    }
    cluster = body["mongodbatlas_advanced_cluster"]["production-notes"]
    assert (cluster["backup_enabled"], cluster["pit_enabled"]) == (False, False)
    [region] = cluster["replication_specs"][0]["region_configs"]
    assert (region["provider_name"], region["backing_provider_name"]) == ("TENANT", "GCP")
    assert "use_effective_fields" not in cluster  # Nothing scales it.
    rules = json.loads(files["production/firewall.tf.json"])["resource"]["google_compute_firewall"]
    assert rules["allow_out_atlas"]["allow"] == [{"protocol": "tcp", "ports": ["27015-27017"]}]
    other = json.loads(
        infra(stack("company-inc", tmp_path / "other"))["production/firewall.tf.json"]
    )
    assert "allow_out_atlas" not in other["resource"]["google_compute_firewall"]


MANAGED = """\
stack: shop
services: {{w: {{build: ./app, command: x, needs: [{name}]}}}}
resources: {{{name}: {resource}}}
environments:
  {environment}:
    target: kubernetes
    cloud: {{provider: gcp, region: us-central1, project: {project}}}
    resources: {{{name}: {{managed: true}}}}
"""


@pytest.mark.parametrize(
    ("resource", "place", "message"),
    [
        ("{kind: postgres, resources: {cpu: 97}}", "97}", "at most 96 vCPU"),
        ("{kind: mysql, resources: {memory: 625Gi}}", "625Gi", "at most 624Gi"),
        ("{kind: mysql, storage: 70000Gi}", "70000Gi", "at most 65536Gi"),
        ("{kind: redis, resources: {memory: 301Gi}}", "301Gi", "at most 300Gi"),
        ("{kind: mongodb, tier: M0, storage: 1Gi}", "1Gi", "512Mi"),
        ("{kind: mongodb, tier: M0, max_tier: M10}", "max_tier", "no auto-scaling"),
        ("{kind: mongodb, tier: M0, version: 8}", "version", "Atlas chooses its version"),
    ],
)
def test_sizes_that_the_cloud_refuses_are_reported_with_line_and_column(
    resource: str, place: str, message: str, tmp_path: Path
) -> None:
    text = MANAGED.format(name="db", resource=resource, environment="live", project="shop-live")
    path = written(text, tmp_path)
    column = text.splitlines()[2].index(place) + 1
    problem = str(run(path, "-o", str(tmp_path / "out")).exception)
    assert problem.startswith(f"{path}:3:{column}: ")
    assert message in problem


@pytest.mark.parametrize(
    ("kind", "longest"), [("redis", 40), ("postgres", 98 - 31), ("mongodb", 63 - 8)]
)
def test_names_that_the_cloud_refuses_are_reported(kind: str, longest: int, tmp_path: Path) -> None:
    for length in (longest, longest + 1):
        name = "d" * min(40, length - 2)
        values = {
            "name": name,
            "environment": "e" * (length - 1 - len(name)),
            "resource": f"{{kind: {kind}}}",
            "project": "p" * 30,
        }
        path = written(MANAGED.format(**values), tmp_path / str(length))
        result = run(path, "-o", str(tmp_path / f"out{length}"))
        assert (result.exit_code == 0) == (length == longest), result.exception
        if length > longest:
            assert f"{path}:3:13: " in str(result.exception)


def test_environments_of_one_project_have_separate_endpoint_groups(tmp_path: Path) -> None:
    """By the name that the Service of each edge asks the cluster for, and each domain is led to
    its own environment's."""
    path = stack("one-project", tmp_path)
    body = json.loads(infra(path)["production/edge.tf.json"])
    groups = body["data"]["google_compute_network_endpoint_group"]
    for name, group in groups.items():
        loaded = load(path, name, folders=False)
        target = render.prepare(loaded, {"site": "registry.example/blog/site:1"})
        objects = yaml.safe_load_all(render.files(target)["edge.yaml"])
        marks = [o["metadata"].get("annotations", {}) for o in objects]
        (asked,) = [json.loads(m[NEG]) for m in marks if NEG in m]
        assert [e["name"] for e in asked["exposed_ports"].values()] == [group["name"]]
    assert len({g["name"] for g in groups.values()}) == len(groups) == 2
    backends = body["resource"]["google_compute_backend_service"]
    for matcher in body["resource"]["google_compute_url_map"]["edge"]["path_matcher"]:
        led = re.findall(r"backend_service\.([\w-]+)\.id", json.dumps(matcher))
        assert led
        for name in led:
            of = backends[name]["dynamic"]["backend"]["for_each"]
            assert of == f"${{data.google_compute_network_endpoint_group.{matcher['name']}}}"


@pytest.mark.parametrize("length", [1, 20, 40])
def test_endpoint_group_names_are_valid_and_unique(length: int) -> None:
    """At most 63 characters, and two that are cut alike still differ."""
    names = {endpoint_group("s" * length, "e" * (length - 1) + last) for last in "ab"}
    assert len(names) == 2
    assert all(re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", name) for name in names)


def test_environment_option_leaves_other_roots_unchanged(tmp_path: Path) -> None:
    path = stack("staging-and-production", tmp_path)
    whole = infra(path)
    assert {n.split("/")[0] for n in whole} == {"shared", "staging", "production"}
    path.write_text(path.read_text().replace("budget: 80", "budget: 90"))
    again = infra(path, "-e", "production")
    assert again == whole
    assert "110" in infra(path, "-e", "qa")["staging/budget.tf.json"]


def test_each_project_alerts_at_the_sum_of_the_budgets_of_its_environments(tmp_path: Path) -> None:
    files = infra(stack("staging-and-production", tmp_path))
    found = {
        name.split("/")[0]: json.loads(text)["resource"]["google_billing_budget"]["main"]["amount"]
        for name, text in files.items()
        if name.endswith("/budget.tf.json")
    }
    assert found == {
        "production": {"specified_amount": {"units": "250"}},
        "staging": {"specified_amount": {"units": "100", "nanos": 500_000_000}},
    }


def test_files_no_longer_rendered_are_removed(tmp_path: Path) -> None:
    path = stack("staging-and-production", tmp_path)
    infra(path)
    mine = tmp_path / "out/production/mine.tf"
    mine.write_text("# mine")
    path.write_text(path.read_text().replace("budget: 250\n", "cdn: true\n"))
    names = infra(path)
    assert "production/budget.tf.json" not in names
    assert "staging/budget.tf.json" in names
    assert mine.read_text() == "# mine"


@pytest.mark.parametrize("name", ["network.tf.json", "cluster.tf.json"])
def test_unmanaged_file_stops_writing(name: str, tmp_path: Path) -> None:
    path = stack("smallest", tmp_path)
    folder = tmp_path / "out/production"
    folder.mkdir(parents=True)
    (folder / name).write_text("mine")
    result = run(path, "-o", str(tmp_path / "out"), "-e", "production")
    assert result.exit_code != 0
    assert [p.name for p in folder.iterdir()] == [name]
    assert (folder / name).read_text() == "mine"
    assert run(path, "-o", str(tmp_path / "out"), "--force").exit_code == 0
    assert (folder / name).read_text() != "mine"


def test_manually_changed_file_counts_as_unmanaged(tmp_path: Path) -> None:
    path = stack("staging-and-production", tmp_path)
    infra(path)
    changed = tmp_path / "out/production/budget.tf.json"
    changed.write_text("{}")
    path.write_text(path.read_text().replace("budget: 250\n", "cdn: true\n"))
    result = run(path, "-o", str(tmp_path / "out"))
    assert result.exit_code != 0
    assert "budget.tf.json" in str(result.exception)
    assert changed.read_text() == "{}"


def test_list_of_files_cannot_point_outside_folder(tmp_path: Path) -> None:
    path = stack("smallest", tmp_path)
    infra(path)
    treasure = tmp_path / "treasure"
    treasure.write_text("x")
    listed = tmp_path / "out/production/.lapwing-rendered"
    digests: dict[str, Any] = json.loads(listed.read_text())
    digest = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    listed.write_text(json.dumps({**digests, "../../treasure": digest}))
    infra(path)
    assert treasure.exists()


@pytest.mark.parametrize(
    ("text", "arguments", "place", "message"),
    [
        (SHORT, ("-e", "local"), "4:1", "`local` has no `cloud`"),
        (SHORT.replace("us-central1", "us-centrl1"), (), "7:36", "'us-centrl1' is not a region"),
        (SHORT.replace("stack: tiny", "stack: a-name-of-thirty-and-more-letter"), (), "7:5",
         "is too long: 43 characters"),
        (SHORT.replace("us-central1}", "us-central1, project: " + "p" * 31 + "}"), (), "7:58",
         "has 31 characters"),
        (SHORT.replace("target: kubernetes", "target: kubernetes\n    domain: 'https://x.y/z'"), (),
         "7:13", "is not a domain"),
        (SHORT.replace("us-central1}", "us-central1, project: tiny-shared}"), (), "7:58",
         "is also the shared project"),
        ("stack: a\nservices: {w: {build: ./app, command: x}}\n", (), "1:1", "No environment has"),
        ((STACKS / "one-project/lapwing.yaml").read_text()
         .replace("europe-north1, project: blog-live-1}\n  staging",
                  "europe-west1, project: blog-live-1}\n  staging"), (), "13:36", "same project"),
    ],
)  # fmt: skip
def test_invalid_cloud_is_reported_with_line_and_column(
    text: str, arguments: tuple[str, ...], place: str, message: str, tmp_path: Path
) -> None:
    path = written(text, tmp_path)
    result = run(path, "-o", str(tmp_path / "out"), *arguments)
    problem = result.exception
    assert str(problem).startswith(f"{path}:{place}: ")
    assert message in str(problem)
    assert not (tmp_path / "out").exists()


def test_second_apply_is_announced_if_needed(tmp_path: Path) -> None:
    told = run(stack("company-inc", tmp_path), "-o", str(tmp_path / "out")).stderr
    assert "Apply again after the first deployment, with `edge_zones` set" in " ".join(told.split())
    variables = json.loads((tmp_path / "out/production/variables.tf.json").read_text())["variable"]
    assert "--filter name=company-inc-production-edge" in variables["edge_zones"]["description"]
    (tmp_path / "tiny").mkdir()
    told = run(written(SHORT, tmp_path / "tiny"), "-o", str(tmp_path / "other")).stderr
    assert "edge_zones" not in told


def test_tagged_images_are_deleted_only_if_variable_is_set(tmp_path: Path) -> None:
    assert run(written(SHORT, tmp_path), "-o", str(tmp_path / "out")).exit_code == 0
    shared = tmp_path / "out/shared"
    body = json.loads((shared / "registry.tf.json").read_text())
    images = body["resource"]["google_artifact_registry_repository"]["images"]
    always = {p["id"]: p for p in images["cleanup_policies"]}
    assert {i for i, p in always.items() if p["action"] == "DELETE"} == {"collect-untagged"}
    assert always["keep-newest"]["most_recent_versions"] == {"keep_count": 10}
    assert always["keep-deployed"]["condition"]["tag_prefixes"] == ["deployed-"]
    assert "var.collect_tagged" in images["dynamic"]["cleanup_policies"]["for_each"]
    variables = json.loads((shared / "variables.tf.json").read_text())["variable"]
    assert variables["collect_tagged"]["default"] is False


def test_region_newer_than_this_version_is_accepted(tmp_path: Path) -> None:
    path = written(SHORT.replace("us-central1", "europe-west99"), tmp_path)
    assert run(path, "-o", str(tmp_path / "out")).exit_code != 0
    path = written(SHORT.replace("us-central1", "europe-west99, new_region: true"), tmp_path)
    assert run(path, "-o", str(tmp_path / "out")).exit_code == 0


@pytest.mark.parametrize(
    ("google", "atlas"),
    [
        ("europe-west1", "WESTERN_EUROPE"),
        ("europe-west12", "EUROPE_WEST_12"),
        ("northamerica-northeast2", "NORTH_AMERICA_NORTHEAST_2"),
        ("me-central1", "MIDDLE_EAST_CENTRAL_1"),
        ("us-east4", "US_EAST_4"),
    ],
)
def test_atlas_region_names(google: str, atlas: str) -> None:
    assert atlas_region(google) == atlas


def _enabled_before(address: str, uses: dict[str, set[str]], seen: set[str]) -> set[str]:
    """Every address that Terraform creates before this one."""
    for other in uses.get(address, set()) - seen:
        seen.add(other)
        _enabled_before(other, uses, seen)
    return seen


@pytest.mark.parametrize("case", cases())
def test_services_of_google_are_enabled_before_every_resource_that_needs_them(
    case: str, tmp_path: Path
) -> None:
    roots: dict[str, dict[str, Any]] = {}
    for path, text in infra(stack(case, tmp_path)).items():
        for kind, bodies in json.loads(text).get("resource", {}).items():
            for name, body in bodies.items():
                roots.setdefault(path.partition("/")[0], {})[f"{kind}.{name}"] = body
    checked = 0
    for resources in roots.values():
        uses = {
            address: set(re.findall(r"google_\w+\.[\w-]+", json.dumps(body)))
            for address, body in resources.items()
        }
        own = resources["google_project.main"]["project_id"]
        for address, body in resources.items():
            service = service_of(address)
            if service is None or body.get("project") not in (None, own, PROJECT):
                continue  # Its project is that of another root, which is applied before.
            needed = f"google_project_service.{service}"
            assert needed in _enabled_before(address, uses, set()), address
            checked += 1
        kinds = {a for a in resources if a.startswith("google_")}
        unknown = {a for a in kinds if service_of(a) is None}
        assert {a.partition(".")[0] for a in unknown} == {
            "google_project", "google_project_service"
        }, unknown  # fmt: skip
    assert checked > 10


def test_firewall_and_network_policy_allow_the_ports_that_a_service_lists(tmp_path: Path) -> None:
    text = SHORT.replace("work.py}", "work.py, internet: [443, 587]}")
    assert text != SHORT
    path = written(text, tmp_path)
    firewall = json.loads(infra(path)["production/firewall.tf.json"])
    rule = firewall["resource"]["google_compute_firewall"]["allow_out_https"]
    assert rule["allow"] == [{"protocol": "tcp", "ports": ["443", "587"]}]
    loaded = load(path, "production")
    images = dict.fromkeys(loaded.stack.services, "x/y:1")
    egress = [
        rule
        for thing in render.objects(render.prepare(loaded, images))
        if thing["kind"] == "NetworkPolicy"
        for rule in thing["spec"].get("egress", ())
        if rule.get("to", [{}])[0].get("ipBlock", {}).get("cidr") == "0.0.0.0/0"
    ]
    assert [[p["port"] for p in rule["ports"]] for rule in egress] == [[443, 587]]


@pytest.mark.parametrize("in_cloud", [True, False])
def test_dns_is_allowed_to_cluster_dns_node_caches_and_the_server_of_the_cloud(
    in_cloud: bool, tmp_path: Path
) -> None:
    environment = "production" if in_cloud else "kind"
    text = SHORT + ("" if in_cloud else "\n  kind: {target: kubernetes}\n")
    loaded = load(written(text, tmp_path), environment)
    images = dict.fromkeys(loaded.stack.services, "x/y:1")
    [policy] = [
        t
        for t in render.objects(render.prepare(loaded, images))
        if t["kind"] == "NetworkPolicy" and t["metadata"]["name"].endswith("-names")
    ]
    [rule] = policy["spec"]["egress"]
    assert {(p["protocol"], p["port"]) for p in rule["ports"]} == {("UDP", 53), ("TCP", 53)}
    pods, *blocks = rule["to"]
    assert pods["podSelector"]["matchExpressions"][0]["values"] == ["kube-dns", "node-local-dns"]
    cloud = ["169.254.169.254/32"] if in_cloud else []
    assert [b["ipBlock"]["cidr"] for b in blocks] == ["169.254.20.10/32", *cloud]


def test_load_balancers_of_gke_get_an_address_and_no_second_load_balancer(tmp_path: Path) -> None:
    found = infra(stack("gateways", tmp_path))
    roots: dict[str, dict[str, Any]] = {}
    for name, text in found.items():
        for kind, bodies in json.loads(text).get("resource", {}).items():
            roots.setdefault(name.partition("/")[0], {}).setdefault(kind, {}).update(bodies)
    for resources in roots.values():
        assert not {"google_compute_url_map", "google_compute_backend_service"} & set(resources)
    gke, nginx = roots["gateway"], roots["nginx"]
    assert set(gke["google_compute_global_address"]) == {"edge-gateway", "edge-ingress"}
    records = gke["google_dns_record_set"]
    assert set(records) == {"gateway", "gateway_proof", "ingress"}
    assert set(gke["google_certificate_manager_certificate"]) == {"gateway"}
    assert "allow_in_load_balancer" in gke["google_compute_firewall"]
    assert "google_compute_global_address" not in nginx
    assert "google_dns_record_set" not in nginx


def test_gateways_of_gke_refer_to_what_terraform_creates(tmp_path: Path) -> None:
    path = stack("gateways", tmp_path)
    roots = files([load(path, name) for name in ("gateway", "ingress", "nginx")])
    created = json.loads(roots["gateway"]["gateway.tf.json"])["resource"]
    names = {kind: {b["name"] for b in bodies.values()} for kind, bodies in created.items()}
    certificates = json.loads(roots["gateway"]["certificates.tf.json"])["resource"]
    maps = {b["name"] for b in certificates["google_certificate_manager_certificate_map"].values()}

    def objects(environment: str) -> dict[str, dict[str, Any]]:
        cluster = render.prepare(load(path, environment))
        return {t["kind"]: t for t in render.objects(cluster) if "front" in t["metadata"]["name"]}

    found = objects("gateway")
    [address] = found["Gateway"]["spec"]["addresses"]
    assert address["value"] in names["google_compute_global_address"]
    assert found["Gateway"]["metadata"]["annotations"]["networking.gke.io/certmap"] in maps
    assert "tls" not in found["Gateway"]["spec"]["listeners"][0]
    policy = found["GCPGatewayPolicy"]["spec"]["default"]["sslPolicy"]
    assert policy in names["google_compute_ssl_policy"]
    check = found["HealthCheckPolicy"]["spec"]["default"]["config"]["httpHealthCheck"]
    assert (check["port"], check["requestPath"]) == (8080, "/ready")
    assert found["GCPBackendPolicy"]["spec"]["default"]["timeoutSec"] == 3600

    found = objects("ingress")
    annotations = found["Ingress"]["metadata"]["annotations"]
    address = annotations["kubernetes.io/ingress.global-static-ip-name"]
    assert address in names["google_compute_global_address"]
    assert found["FrontendConfig"]["spec"]["sslPolicy"] in names["google_compute_ssl_policy"]
    assert found["BackendConfig"]["spec"]["healthCheck"]["requestPath"] == "/ready"

    assert set(objects("nginx")) == {"Ingress"}


@pytest.mark.parametrize("name", ["gke-l7-rilb", "gke-l7-regional-external-managed"])
def test_classes_of_gke_that_need_a_proxy_subnet_are_refused(name: str, tmp_path: Path) -> None:
    text = (STACKS / "gateways/lapwing.yaml").read_text()
    path = written(
        text.replace("gateway: gateway", f"gateway: {{kind: gateway, class: {name}}}"), tmp_path
    )
    with pytest.raises(StackFileError, match="proxy subnet"):
        load(path, "gateway")
