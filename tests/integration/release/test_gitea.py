"""Releases on a real Gitea, as a team makes them."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.gitea import OWNER, Gitea
from tests.integration.release.conftest import Project, outcomes
from tests.integration.release.test_chart_push import check_signed_chart

pytestmark = [pytest.mark.xdist_group("gitea")]


def repo(project: Project) -> str:
    return project.git("remote", "get-url", "origin").removesuffix(".git").rpartition("/")[2]


def published(forge: Gitea, project: Project, tag: str) -> dict[str, Any]:
    """The release, without the times: Gitea takes the tag's when it looks at what was pushed."""
    found = forge.api("GET", f"/repos/{OWNER}/{repo(project)}/releases/tags/{tag}")
    return {key: value for key, value in found.items() if not key.endswith("_at")}


def test_releases_along_a_history(forge: Gitea, project: Project) -> None:
    """Merges of features, plain commits and documentation, each pushed and released."""
    project.push()
    first = project.release()
    assert (first["previous"], first["bump"], first["tag"]) == ("v0.0.0", "patch", "v0.0.1")
    assert set(outcomes(first).values()) == {"done"}, first

    project.commit("Explain *everything* to @all", docs__guide="words")
    project.write("README.md", "words")
    project.commit("Document")
    project.push()
    skipped = project.release()
    assert (skipped["skipped"], skipped["tag"], skipped["steps"]) == (True, None, [])
    assert skipped["reason"] == "Only documentation changed since v0.0.1."

    project.merge("fix/typo", code="1")
    project.push()
    assert project.release()["tag"] == "v0.0.2"

    project.merge("feature/login", code="2", more="1")
    project.push()
    major = project.release()
    assert (major["previous"], major["bump"], major["tag"]) == ("v0.0.2", "major", "v1.0.0")
    assert "feature/login" in major["reason"]

    project.commit("Change something", code="3")
    project.push()
    assert project.release()["tag"] == "v1.0.1"
    listed = forge.api("GET", f"/repos/{OWNER}/{repo(project)}/releases")
    assert [r["tag_name"] for r in listed] == ["v1.0.1", "v1.0.0", "v0.0.2", "v0.0.1"]
    assert not any(r["draft"] for r in listed)


def test_published_files_and_notes(forge: Gitea, project: Project) -> None:
    """The tag, the notes and the files are what they say."""
    project.push()
    project.release()
    project.merge("feature/basket", code="1")
    head = project.git("rev-parse", "HEAD")
    project.push()
    project.release()
    release = published(forge, project, "v1.0.0")
    assert "feature/basket" in release["body"]
    assert "compare/v0.0.1...v1.0.0" in release["body"]
    tag = forge.api("GET", f"/repos/{OWNER}/{repo(project)}/tags/v1.0.0")
    assert tag["commit"]["sha"] == head
    assert project.git("tag") == ""  # It is at the remote only.
    project.git("fetch", "-q", "origin", "tag", "v1.0.0")
    assert project.git("cat-file", "-t", "v1.0.0") == "tag"

    files = {a["name"]: forge.client.get(a["browser_download_url"]) for a in release["assets"]}
    assert set(files) == {"shop-1.0.0.tgz", "shop-1.0.0.tgz.sha256", "shop-1.0.0.cdx.json"}
    package = files["shop-1.0.0.tgz"].content
    line = f"{hashlib.sha256(package).hexdigest()}  shop-1.0.0.tgz\n"
    assert files["shop-1.0.0.tgz.sha256"].text == line
    with tarfile.open(fileobj=io.BytesIO(package)) as archive:
        about = yaml.safe_load(archive.extractfile("shop/Chart.yaml").read())
    assert (about["version"], about["appVersion"]) == ("1.0.0", "1.0.0")
    assert json.loads(files["shop-1.0.0.cdx.json"].content)["bomFormat"] == "CycloneDX"


def test_second_run_changes_nothing(forge: Gitea, project: Project) -> None:
    """A second run finds everything, with and without the tag in the clone."""
    project.push()
    project.release()
    before = published(forge, project, "v0.0.1")
    again = project.release()
    assert again["tag"] == "v0.0.1"
    assert set(outcomes(again).values()) == {"done", "present"}
    done = [name for name, outcome in outcomes(again).items() if outcome == "done"]
    assert done == ["chart", "sbom"]  # They are made from the commit, and change nothing.
    assert published(forge, project, "v0.0.1") == before
    project.git("fetch", "-q", "--tags", "origin")
    fetched = project.release()
    assert outcomes(fetched)["tag"] == "present"
    assert published(forge, project, "v0.0.1") == before


def test_dry_run_changes_nothing(forge: Gitea, project: Project) -> None:
    """It tells each step that the run after it then does."""
    project.push()
    dry = project.release("--dry-run")
    assert set(outcomes(dry).values()) == {"planned"}
    assert project.git("tag") == ""
    assert forge.api("GET", f"/repos/{OWNER}/{repo(project)}/tags") == []
    real = project.release()
    assert list(outcomes(real)) == list(outcomes(dry))
    assert {k: real[k] for k in ("previous", "bump", "tag", "reason")} == {
        k: dry[k] for k in ("previous", "bump", "tag", "reason")
    }


def test_chart_is_signed_in_the_registry_of_gitea(forge: Gitea, tmp_path: Path) -> None:
    token = forge.new_token("charts", "write:package")
    check_signed_chart(tmp_path, f"{forge.host}/{OWNER.lower()}", LAPWING_REGISTRY_TOKEN=token)
