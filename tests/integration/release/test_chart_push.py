"""The chart of a release in the registry, pulled by the real helm, with what refers to it."""

from __future__ import annotations

import json
import os
import subprocess
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

ALL = {
    "simple",
    "https://sigstore.dev/cosign/sign/v1",
    "https://slsa.dev/provenance/v1",
    "https://cyclonedx.org/bom",
}
"""What is signed, by the type of the predicate."""
FILE = "project: shop\nregistry: {host}/{folder}\nrelease: {{forge: none, chart: chart}}\n"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with docker_registry(require("registry"), tmp_path_factory.mktemp("registry")) as server:
        yield server


def test_chart_is_pushed_for_helm(registry: Server, tmp_path: Path) -> None:
    helm = require("helm")
    project = project_of(tmp_path, FILE.format(host=registry.host, folder="first"))
    dry = project.release("--dry-run")
    assert (outcomes(dry)["chart registry"], outcomes(dry)["push chart"]) == ("planned", "planned")
    assert registry.manifest("first/charts/shop", "0.0.1") is None

    first = project.release()
    assert outcomes(first)["push chart"] == "done"
    registry.whole("first/charts/shop", "0.0.1")
    documents = {}
    for digest in referrers(project, f"{registry.host}/first/charts/shop:0.0.1"):
        described = registry.manifest("first/charts/shop", digest)
        content = registry.blob("first/charts/shop", described["layers"][0]["digest"])
        documents[described["artifactType"]] = json.loads(content)
    bill = documents.pop("application/vnd.cyclonedx+json")
    assert bill["metadata"]["component"]["version"] == "0.0.1"
    [origin] = documents.values()
    [source] = origin["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert source["digest"] == {"gitCommit": project.git("rev-parse", "HEAD")}
    pulled = tmp_path / "pulled"
    pulled.mkdir()
    command = [helm, "pull", f"oci://{registry.host}/first/charts/shop", "--version", "0.0.1"]
    environ = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [*command, "--plain-http", "-d", str(pulled)],
        capture_output=True,
        text=True,
        check=False,
        env=environ,
    )
    assert done.returncode == 0, done.stderr
    chart = str(pulled / "shop-0.0.1.tgz")
    shown = subprocess.run(
        [helm, "template", "x", chart], capture_output=True, text=True, check=True, env=environ
    )
    assert 'greeting: "hello"' in shown.stdout

    assert outcomes(project.release())["push chart"] == "present"


def test_other_chart_of_the_version_is_found_before_the_tag(
    registry: Server, tmp_path: Path
) -> None:
    registry.push_image("second/charts/shop", "0.0.1", [b"another chart"])
    project = project_of(tmp_path, FILE.format(host=registry.host, folder="second"))
    broken = project.release(status=1)
    assert "already exists, and is another chart" in broken["error"]["message"]
    assert project.git("ls-remote", "--tags", "origin") == ""


def test_missing_write_access_is_found_before_the_tag(tmp_path: Path) -> None:
    program = require("registry")
    with docker_registry(program, tmp_path / "registry", read_only=True) as server:
        project = project_of(tmp_path, FILE.format(host=server.host, folder="third"))
        broken = project.release(status=1)
    assert "is read-only" in broken["error"]["message"]
    assert project.git("ls-remote", "--tags", "origin") == ""


def test_missing_signing_key_is_found_before_the_tag(registry: Server, tmp_path: Path) -> None:
    private, public = new_key(tmp_path)
    file = FILE.format(host=registry.host, folder="fourth").replace("project: ", "stack: ")
    services = "services: {api: {build: ., command: run, route: /}}\n"
    project = project_of(tmp_path, FILE.format(host=registry.host, folder="fourth"))
    project.commit("Sign", **{"lapwing.yaml": file + services + signing(public)})
    project.push()
    broken = project.release(status=1)
    assert broken["error"]["message"].startswith("Images and charts have to be signed")
    assert "LAPWING_SIGNING_KEY" in broken["error"]["hint"]
    assert project.git("ls-remote", "--tags", "origin") == ""
    key = private.read_text()
    assert outcomes(project.release(LAPWING_SIGNING_KEY=key))["push chart"] == "done"
    assert outcomes(project.release())["push chart"] == "present"
    checks = verified(project, f"{registry.host}/fourth/charts/shop:0.0.1")
    assert checks == {"signature": True, "provenance": True, "sbom": True}


