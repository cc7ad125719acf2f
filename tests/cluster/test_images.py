"""Images of a stack, from its source to pods: built, loaded into kind or pushed, and pulled.

Simulated nodes run no container, so what is checked is what the nodes and the registry would get.
`kind` is a program that keeps the archives that it is given.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.control_plane import CONTEXT, Cluster
from tests.cluster.shop import Shop, program
from tests.installation import GIT
from tests.needs import require
from tests.registries import Server, docker_registry

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

STACK = """
stack: {name}
services:
  web: {{build: ./web, static: ., route: /}}
  docs: {{build: ./docs, static: ., route: /docs}}
environments:
  kind: {{target: kubernetes, domain: localhost{more}}}
"""
KIND = """
import json, os, shutil, sys
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
shutil.copy(sys.argv[3], os.environ["CALLS"] + ".tar")
"""


class Source(Shop):
    """A stack of two sites in a git repository, and what `kind` was asked for."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        super().__init__(cluster, folder, f"site-{uuid.uuid4().hex[:6]}")
        self.calls_file = folder / "calls"
        tools = folder / "tools"
        program(tools, "kind", KIND)
        self.environ |= {
            "CALLS": str(self.calls_file),
            "PATH": f"{tools}:{self.environ['PATH']}",
            "DOCKER_CONFIG": str(folder / "docker"),
        }
        self.change("web/index.html", "<p>first</p>")
        self.change("docs/index.html", "<p>docs</p>")
        self.environment("")
        self.git("init", "--quiet")
        self.commit()

    def environment(self, more: str) -> None:
        self.change("lapwing.yaml", STACK.format(name=self.name, more=more))

    def change(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def git(self, *arguments: str) -> str:
        command = ["git", "-C", str(self.folder), *arguments]
        done = subprocess.run(
            command, env={**self.environ, **GIT}, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def commit(self) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "change")
        return self.git("rev-parse", "HEAD")

    def calls(self) -> list[list[str]]:
        if not self.calls_file.exists():
            return []
        return [json.loads(line) for line in self.calls_file.read_text().splitlines()]

    def image(self, part: str) -> str:
        container = self.deployment(part)["spec"]["template"]["spec"]["containers"][0]
        return str(container["image"])

    def loaded(self) -> dict[str, str]:
        """The names in the archive that `kind` got last with their digests; every blob is right."""
        with tarfile.open(f"{self.calls_file}.tar") as archive:
            blobs = {m.name: archive.extractfile(m) for m in archive if m.isfile()}
            data = {name: file.read() for name, file in blobs.items() if file is not None}
        for name, content in data.items():
            if name.startswith("blobs/sha256/"):
                assert hashlib.sha256(content).hexdigest() == name.rpartition("/")[2]
        index = json.loads(data["index.json"])
        for entry in index["manifests"]:
            manifest = json.loads(data["blobs/" + entry["digest"].replace(":", "/")])
            for blob in (manifest["config"], *manifest["layers"]):
                assert "blobs/" + blob["digest"].replace(":", "/") in data
        key = "io.containerd.image.name"
        return {m["annotations"][key]: m["digest"] for m in index["manifests"]}

    def nodes_report(self, *images: str) -> None:
        """Let every node report that it has images, as a kubelet does."""
        for node in self.cluster.call("GET", "/api/v1/nodes")["items"]:
            path = f"/api/v1/nodes/{node['metadata']['name']}/status"
            status = {"status": {"images": [{"names": [i], "sizeBytes": 1} for i in images]}}
            self.cluster.call("PATCH", path, status, "application/merge-patch+json")

    def commits(self) -> str:
        """Everything that the desired state has and had."""
        git = ["git", "-C", str(self.home / "desired.git"), "log", "-p", "--all"]
        return subprocess.run(git, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def source(cluster: Cluster, tmp_path: Path) -> Source:
    return Source(cluster, tmp_path)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with docker_registry(require("registry"), tmp_path_factory.mktemp("registry")) as server:
        yield server


def test_up_builds_images_and_loads_what_nodes_lack(source: Source) -> None:
    planned = source.json("deploy", "--dry-run")
    assert source.calls() == []
    assert source.json("history") == []
    source.run("up")
    name = CONTEXT.removeprefix("kind-")
    [call] = source.calls()
    assert (call[:2], call[3:]) == (["load", "image-archive"], ["--name", name])
    web, docs = source.image("web"), source.image("docs")
    assert source.loaded() == {i: "sha256:" + i.partition(":sha256-")[2] for i in (web, docs)}
    assert web.startswith(f"localhost/{source.name}/web:sha256-")
    expected = {c["to"] for c in planned["changes"] if c["kind"] == "service"}
    assert {
        f"{n}@{i.partition(':sha256-')[2][:12]}"
        for n, i in zip(("web", "docs"), (web, docs), strict=True)
    } == expected

    source.nodes_report(web, docs)
    source.commit()
    assert source.json("deploy")["outcome"] == "unchanged"
    assert len(source.calls()) == 1

    source.change("web/index.html", "<p>second</p>")  # It need not be committed for kind.
    done = source.json("deploy")
    assert [c["name"] for c in done["changes"]] == ["web"]
    assert set(source.loaded()) == {source.image("web")} != {web}
    assert source.deployment("docs")["metadata"]["generation"] == 1
    assert "warning" not in source.run("rollback")
    assert source.image("web") == web


def test_failed_load_changes_nothing(source: Source) -> None:
    program(source.folder.parent / "tools", "kind", "raise SystemExit('no nodes found')")
    told = source.json("up", status=1)["error"]
    assert "kind load image-archive" in told["message"]
    assert "no nodes found" in told["detail"]
    assert source.json("history") == []
    assert source.deployment("web") is None


def test_images_are_pushed_to_the_registry_of_the_environment(
    source: Source, registry: Server
) -> None:
    source.environment(f", registry: '{registry.host}/{source.name}'")
    commit = source.commit()
    source.run("up")
    assert source.calls() == []
    repository, _, digest = source.image("web").partition("@")
    assert repository == f"{registry.host}/{source.name}/web"
    for tag in (commit, "latest"):
        assert registry.whole(f"{source.name}/web", tag) == digest
    assert "imagePullSecrets" not in source.get(f"serviceaccounts/{source.name}-web")

    old = source.image("docs").partition("@")[2]
    assert registry.whole(f"{source.name}/docs", "deployed-kind") == old
    source.change("docs/index.html", "<p>new</p>")
    newer = source.commit()
    done = source.json("deploy")
    assert [c["name"] for c in done["changes"]] == ["docs"]
    assert source.image("web") == f"{repository}@{digest}"
    assert registry.whole(f"{source.name}/docs", "deployed-kind") != old
    source.run("rollback")
    assert registry.whole(f"{source.name}/docs", "deployed-kind") == old
    assert registry.manifest(f"{source.name}/docs", newer) is not None

    source.change("docs/index.html", "<p>not committed</p>")
    source.run("deploy")
    tags = registry.client.get(registry.url(f"{source.name}/docs/tags/list")).json()["tags"]
    tags = [tag for tag in tags if not tag.startswith("sha256-")]  # Those of SBOM and provenance.
    expected = [commit, newer, "latest", "deployed-kind", f"{newer[:12]}-dirty"]
    assert sorted(tags) == sorted(expected)
    source.run("down")
    for part in ("web", "docs"):
        assert registry.manifest(f"{source.name}/{part}", "deployed-kind") is None


def test_rollback_keeps_the_hashed_files_of_the_release_that_it_replaces(
    source: Source, registry: Server
) -> None:
    source.environment(f", registry: '{registry.host}/{source.name}'")
    images = []
    for version in ("one", "two"):
        source.change(f"web/assets/app-{version}00000.js", version)
        source.commit()
        source.run("up")
        images.append(source.image("web"))
        source.git("rm", "--quiet", f"web/assets/app-{version}00000.js")
    source.run("rollback")
    restored = source.image("web")
    assert restored not in images
    repository = f"{source.name}/web"
    layers = []
    for image in (*images, restored):
        manifest = registry.manifest(repository, image.partition("@")[2])
        assert manifest is not None
        layers.append({layer["digest"] for layer in manifest["layers"]})
    registry.whole(repository, restored.partition("@")[2])
    added = layers[2] - layers[0]
    assert len(added) == 1
    assert added < layers[1]


def test_failed_push_changes_nothing(source: Source, tmp_path: Path) -> None:
    with docker_registry(require("registry"), tmp_path / "r", read_only=True) as server:
        source.environment(f", registry: '{server.host}/team'")
        told = source.json("up", status=1)["error"]
    assert "read-only" in told["message"]
    assert source.json("history") == []
    assert source.deployment("web") is None


def test_pods_pull_with_the_login_of_the_registry(
    source: Source, registry: Server, tmp_path: Path
) -> None:
    login = base64.b64encode(b"robot:pull-s3cret").decode()
    auths = {registry.host: {"auth": login}, "other.example": {"auth": login}}
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker/config.json").write_text(json.dumps({"auths": auths}))
    source.environment(f", registry: '{registry.host}/{source.name}'")
    source.commit()
    said = source.run("up")
    name = f"{source.name}-registry-login"
    secret = source.get(f"secrets/{name}")
    assert secret["type"] == "kubernetes.io/dockerconfigjson"
    data = json.loads(base64.b64decode(secret["data"][".dockerconfigjson"]))
    assert data == {"auths": {registry.host: {"auth": login}}}
    pods = source.get("pods")["items"]
    by_name = {p["metadata"]["labels"]["app.kubernetes.io/name"]: p["spec"] for p in pods}
    assert by_name["web"]["imagePullSecrets"] == [{"name": name}]
    assert "imagePullSecrets" not in by_name["edge"]
    everything = said + source.commits()
    assert "pull-s3cret" not in everything
    assert login not in everything

    (tmp_path / "docker/config.json").unlink()  # Another user deploys, without a login.
    assert source.json("deploy")["outcome"] == "unchanged"
    assert source.get(f"secrets/{name}")["data"] == secret["data"]
    source.run("down")
    assert source.get(f"secrets/{name}") is None


def test_own_secret_for_pulling_is_used_unchanged(
    source: Source, registry: Server, tmp_path: Path
) -> None:
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": source.namespace}}
    source.cluster.call("POST", "/api/v1/namespaces", space)
    name = f"{source.name}-registry-login"
    own: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": '{"auths": {}}'},
    }
    source.cluster.call("POST", f"/api/v1/namespaces/{source.namespace}/secrets", own)
    before = source.get(f"secrets/{name}")
    source.environment(f", registry: '{registry.host}/{source.name}'")
    source.commit()
    source.run("up")
    account = source.get(f"serviceaccounts/{source.name}-web")
    assert account["imagePullSecrets"] == [{"name": name}]
    assert source.get(f"secrets/{name}")["metadata"] == before["metadata"]
