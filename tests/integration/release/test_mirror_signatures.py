"""Mirrored images have a provenance and the team's signatures as referrers, before their tags."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faulty import proxy
from tests.integration.release.conftest import (
    outcomes,
    project_of,
    referrers,
    verified,
)
from tests.needs import require
from tests.registries import Server, docker_registry
from tests.signing import cosign, new_key, signed_documents, signing

PROVENANCE = "https://slsa.dev/provenance/v1"
SIGNED = "https://sigstore.dev/cosign/sign/v1"
FILE = """\
project: shop
registry: {team}/team
release: {{forge: none}}
mirror: ['{upstream}/upstream/fleet:v4.93.0']
"""


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with docker_registry(require("registry"), tmp_path_factory.mktemp("upstream")) as server:
        server.push_image("upstream/fleet", "v4.93.0", [os.urandom(1 << 16)])
        yield server


def test_unsigned_provenance_names_source(upstream: Server, server: Server, tmp_path: Path) -> None:
    project = project_of(tmp_path, FILE.format(team=server.host, upstream=upstream.host))
    assert outcomes(project.release())["mirror upstream/fleet"] == "done"
    name = f"{server.host}/team/fleet:4.93.0"
    [referrer] = referrers(project, name)
    content = server.manifest("team/fleet", referrer)
    assert content is not None
    statement = json.loads(server.blob("team/fleet", content["layers"][0]["digest"]) or b"")
    digest = server.whole("team/fleet", "4.93.0").removeprefix("sha256:")
    assert statement["subject"][0]["digest"] == {"sha256": digest}
    [source] = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert source["name"] == f"{upstream.host}/upstream/fleet:v4.93.0"
    assert source["digest"] == {"sha256": digest}

    # The next release mirrors the same image: one provenance, and the tags of both versions.
    project.commit("More", more="x")
    project.push()
    assert outcomes(project.release())["mirror upstream/fleet"] == "done"
    assert referrers(project, f"{server.host}/team/fleet:0.0.2") == [referrer]


def test_mirrored_image_is_signed_by_the_key_of_images(
    upstream: Server, server: Server, tmp_path: Path
) -> None:
    private, public = new_key(tmp_path)
    file = FILE.format(team=server.host, upstream=upstream.host)
    stack = file.replace("project: ", "stack: ").replace("none}", "none, chart: false}")
    services = "services: {api: {build: ., command: run, route: /}}\n"
    project = project_of(tmp_path, file)
    project.commit("Sign", **{"lapwing.yaml": stack + services + signing(public)})
    project.push()
    broken = project.release(status=1)
    assert list(outcomes(broken)) == ["registry"]
    assert broken["error"]["message"].startswith("Images and charts have to be signed")
    assert project.git("ls-remote", "--tags", "origin") == ""
    assert server.manifest("team/fleet", "latest") is None

    done = project.release(LAPWING_SIGNING_KEY=private.read_text())
    assert outcomes(done)["mirror upstream/fleet"] == "done"
    proven = signed_documents(server, "team/fleet", "4.93.0", public)
    assert set(proven) == {"simple", SIGNED, PROVENANCE}
    name = f"{server.host}/team/fleet:latest"
    assert verified(project, name) == {"signature": True, "provenance": True}
    seen = project.call("image", "verify", name).stdout
    assert f"copy of {upstream.host}/upstream/fleet:v4.93.0@sha256:" in seen
    _, other = new_key(tmp_path, "other")
    assert not any(verified(project, name, "--key", str(other)).values())
    assert outcomes(project.release())["mirror upstream/fleet"] == "present"  # Without the key.


def test_signed_copy_of_selected_platforms(
    upstream: Server, server: Server, tmp_path: Path
) -> None:
    """The copy has another digest than its source: the signature names the copy's, the provenance
    both."""
    private, public = new_key(tmp_path)
    images = [
        upstream.push_image("upstream/multi", "", [name.encode()], name)
        for name in ("amd64", "arm64", "s390x")
    ]
    source = upstream.push_index("upstream/multi", "v4.93.0", images)["digest"]
    entry = (
        f"{{image: {upstream.host}/upstream/multi:v4.93.0, platforms: [linux/amd64, linux/arm64]}}"
    )
    file = FILE.format(team=server.host, upstream=upstream.host)
    file = file.replace(f"'{upstream.host}/upstream/fleet:v4.93.0'", entry)
    project = project_of(tmp_path, file)
    project.release(LAPWING_SIGNING_KEY=private.read_text())
    assert server.whole("team/multi", "latest") != source
    origin = signed_documents(server, "team/multi", "latest", public)[PROVENANCE]
    build = origin["predicate"]["buildDefinition"]
    assert build["externalParameters"]["platforms"] == ["linux/amd64", "linux/arm64"]
    assert "sha256:" + build["resolvedDependencies"][0]["digest"]["sha256"] == source


@pytest.mark.parametrize("pushed", [0, 1, 3])
def test_signed_mirror_completes_after_kill(pushed: int, upstream: Server, tmp_path: Path) -> None:
    """kill -9 after some of the manifests: no tag names an image that is not signed."""
    private, public = new_key(tmp_path)
    key = private.read_text()
    with docker_registry(require("registry"), tmp_path / "team") as team, proxy(team.host) as front:
        project = project_of(tmp_path, FILE.format(team=front.host, upstream=upstream.host))
        held = front.fail("hold", "PUT", "/manifests/", after=pushed, times=100)
        project.release_killed(
            lambda: held.happened > 0, "the push of the mirrored image", LAPWING_SIGNING_KEY=key
        )
        front.faults.clear()
        assert team.manifest("team/fleet", "4.93.0") is None
        assert outcomes(project.release(LAPWING_SIGNING_KEY=key))["mirror upstream/fleet"] == "done"
        assert set(signed_documents(team, "team/fleet", "0.0.1", public)) == {
            "simple", SIGNED, PROVENANCE,
        }  # fmt: skip
        held.gate.set()


def test_cosign_verifies_mirrored_image(upstream: Server, server: Server, tmp_path: Path) -> None:
    program = require("cosign")
    private, public = new_key(tmp_path)
    project = project_of(tmp_path, FILE.format(team=server.host, upstream=upstream.host))
    project.release(LAPWING_SIGNING_KEY=private.read_text())
    run = cosign(program, tmp_path, public)
    name = f"{server.host}/team/fleet:4.93.0"
    done = run("verify", name)
    assert done.returncode == 0, done.stderr
    done = run("verify-attestation", "--type", "slsaprovenance1", name, bundles=True)
    assert done.returncode == 0, done.stderr