def test_chart_is_signed_by_the_key_of_images(server: Server, tmp_path: Path) -> None:
    check_signed_chart(tmp_path, f"{server.host}/team")


def check_signed_chart(folder: Path, registry: str, **environ: str) -> None:
    private, public = new_key(folder)
    host, _, path = registry.partition("/")
    project = project_of(folder, FILE.format(host=host, folder=path))
    environ["LAPWING_SIGNING_KEY"] = private.read_text()
    done = project.release(**environ)
    assert outcomes(done)["push chart"] == "done"
    assert private.read_text().splitlines()[1] not in json.dumps(done)
    reference = f"{registry}/charts/shop:0.0.1"
    # The SBOM; bundles with the signature, the provenance and the SBOM; the older signature.
    found = referrers(project, reference)
    assert len(found) == 5
    assert len([name for name in found if name.endswith(".sig")]) == 1
    checks = verified(project, reference, "--key", str(public))
    assert checks == {"signature": True, "provenance": True, "sbom": True}
    _, other = new_key(folder, "other")
    assert not any(verified(project, reference, "--key", str(other)).values())


@pytest.mark.parametrize("pushed", [0, 2, 5])
def test_signed_chart_completes_after_kill(pushed: int, registry: Server, tmp_path: Path) -> None:
    """kill -9 after some of the manifests: referrers, their index, the signature, the chart."""
    private, public = new_key(tmp_path)
    key = private.read_text()
    with proxy(registry.host) as front:
        folder = f"killed{pushed}"
        project = project_of(tmp_path, FILE.format(host=front.host, folder=folder))
        held = front.fail("hold", "PUT", "/manifests/", after=pushed, times=100)
        project.release_killed(
            lambda: held.happened > 0, "the push of the chart", LAPWING_SIGNING_KEY=key
        )
        front.faults.clear()
        assert registry.manifest(f"{folder}/charts/shop", "0.0.1") is None
        assert outcomes(project.release(LAPWING_SIGNING_KEY=key))["push chart"] == "done"
        name = f"{front.host}/{folder}/charts/shop:0.0.1"
        assert len(referrers(project, name)) == 5
        assert all(verified(project, name, "--key", str(public)).values())
        held.gate.set()


def test_openssl_verifies_chart(server: Server, tmp_path: Path) -> None:
    private, public = new_key(tmp_path)
    project = project_of(tmp_path, FILE.format(host=server.host, folder="team"))
    project.release(LAPWING_SIGNING_KEY=private.read_text())
    found = signed_documents(server, "team/charts/shop", "0.0.1", public)
    assert set(found) == ALL
    _, other = new_key(tmp_path, "other")
    assert not signed_documents(server, "team/charts/shop", "0.0.1", other)


def test_cosign_verifies_chart(server: Server, tmp_path: Path) -> None:
    program = require("cosign")
    private, public = new_key(tmp_path)
    project = project_of(tmp_path, FILE.format(host=server.host, folder="team"))
    project.release(LAPWING_SIGNING_KEY=private.read_text())
    run = cosign(program, tmp_path, public)
    name = f"{server.host}/team/charts/shop:0.0.1"
    done = run("verify", name)
    assert done.returncode == 0, done.stderr
    for kind in ("slsaprovenance1", "cyclonedx"):
        done = run("verify-attestation", "--type", kind, name, bundles=True)
        assert done.returncode == 0, done.stderr
    public.write_bytes(new_key(tmp_path, "other")[1].read_bytes())
    assert run("verify", name).returncode != 0
