"""`lapwing image prune` against a real registry, with a real desired state."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from lapwing.desired.repository import DesiredRepository
from lapwing.plan.model import Deployment, Document, Service, ServiceKind
from lapwing.registry.referrers import referrers_tag
from tests.installation import Installation
from tests.needs import require
from tests.registries import Server, docker_registry, oci_registry

from .conftest import Stack

pytestmark = pytest.mark.xdist_group("image")

STACK = """\
stack: shop
registry: {host}/{folder}
services:
  api: {{build: ./api, command: python app.py, route: /}}
environments:
  production: {{target: kubernetes, domain: shop.example}}
"""


@pytest.fixture
def shop(stack: Stack, tmp_path: Path) -> Stack:
    text = STACK.format(host=stack.server.host, folder=tmp_path.name)
    stack.write({"lapwing.yaml": text, "api/app.py": "", "api/requirements.txt": ""})
    return stack


def push(server: Server, repository: str, tag: str, day: int) -> str:
    """Push a small image of a day of October."""
    created = f"2026-10-{day:02}T00:00:00Z"
    pushed = server.push_image(repository, tag, [os.urandom(100)], created=created)
    return str(pushed["digest"])


def commit(
    installation: Installation,
    image: str,
    outcome: str = "succeeded",
    kind: ServiceKind = "web",
) -> None:
    """Record a deployment of an image to production."""
    desired = DesiredRepository(installation.settings.desired)
    desired.ensure()
    document = Document(
        stack="shop",
        environment="production",
        target="kubernetes",
        deployment=Deployment(actor="tester"),
        services={"api": Service(kind=kind, release="api", revision="abc", image=image)},
    )
    head = desired.commit(document, expected=desired.newest("shop", "production"))
    desired.record_outcome(head, outcome)


def prune(stack: Stack, *arguments: str) -> dict[str, Any]:
    """Prune; returns the decisions by digest."""
    found = stack.installation.json("image", "prune", *arguments)
    [repository] = found["repositories"]
    return {each["digest"]: each for each in repository["manifests"]}


def test_old_images_are_deleted_but_not_what_is_deployed(shop: Stack, tmp_path: Path) -> None:
    server, repository = shop.server, f"{tmp_path.name}/api"
    old = [push(server, repository, tag, 1) for tag in ("deployed-other", "v0")]
    digests = [push(server, repository, f"v{day}", day) for day in range(1, 16)]
    name = f"{server.host}/{repository}"
    commit(shop.installation, f"{name}@{digests[0]}")
    commit(shop.installation, f"{name}:v2")
    commit(shop.installation, f"{name}@{digests[2]}", "failed")
    commit(shop.installation, f"{name}@{digests[3]}")
    planned = prune(shop, "--dry-run")
    expected = [digests[4], digests[2], old[1]]
    assert [d for d, each in planned.items() if not each["keep"]] == expected
    assert planned[old[0]]["reason"] == "tagged deployed-other"
    assert planned[digests[3]]["reason"] == "deployed in shop/production"
    assert planned[digests[1]]["reason"] == "rollback target of shop/production"
    assert not any(each["deleted"] for each in planned.values())
    assert server.whole(repository, "v3") == digests[2]

    text = shop.installation.run("image", "prune").stdout
    assert f"deleted  api@{digests[2][:19]} (v3): not one of the newest 10" in text
    assert f"keep     api@{digests[3][:19]} (v4): deployed in shop/production" in text
    for number, digest in enumerate(digests):
        found = server.manifest(repository, digest)
        assert (found is None) == (number in (2, 4)), number
    assert all(each["keep"] for each in prune(shop).values())


@pytest.mark.parametrize(("kind", "kept"), [("static", True), ("web", False)])
def test_image_whose_hashed_files_are_served_is_kept(
    shop: Stack, tmp_path: Path, kind: ServiceKind, kept: bool
) -> None:
    repository = f"{tmp_path.name}/api"
    digests = [push(shop.server, repository, f"v{day}", day) for day in range(1, 13)]
    for number in (0, *([10, 11] * 6)):
        image = f"{shop.server.host}/{repository}@{digests[number]}"
        commit(shop.installation, image, kind=kind)
    found = prune(shop, "--dry-run")
    assert [d for d in digests[:3] if found[d]["keep"]] == [*digests[:kept], digests[2]]
    if kept:
        assert found[digests[0]]["reason"] == "its hashed files are served in shop/production"


def test_image_of_the_past_without_a_tag_is_found_and_deleted(shop: Stack, tmp_path: Path) -> None:
    server, repository = shop.server, f"{tmp_path.name}/api"
    name = f"{server.host}/{repository}"
    past = push(server, repository, "latest", 1)
    commit(shop.installation, f"{name}@{past}", "failed")
    commit(shop.installation, f"{name}@{push(server, repository, 'latest', 2)}")
    found = prune(shop)
    assert found[past]["deleted"]
    assert found[past]["reason"] == "older than 30 days"
    assert server.manifest(repository, past) is None


@pytest.mark.parametrize("api", [True, False])
def test_index_goes_with_its_parts_and_its_signature(
    shop: Stack, tmp_path: Path, api: bool
) -> None:
    registry = (
        oci_registry(require("oci-registry"), tmp_path / "oci")
        if api
        else docker_registry(require("registry"), tmp_path / "docker")
    )
    with registry as server:
        trees = [push_tree(server, f"v{day}", day, api=api) for day in range(1, 14)]
        shop.write({"lapwing.yaml": STACK.format(host=server.host, folder="team")})
        found = prune(shop, "--not-deployed", "production")
        deleted = {digest for digest, each in found.items() if each["deleted"]}
        expected = {digest for tree in trees[:3] for digest in tree}
        assert expected <= deleted
        kept = {digest for tree in trees[3:] for digest in tree}
        assert kept <= set(found) - deleted
        for digest in expected | kept:
            assert (server.manifest("team/api", digest) is None) == (digest in expected)
        assert all(each["keep"] for each in prune(shop, "--not-deployed", "production").values())


def push_tree(server: Server, tag: str, day: int, *, api: bool) -> list[str]:
    """Push an index of two platforms with a signature; returns their digests."""
    created = f"2026-10-{day:02}T00:00:00Z"
    children = [
        server.push_image("team/api", "", [os.urandom(50)], each, created)
        for each in ("amd64", "arm64")
    ]
    index = server.push_index("team/api", tag, children)
    signature = server.push_referrer("team/api", index, "application/vnd.test", os.urandom(10))
    if not api:
        server.push_index("team/api", referrers_tag(index["digest"]), [signature])
    return [index["digest"], signature["digest"], *(child["digest"] for child in children)]


def fail(stack: Stack, *arguments: str) -> str:
    done = stack.installation.call("image", "prune", *arguments)
    assert done.returncode in (1, 2), done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_environment_that_is_not_known_here_prevents_deletions(shop: Stack) -> None:
    said = fail(shop)
    assert "No deployment of shop/production is known here" in said
    assert "`--not-deployed production`" in said
    shop.installation.run("image", "prune", "--not-deployed", "production")


def test_registry_that_refuses_deletions_is_named(shop: Stack, tmp_path: Path) -> None:
    with docker_registry(require("registry"), tmp_path / "other", deletes=False) as server:
        for day in range(1, 13):
            push(server, "team/api", f"v{day}", day)
        said = fail(shop, "--not-deployed", "production", "--registry", f"{server.host}/team")
        assert f"{server.host} does not allow images to be deleted (405)." in said
        assert "REGISTRY_STORAGE_DELETE_ENABLED=true" in said


def test_invalid_desired_state_prevents_deletions(shop: Stack, tmp_path: Path) -> None:
    commit(shop.installation, f"{shop.server.host}/{tmp_path.name}/api:1")
    clone = tmp_path / "clone"
    shop.installation.git("clone", "-q", str(shop.installation.settings.desired), str(clone))
    (clone / "shop/production/document.json").write_text("{}")
    shop.installation.git("-C", str(clone), "commit", "-qam", "broken")
    shop.installation.git("-C", str(clone), "push", "-q")
    assert "shop/production/document.json in commit" in fail(shop)
