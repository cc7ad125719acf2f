"""What is pushed beside an image, in registries with and without the referrers API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lapwing.registry.referrers import referrers_tag
from tests.needs import require
from tests.registries import Server, digest_of, docker_registry, oci_registry

from .conftest import VERSION, Stack

pytestmark = pytest.mark.xdist_group("image")

SBOM, STATEMENT = "application/vnd.cyclonedx+json", "application/vnd.in-toto+json"
REMOTE = "https://robot:t0ken@git.example/shop.git"
PACKAGES = {"web/index.html": "<p>hello</p>\n", "web/requirements.txt": "markupsafe==3.0.2\n"}


@contextmanager
def registry(api: bool, folder: Path) -> Iterator[Server]:
    if api:
        with oci_registry(require("oci-registry"), folder) as server:
            yield server
    else:
        with docker_registry(require("registry"), folder) as server:
            yield server


def write(stack: Stack, server: Server, *lines: str) -> None:
    """A stack with a static service, which needs no base image."""
    text = f"stack: shop\nregistry: {server.host}/team\nservices:\n"
    text += "  web: {build: ./web, static: ., route: /}\n" + "".join(f"{line}\n" for line in lines)
    stack.write({"lapwing.yaml": text, **PACKAGES})
    stack.installation.git("remote", "add", "origin", REMOTE)


def referrers(server: Server, digest: str, *, api: bool, name: str = "team/web") -> dict[str, Any]:
    """The documents that refer to an image, by their type."""
    if api:
        digests = server.referrers(name, digest)
    else:
        index = server.manifest(name, referrers_tag(digest)) or {"manifests": []}
        digests = [each["digest"] for each in index["manifests"]]
    found = {}
    for each in digests:
        manifest = server.manifest(name, each)
        assert manifest is not None
        assert manifest["subject"]["digest"] == digest
        content = server.blob(name, manifest["layers"][0]["digest"])
        assert content is not None
        found[manifest["artifactType"]] = json.loads(content)
    return found


@pytest.mark.parametrize("api", [True, False])
def test_sbom_and_provenance_are_pushed_once(stack: Stack, tmp_path: Path, api: bool) -> None:
    with registry(api, tmp_path / "registry") as server:
        write(stack, server)
        platforms = ("--platform", "linux/amd64", "--platform", "linux/arm64")
        first = stack.build("web", "--push", *platforms)["web"]
        found = referrers(server, first["digest"], api=api)
        assert set(found) == {SBOM, STATEMENT}
        assert {each["artifact_type"] for each in first["referrers"]} == set(found)
        stack.write({"README.md": "another commit"})
        again = stack.build("web", "--push", *platforms)["web"]
        assert again["referrers"] == first["referrers"]
        assert len(referrers(server, first["digest"], api=api)) == 2


def test_provenance_names_source_lock_files_and_builder(stack: Stack, server: Server) -> None:
    write(stack, server)
    commit = stack.installation.git("rev-parse", "HEAD").strip()
    digest = stack.build("web", "--push")["web"]["digest"]
    statement = referrers(server, digest, api=False)[STATEMENT]
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    [subject] = statement["subject"]
    assert subject["name"] == f"{server.host}/team/web"
    assert "sha256:" + subject["digest"]["sha256"] == digest
    definition = statement["predicate"]["buildDefinition"]
    source, lock = definition["resolvedDependencies"]
    assert source["uri"] == "git+https://git.example/shop.git"
    assert definition["externalParameters"]["source"] == source["uri"]
    assert source["digest"] == {"gitCommit": commit}
    expected = digest_of(PACKAGES["web/requirements.txt"].encode())
    assert lock == {
        "name": "requirements.txt",
        "digest": {"sha256": expected.removeprefix("sha256:")},
    }
    assert "t0ken" not in json.dumps(statement)
    assert statement["predicate"]["runDetails"]["builder"]["id"]


def test_sbom_has_the_packages_of_the_lock_file(stack: Stack, server: Server) -> None:
    write(stack, server)
    digest = stack.build("web", "--push")["web"]["digest"]
    sbom = referrers(server, digest, api=False)[SBOM]
    assert [c["purl"] for c in sbom["components"] if "purl" in c] == ["pkg:pypi/markupsafe@3.0.2"]
    assert sbom["metadata"]["component"]["version"] == digest


def test_sbom_has_the_packages_that_the_locked_ones_need(stack: Stack, server: Server) -> None:
    base = f"{server.host}/library/python:{VERSION}-slim"
    service = f"  page: {{build: {{path: ./page, base: '{base}'}}, command: python -m flask}}"
    write(stack, server, service)
    stack.write({"page/requirements.txt": "jinja2==3.1.6\n"})
    digest = stack.build("page", "--push")["page"]["digest"]
    sbom = referrers(server, digest, api=False, name="team/page")[SBOM]
    packages = [c["purl"].partition("@")[0] for c in sbom["components"] if "purl" in c]
    assert packages[:2] == ["pkg:pypi/jinja2", "pkg:pypi/markupsafe"]
    assert packages[2].startswith("pkg:docker/")


def test_no_attestations_pushes_the_image_alone(stack: Stack, server: Server) -> None:
    write(stack, server)
    stack.write({"web/other.html": "no attestations"})
    built = stack.build("web", "--push", "--no-attestations")["web"]
    assert built["referrers"] == []
    assert referrers(server, built["digest"], api=False) == {}
