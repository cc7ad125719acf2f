"""Jobs that release at the same time, and releases that were left incomplete, on a real Gitea."""

from __future__ import annotations

import json
import subprocess
import time

import pytest

from tests.faulty import Proxy
from tests.gitea import OWNER, Gitea
from tests.integration.release.conftest import LAPWING, Project, outcomes
from tests.integration.release.test_faults import whole

pytestmark = [pytest.mark.xdist_group("gitea")]

PATIENCE_S = 120.0


def start(project: Project) -> subprocess.Popen[str]:
    """Begin a release."""
    return subprocess.Popen(
        [LAPWING, "release", "--output", "json"],
        cwd=project.folder,
        env=project.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def path(project: Project) -> str:
    """The repository in the API."""
    name = project.git("remote", "get-url", "origin").removesuffix(".git").rpartition("/")[2]
    return f"/repos/{OWNER}/{name}"


@pytest.mark.parametrize(
    ("winner", "tag", "reason"),
    [
        ("this", "v0.0.1", "This commit is already v0.0.1; missing parts are added."),
        ("older", "v0.0.2", "No merge of feature/* since v0.0.1."),
        ("newer", None, "This commit is already part of v0.0.1."),
    ],
    ids=["this", "older", "newer"],
)
def test_job_that_loses_the_version_decides_again(
    winner: str,
    tag: str | None,
    reason: str,
    bad: Proxy,
    project: Project,
) -> None:
    """Another job pushes the tag after this one has decided, on one of three commits."""
    project.commit("Second", code="1")
    newer = project.commit("Third", code="2")
    project.push()
    project.git("reset", "-q", "--hard", "HEAD^")
    other = {"older": "HEAD^", "this": "HEAD", "newer": newer}[winner]
    held = bad.fail("hold", "GET", "/releases/tags/v0.0.1")
    running = start(project)
    until = time.monotonic() + PATIENCE_S
    while not held.happened:
        assert time.monotonic() < until, "nothing was asked"
        time.sleep(0.05)
    project.git(*project.login, "push", "-q", "origin", f"{other}:refs/tags/v0.0.1")
    held.gate.set()
    out, err = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 0, out + err
    answer = json.loads(out)
    assert (answer["tag"], answer["reason"]) == (tag, reason)
    assert project.git("tag") == ""
    if tag is not None:
        assert outcomes(answer)["publish"] in ("done", "present")


def test_two_jobs_for_one_commit_make_one_release(forge: Gitea, project: Project) -> None:
    project.push()
    for running in [start(project), start(project)]:
        out, err = running.communicate(timeout=PATIENCE_S)
        assert running.returncode == 0, out + err
    whole(forge, project)


def test_file_that_was_uploaded_twice_is_removed(forge: Gitea, project: Project) -> None:
    project.push()
    project.release()
    release = forge.api("GET", f"{path(project)}/releases/tags/v0.0.1")
    assets = f"{path(project)}/releases/{release['id']}/assets"
    name = "shop-0.0.1.tgz"
    forge.api("POST", assets, params={"name": name}, files={"attachment": (name, b"again")})
    assert len(forge.api("GET", assets)) == 4
    assert outcomes(project.release())["publish"] == "done"
    whole(forge, project)


def test_incomplete_version_is_named_and_does_not_become_the_latest(
    forge: Gitea, project: Project
) -> None:
    """A job was killed after it pushed its tag; the next commit is released before it."""
    project.push()
    project.git(*project.login, "push", "-q", "origin", "HEAD:refs/tags/v0.0.1")
    project.commit("More", code="1")
    project.push()
    answer = project.release()
    assert answer["tag"] == "v0.0.2"
    [note] = [step["note"] for step in answer["steps"] if step["name"] == "previous"]
    assert "v0.0.1 is incomplete" in note
    project.git("checkout", "-q", "--detach", "HEAD^")
    assert project.release()["tag"] == "v0.0.1"
    assert forge.api("GET", f"{path(project)}/releases/latest")["tag_name"] == "v0.0.2"
    assert not forge.api("GET", f"{path(project)}/releases/tags/v0.0.1")["draft"]


@pytest.mark.parametrize("style", ["squash", "fast-forward-only", "merge"])
def test_merged_feature_branch_raises_major_version(
    style: str, forge: Gitea, project: Project
) -> None:
    """The forge is asked for the pull request: the message of the commit does not matter."""
    project.push()
    project.git("checkout", "-q", "-b", "feature/basket")
    project.commit("Add a basket", code="1")
    project.git(*project.login, "push", "-q", "origin", "feature/basket")
    about = {"head": "feature/basket", "base": "main", "title": "A basket"}
    how = {"Do": style, "MergeTitleField": "Nothing to see", "MergeMessageField": "here"}
    # Gitea processes a push, and looks for conflicts, in the background.
    for request, body, status in (("pulls", about, 201), ("pulls/1/merge", how, 200)):
        until = time.monotonic() + PATIENCE_S
        while forge.status("POST", f"{path(project)}/{request}", json=body) != status:
            assert time.monotonic() < until, f"Gitea refuses {request}"
            time.sleep(0.2)
    project.git("checkout", "-q", "main")
    project.git("pull", "-q", "--ff-only", "origin", "main")
    answer = project.release()
    assert (answer["tag"], answer["bump"]) == ("v1.0.0", "major")
    assert "feature/basket was merged" in answer["reason"]
