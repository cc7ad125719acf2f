"""`lapwing ship` and `deploy` for Argo CD: images from source to a registry, then a commit."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.installation import Installation
from tests.needs import require
from tests.registries import Server, docker_registry

STACK = """\
stack: shop
registry: {registry}/team
services:
  web: {{build: {{path: ./web, test: test -f index.html}}, static: ., route: /}}
  docs: {{build: ./docs, static: ., route: /docs}}
environments:
  production:
    target: kubernetes
    domain: shop.example.com
    cloud: {{provider: gcp, region: europe-west1}}
    repository: {repository}
"""
FILES = {"web/index.html": "<p>shop</p>", "docs/index.html": "<p>docs</p>"}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with docker_registry(require("registry"), tmp_path_factory.mktemp("registry")) as server:
        yield server


def make(folder: Path, registry: str) -> Installation:
    """A stack of two sites; its desired state is in `desired.git` of the folder."""
    remote = folder / "desired.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", remote], check=True)
    made = Installation(folder / "ci")
    text = STACK.format(registry=registry, repository=remote)
    made.write({**FILES, "lapwing.yaml": text})
    return made


@pytest.fixture
def place(tmp_path: Path, registry: Server) -> Installation:
    return make(tmp_path, registry.host)


def desired(place: Installation, path: str) -> str:
    """A file of the environment in the desired state; empty if there is none."""
    folder = place.folder.parents[1] / "desired.git"
    command = ["git", "--git-dir", folder, "show", f"main:shop/production/{path}"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def steps(shipped: dict[str, Any]) -> dict[str, str]:
    return {step["name"]: step["outcome"] for step in shipped["steps"]}


def test_ship_pushes_images_and_commits_their_digests(
    place: Installation, registry: Server
) -> None:
    first = place.json("ship", "-e", "production", "--scan", "off")
    assert steps(first) == {
        "build": "done", "test": "done", "scan": "skipped", "push": "done", "commit": "done",
    }  # fmt: skip
    commit = place.git("rev-parse", "HEAD")
    for name, image in first["images"].items():
        assert registry.whole(f"team/{name}", commit) == image.partition("@")[2]
        assert image in desired(place, "manifests/workloads.yaml")
    assert set(first["images"]) == {"web", "docs"}

    place.write({"docs/index.html": "<p>other</p>"})
    second = place.json("ship", "-e", "production", "--scan", "off")
    assert [change["name"] for change in second["changes"]] == ["docs"]
    assert second["images"]["web"] == first["images"]["web"]
    assert commit[:12] in desired(place, "manifests/workloads.yaml"), "the revision of web stays"

    place.git("commit", "-q", "--allow-empty", "-m", "Nothing")
    assert place.json("ship", "-e", "production", "--scan", "off")["commit"] is None
    assert place.json("deploy", "-e", "production")["outcome"] == "unchanged"


def test_check_and_dry_run_push_nothing(place: Installation, registry: Server) -> None:
    before = registry.manifest("team/web", "latest")
    place.write({"web/index.html": "<p>unpublished</p>"})
    shipped = place.json("ship", "-e", "production", "--scan", "off", "--check")
    planned = place.json("deploy", "-e", "production", "--dry-run")
    digest = shipped["images"]["web"].partition("@")[2]
    assert planned["services"]["web"]["release"] == f"web@{digest[7:19]}"
    assert registry.manifest("team/web", digest) is None
    assert registry.manifest("team/web", "latest") == before
    assert desired(place, "document.json") == ""


def test_uncommitted_changes_are_not_deployed(place: Installation) -> None:
    (place.folder / "web/index.html").write_text("<p>draft</p>")
    for verb in (("deploy",), ("ship", "--scan", "off")):
        error = place.json(*verb, "-e", "production", status=2)["error"]
        assert "web has uncommitted changes" in error["message"]
    assert desired(place, "document.json") == ""


def test_failed_push_commits_nothing(tmp_path: Path) -> None:
    with docker_registry(require("registry"), tmp_path / "registry", read_only=True) as server:
        place = make(tmp_path, server.host)
        for verb in (("deploy",), ("ship", "--scan", "off")):
            error = place.json(*verb, "-e", "production", status=1)["error"]
            assert "read-only" in error["message"]
    assert desired(place, "document.json") == ""


def test_without_a_registry_every_way_to_an_image_is_named(place: Installation) -> None:
    text = (place.folder / "lapwing.yaml").read_text()
    text = text.replace("registry:", "x-registry:")
    place.write({"lapwing.yaml": text})
    notes = " ".join(place.json("check")["notes"])
    assert "pushed to europe-west1-docker.pkg.dev/shop-shared/images." in notes
    place.write({"lapwing.yaml": text[: text.index("    cloud:")]})
    error = place.json("render", "-e", "production", "-o", "out", status=2)["error"]
    assert "Set `registry: HOST/FOLDER` in lapwing.yaml" in error["hint"]
    assert "--image web=" in error["hint"]
    notes = " ".join(place.json("check")["notes"])
    assert "For any other cluster, set `registry`." in notes


def test_render_builds_nothing_and_names_the_way_to_an_image(place: Installation) -> None:
    error = place.json("render", "-e", "production", "-o", "out", status=2)["error"]
    assert error["message"] == "No image is given for: web, docs."
    assert "`lapwing deploy -e production` builds and pushes them" in error["hint"]
    assert "lapwing image build web docs -e production --push" in error["hint"]
    assert not (place.folder / "out").exists()
    notes = " ".join(place.json("check")["notes"])
    assert "images of web, docs are built from source and pushed to" in notes
