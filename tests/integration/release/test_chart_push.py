"""The chart of a release in the registry, pulled by the real helm."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.release.conftest import Project, outcomes
from tests.needs import require
from tests.registries import Server, docker_registry

FILE = "project: shop\nregistry: {host}/{folder}\nrelease: {{forge: none, chart: chart}}\n"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with docker_registry(require("registry"), tmp_path_factory.mktemp("registry")) as server:
        yield server


def project_of(folder: Path, file: str) -> Project:
    bare = folder / "origin.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(bare)], check=True)
    made = Project(folder / "shop", str(bare))
    made.begin(file)
    made.push()
    return made


def test_chart_is_pushed_for_helm(registry: Server, tmp_path: Path) -> None:
    helm = require("helm")
    project = project_of(tmp_path, FILE.format(host=registry.host, folder="first"))
    dry = project.release("--dry-run")
    assert (outcomes(dry)["chart registry"], outcomes(dry)["push chart"]) == ("planned", "planned")
    assert registry.manifest("first/charts/shop", "0.0.1") is None

    first = project.release()
    assert outcomes(first)["push chart"] == "done"
    registry.whole("first/charts/shop", "0.0.1")
    reference = f"{registry.host}/first/charts/shop:0.0.1"
    inspected = json.loads(project.call("image", "inspect", reference, "--output", "json").stdout)
    [bill] = [r["digest"] for r in inspected["referrers"]]
    described = registry.manifest("first/charts/shop", bill)
    assert described["artifactType"] == "application/vnd.cyclonedx+json"
    content = registry.blob("first/charts/shop", described["layers"][0]["digest"])
    assert json.loads(content)["metadata"]["component"]["version"] == "0.0.1"
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
