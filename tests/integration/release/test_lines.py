"""Pre-releases, maintenance branches and several projects in one repository, on a real Gitea."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faulty import Proxy
from tests.gitea import OWNER, Gitea
from tests.integration.release.conftest import CHART, Project, outcomes
from tests.needs import require
from tests.registries import Server, docker_registry

pytestmark = [pytest.mark.xdist_group("gitea")]

LINES = """
project: shop
registry: {registry}/acme
release:
  policy: conventional-commits
  chart: chart
  branches: [main, {{name: next, prerelease: rc}}, 1.x]
mirror: ["{image}"]
"""
PROJECTS = """
project: shop
release:
  policy: conventional-commits
  projects:
    api: {path: services/api, chart: services/api/chart, include: [libs/common]}
    web: {path: services/web, tag: "web/v{version}"}
"""


@pytest.fixture
def registries(tmp_path: Path) -> Iterator[tuple[Server, Server]]:
    """The upstream's registry and the team's."""
    program = require("registry")
    with (
        docker_registry(program, tmp_path / "upstream") as upstream,
        docker_registry(program, tmp_path / "team") as team,
    ):
        yield upstream, team


def path(project: Project) -> str:
    """The repository in the API."""
    name = project.git("remote", "get-url", "origin").removesuffix(".git").rpartition("/")[2]
    return f"/repos/{OWNER}/{name}"


def pushed(project: Project, branch: str, message: str, **files: str) -> None:
    """Commit on a branch and push it."""
    project.git("checkout", "-q", branch)
    project.commit(message, **files)
    project.git(*project.login, "push", "-q", "origin", branch)


def test_prereleases_and_maintenance_versions_do_not_become_the_latest(
    forge: Gitea, project: Project, registries: tuple[Server, Server]
) -> None:
    upstream, team = registries
    digest = upstream.push_image("acme/proxy", "v9.1", [os.urandom(1 << 12)])["digest"]
    file = LINES.format(registry=team.host, image=f"{upstream.host}/acme/proxy:v9.1")
    project.commit("feat: begin\n\nRelease-As: 1.2.0", **{"lapwing-release.yaml": file})
    project.push()
    assert project.release()["tag"] == "v1.2.0"

    project.git("checkout", "-q", "-b", "next")
    pushed(project, "next", "feat: basket", basket="1")
    first = project.release()
    assert (first["previous"], first["bump"], first["tag"]) == ("v1.2.0", "minor", "v1.3.0-rc.1")
    pushed(project, "next", "fix: basket", basket="2")
    second = project.release()
    assert (second["bump"], second["tag"]) == ("prerelease", "v1.3.0-rc.2")
    assert project.release()["reason"] == (
        "This commit is already v1.3.0-rc.2; missing parts are added."
    )
    about = forge.api("GET", f"{path(project)}/releases/tags/v1.3.0-rc.2")
    assert about["prerelease"]
    assert not about["draft"]
    assert {a["name"] for a in about["assets"]} >= {"shop-1.3.0-rc.2.tgz"}
    assert team.whole("acme/proxy", "1.3.0-rc.2") == digest
    assert team.manifest("acme/charts/shop", "1.3.0-rc.2")
    latest = f"{path(project)}/releases/latest"
    assert forge.api("GET", latest)["tag_name"] == "v1.2.0"

    # The same commit reaches main, where it is the final version.
    project.git("checkout", "-q", "main")
    project.git("merge", "-q", "--ff-only", "next")
    project.push()
    final = project.release()
    assert (final["previous"], final["tag"]) == ("v1.2.0", "v1.3.0")
    assert "basket" in forge.api("GET", f"{path(project)}/releases/tags/v1.3.0")["body"]
    pushed(project, "main", "feat!: another basket", basket="3")
    assert project.release()["tag"] == "v2.0.0"

    # A fix of the old version is published later, and is not the latest release.
    project.git("checkout", "-q", "-b", "1.x", "main^")
    pushed(project, "1.x", "fix: basket", basket="4")
    assert project.release()["tag"] == "v1.3.1"
    assert not forge.api("GET", f"{path(project)}/releases/tags/v1.3.1")["draft"]
    assert forge.api("GET", latest)["tag_name"] == "v2.0.0"
    assert team.whole("acme/proxy", "1.3.1") == digest

    pushed(project, "1.x", "feat!: something else", basket="5")
    refused = project.release(status=1)
    assert "outside of the range of branch `1.x`" in refused["error"]["message"]
    assert not forge.api("GET", f"{path(project)}/tags?limit=50")[0]["name"].startswith("v3")


def test_projects_of_one_repository_are_released_separately(
    forge: Gitea, project: Project, tmp_path: Path
) -> None:
    charts = {f"services/api/{name}": text for name, text in CHART.items()}
    files = {"lapwing-release.yaml": PROJECTS, "libs/common/code": "0", **charts}
    project.commit("feat: begin\n\nRelease-As: 1.0.0", **files, **{"services/web/index": "1"})
    project.push()
    both = project.release()
    assert both["reason"] == "api-v1.0.0, web/v1.0.0"
    assert [p["tag"] for p in both["projects"]] == ["api-v1.0.0", "web/v1.0.0"]
    assert outcomes(both)["api: chart"] == "done"
    assert outcomes(both)["web: chart"] == "skipped"
    assert not both["skipped"]

    project.commit("fix: api", **{"services/api/main": "1"})
    project.commit("docs: web", **{"services/web/README.md": "1"})
    project.push()
    api, web = project.release()["projects"]
    assert (api["previous"], api["tag"]) == ("api-v1.0.0", "api-v1.0.1")
    assert (web["skipped"], web["reason"]) == (True, "Only documentation changed since web/v1.0.0.")
    body = forge.api("GET", f"{path(project)}/releases/tags/api-v1.0.1")
    assert "fix" not in body["body"] or "web" not in body["body"]
    assert {a["name"] for a in body["assets"]} == {
        "shop-1.0.1.tgz", "shop-1.0.1.tgz.sha256", "api-1.0.1.cdx.json"
    }  # fmt: skip

    project.commit("feat: shared", **{"libs/common/code": "1"})
    project.commit("chore: unrelated", **{"other": "1"})
    project.push()
    api, web = project.release()["projects"]
    assert (api["tag"], web["tag"]) == ("api-v1.1.0", None)
    assert web["reason"].startswith("Only documentation")


@pytest.mark.parametrize(("name", "other"), [("api", "web"), ("web", "api")])
def test_other_projects_are_released_if_one_fails(
    name: str, other: str, bad: Proxy, forge: Gitea, project: Project
) -> None:
    charts = {f"services/api/{name}": text for name, text in CHART.items()}
    files = {"lapwing-release.yaml": PROJECTS, "libs/common/code": "1", **charts}
    project.commit("feat: begin", **files, **{"services/web/index": "1"})
    project.push()
    fault = bad.fail("answer", "GET", f"/releases/tags/{name}", status=500, times=1000)
    stopped = project.release(status=1)
    assert [p["name"] for p in stopped["projects"]] == ["api", "web"]
    assert stopped["error"]["message"] == f"1 of 2 projects cannot be released: {name}."
    assert stopped["error"]["detail"].startswith(f"{name}: ")
    assert outcomes(stopped)[f"{other}: publish"] in ("done", "present")
    assert fault.happened
    bad.faults.clear()
    healed = project.release()
    assert set(outcomes(healed).values()) <= {"present", "done", "planned", "skipped"}
    assert outcomes(healed)[f"{other}: tag"] == "present"
    assert outcomes(healed)[f"{name}: tag"] == "done"
    assert outcomes(healed)[f"{name}: publish"] in ("done", "present")
