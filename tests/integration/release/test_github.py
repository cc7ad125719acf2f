"""Releases on GitHub: every request and answer is held to GitHub's published description."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.github import TOKEN, Description, GitHub, github
from tests.integration.release.conftest import Project, outcomes
from tests.needs import require

FILE = "project: shop\nrelease: {{chart: chart, forge: {{kind: github, url: {address}}}}}\n"


@pytest.fixture(scope="module")
def description() -> Description:
    return Description(Path(require("github-openapi")))


@pytest.fixture
def hub(description: Description, tmp_path: Path) -> Iterator[GitHub]:
    with github(description, tmp_path / "repositories") as served:
        yield served
        assert not served.wrong, served.wrong


@pytest.fixture
def project(hub: GitHub, tmp_path: Path) -> Project:
    made = Project(tmp_path / "shop", hub.repository("Acme", "shop"), GITHUB_TOKEN=TOKEN)
    made.begin(FILE.format(address=hub.address))
    made.push()
    return made


def test_release_on_github(hub: GitHub, project: Project) -> None:
    """A draft is made, gets its files, and is published last; a second run only reads."""
    answer = project.release()
    assert set(outcomes(answer).values()) == {"done"}
    [release] = hub.releases
    assert (release["tag_name"], release["draft"]) == ("v0.0.1", False)
    assert [a["name"] for a in release["assets"]] == [
        "shop-0.0.1.tgz",
        "shop-0.0.1.tgz.sha256",
        "shop-0.0.1.cdx.json",
    ]
    methods = [method for method, _ in hub.asked if method != "GET"]
    assert methods == ["POST"] * 5 + ["PATCH"]
    hub.asked.clear()
    again = project.release()
    assert {method for method, _ in hub.asked} == {"GET"}
    assert outcomes(again)["publish"] == "present"


def test_squash_of_feature_branch_raises_major_version(hub: GitHub, project: Project) -> None:
    """The pull request of the commit is found by the API; its message does not matter."""
    project.release()
    squashed = project.commit("Add a basket (#7)", code="1")
    project.push()
    hub.merged[squashed] = "feature/basket"
    answer = project.release()
    assert (answer["tag"], answer["bump"]) == ("v1.0.0", "major")
    assert "Features" in hub.releases[-1]["body"]


def test_older_release_is_not_the_latest(hub: GitHub, project: Project) -> None:
    """A maintenance branch is released after a higher version."""
    project.release()
    file = FILE.format(address=hub.address).replace("{chart:", "{branches: [main, 0.x], chart:")
    project.git("branch", "0.x")
    project.merge("feature/basket", code="1")
    project.push()
    project.release()
    project.git("checkout", "-q", "0.x")
    project.commit("Fix", **{"lapwing-release.yaml": file})
    project.git(*project.login, "push", "-q", "origin", "0.x")
    assert project.release()["tag"] == "v0.0.2"
    assert [r["make_latest"] for r in hub.releases] == ["true", "true", "false"]


def test_immutable_releases(hub: GitHub, project: Project) -> None:
    """Where a published release takes no more files, it has them all before."""
    hub.immutable = True
    project.release()
    assert len(hub.releases[0]["assets"]) == 3
    project.release()


def test_interrupted_upload_is_deleted_and_sent_again(hub: GitHub, project: Project) -> None:
    """What is left of a broken upload is deleted, and the file sent again."""
    hub.break_upload = True
    project.release()
    [release] = hub.releases
    assert [a["state"] for a in release["assets"]] == ["uploaded"] * 3
    assert [m for m, _ in hub.asked if m == "DELETE"] == ["DELETE"]


def test_different_file_of_same_size_is_refused(hub: GitHub, project: Project) -> None:
    """GitHub tells digests, so a file of the same size is seen to be another."""
    project.release()
    hub.releases[0]["assets"][0]["digest"] = "sha256:" + "0" * 64
    broken = project.release(status=1)
    assert "another shop-0.0.1.tgz" in broken["error"]["message"]


def test_token_is_not_sent_to_other_host(hub: GitHub, project: Project) -> None:
    project.release()
    hub.releases[0]["assets"].clear()
    hub.releases[0]["upload_url"] = "https://evil.example/upload{?name}"
    broken = project.release(status=1)
    assert "upload address on another host" in broken["error"]["message"]


def test_invalid_token(hub: GitHub, project: Project) -> None:
    broken = project.release(status=1, LAPWING_FORGE_TOKEN="ghp_wrong")
    assert broken["error"]["code"] == "forge-login"
    assert "ghp_wrong" not in str(broken)
    # The token of another kind of forge is never sent.
    none = project.release(status=1, GITHUB_TOKEN="", GITEA_TOKEN=TOKEN)
    assert none["error"]["code"] == "forge-login"
