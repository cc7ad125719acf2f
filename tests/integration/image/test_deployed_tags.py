"""The tags of the images that an environment runs, in real registries."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lapwing.plan.model import Deployment, Document, Service
from lapwing.settings import read
from lapwing.targets.deployed_tags import update_tags_in
from lapwing.targets.planned import PlannedChange
from tests.installation import free_port
from tests.needs import require
from tests.registries import Server, docker_registry, oci_registry

pytestmark = pytest.mark.xdist_group("image")
TAG = "deployed-production"


@pytest.fixture(params=["docker-registry", "oci-registry"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    is_docker = request.param == "docker-registry"
    program = require("registry" if is_docker else "oci-registry")
    run = docker_registry if is_docker else oci_registry
    with run(program, tmp_path / "registry") as running:
        yield running


def push(server: Server, tag: str) -> str:
    """Push an image of the service api; returns its reference by digest."""
    pushed = server.push_image("team/api", tag, [os.urandom(100)])
    return f"{server.host}/team/api@{pushed['digest']}"


def document(image: str | None) -> Document:
    """What production runs: the image, and one of a publisher."""
    names = {"api": image, "edge": f"docker.io/envoyproxy/envoy@sha256:{'0' * 64}"}
    return Document(
        stack="shop",
        environment="production",
        target="kubernetes",
        deployment=Deployment(actor="tester"),
        services={
            name: Service(kind="web", release=name, revision="abc", image=reference)
            for name, reference in names.items()
            if reference is not None
        },
    )


def update(server: Server, image: str | None, before: str | None) -> list[str]:
    """Update the tags after a deployment; returns the warnings."""
    warnings: list[str] = []
    change = PlannedChange(document(image), None, document(before))
    environ = {"HOME": str(server.storage), "PATH": os.environ["PATH"]}
    update_tags_in(f"{server.host}/team", change, read(environ), warnings.append)
    return warnings


def tagged(server: Server) -> str | None:
    found = server.manifest("team/api", TAG)
    return None if found is None else f"{server.host}/team/api@{found['_digest']}"


def test_tag_moves_with_each_deployment_and_is_removed_with_the_service(server: Server) -> None:
    first, second = push(server, "v1"), push(server, "v2")
    assert update(server, first, None) == []
    assert tagged(server) == first
    assert update(server, second, first) == []
    assert tagged(server) == second
    assert update(server, first, second) == []
    assert tagged(server) == first
    assert update(server, None, first) == []
    assert tagged(server) is None
    for tag, image in (("v1", first), ("v2", second)):
        assert f"@{server.whole('team/api', tag)}" in image
    assert update(server, None, first) == [], "it is removed already"


def test_registry_that_refuses_is_a_warning(tmp_path: Path) -> None:
    registry = require("registry")
    with docker_registry(registry, tmp_path / "a") as server:
        first, second = push(server, "v1"), push(server, "v2")
        update(server, first, None)
    with docker_registry(registry, tmp_path / "a", read_only=True) as server:
        first, second = (f"{server.host}/{i.partition('/')[2]}" for i in (first, second))
        [warning] = update(server, second, first)
        assert warning.startswith(f"warning: {server.host}/team/api is not tagged {TAG}: ")
        assert tagged(server) == first
    with docker_registry(registry, tmp_path / "a", deletes=False) as server:
        first = f"{server.host}/{first.partition('/')[2]}"
        [warning] = update(server, None, first)
        assert warning.startswith(f"warning: {server.host}/team/api is still tagged {TAG}: ")
        assert tagged(server) == first


def test_registry_that_is_unreachable_is_a_warning(tmp_path: Path) -> None:
    image = f"127.0.0.1:{free_port()}/team/api@sha256:{'1' * 64}"
    warnings: list[str] = []
    change = PlannedChange(document(image), None)
    settings = read({"HOME": str(tmp_path), "PATH": os.environ["PATH"]})
    update_tags_in(image.partition("/api")[0], change, settings, warnings.append)
    assert len(warnings) == 1
    assert f"is not tagged {TAG}" in warnings[0]
