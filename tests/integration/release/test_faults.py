"""Releases under faults: running again completes them, and nothing is created twice."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.command_lines import command_lines
from tests.faulty import Proxy
from tests.gitea import OWNER, Gitea
from tests.integration.release.conftest import LAPWING, Project, outcomes

pytestmark = [pytest.mark.xdist_group("gitea")]

STEPS = [
    "forge",
    "chart",
    "sbom",
    "tag",
    "release",
    "upload shop-0.0.1.tgz",
    "upload shop-0.0.1.tgz.sha256",
    "upload shop-0.0.1.cdx.json",
    "publish",
]
QUICK = ("tag", "upload shop-0.0.1.tgz")
POST = r"/releases$"
ASSETS = r"/releases/\d+/assets"
PATCH = r"/releases/[1-9]\d*$"


def whole(forge: Gitea, project: Project) -> None:
    """There is exactly one release, and it has every file once."""
    name = project.git("remote", "get-url", "origin").removesuffix(".git").rpartition("/")[2]
    listed = forge.api("GET", f"/repos/{OWNER}/{name}/releases")
    assert [(r["tag_name"], r["draft"]) for r in listed] == [("v0.0.1", False)]
    files = sorted(a["name"] for a in listed[0]["assets"])
    assert files == ["shop-0.0.1.cdx.json", "shop-0.0.1.tgz", "shop-0.0.1.tgz.sha256"]


@pytest.mark.parametrize(
    "step", [s if s in QUICK else pytest.param(s, marks=pytest.mark.slow) for s in STEPS]
)
def test_release_completes_after_kill(step: str, forge: Gitea, tmp_path: Path) -> None:
    """kill -9 as soon as a step is reported, and run again."""
    name = "killed-" + step.replace(" ", "-").replace(".", "-")
    project = Project(
        tmp_path / "shop", forge.repository(name), LAPWING_FORGE_TOKEN=forge.token,
        PYTHONUNBUFFERED="1",
    )  # fmt: skip
    project.begin()
    project.push()
    process = subprocess.Popen(
        [LAPWING, "release"],
        cwd=project.folder,
        env=project.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    reported = []
    for line in process.stdout:
        reported.append(line)
        if line.split(":")[0].split(maxsplit=1)[-1].strip() == step:
            os.killpg(process.pid, signal.SIGKILL)
            break
    else:
        raise AssertionError(f"{step} was not reported: {reported}")
    process.stdout.close()
    process.wait()
    again = project.release()
    assert again["tag"] == "v0.0.1"
    before = STEPS[3 : STEPS.index(step) + 1]
    assert all(outcomes(again)[name] == "present" for name in before), again
    whole(forge, project)


@pytest.mark.parametrize("kind", ["answer-after", "lose-answer", "drop-request", "answer"])
def test_failed_creation_makes_one_release(
    kind: str, bad: Proxy, forge: Gitea, project: Project
) -> None:
    """Whether it was made before the 500 or not: one release comes out of one run."""
    fault = bad.fail(kind, "POST", POST, status=500)
    project.release()
    assert fault.happened == 1
    made = bad.count("POST", POST)
    assert made == (1 if kind in ("answer-after", "lose-answer") else 2)
    whole(forge, project)


@pytest.mark.parametrize("kind", ["answer-after", "lose-answer", "cut-request"])
def test_interrupted_upload(kind: str, bad: Proxy, forge: Gitea, project: Project) -> None:
    fault = bad.fail(kind, "POST", ASSETS, status=502, bytes=100)
    project.release()
    assert fault.happened == 1
    whole(forge, project)


def test_lost_response_to_push(bad: Proxy, forge: Gitea, project: Project) -> None:
    fault = bad.fail("lose-answer", "POST", "git-receive-pack")
    answer = project.release()
    assert fault.happened == 1
    assert outcomes(answer)["tag"] == "done"
    whole(forge, project)


def test_release_completes_after_network_failure(
    bad: Proxy, forge: Gitea, project: Project
) -> None:
    """An error that says what to do, then a second run that completes it."""
    fault = bad.fail("drop-request", "POST", ASSETS, times=100)
    broken = project.release(status=1)
    assert broken["error"]["code"] == "forge"
    assert "Run the command again" in broken["error"]["hint"]
    assert outcomes(broken)["upload shop-0.0.1.tgz"] == "failed"
    fault.times = 0
    again = outcomes(project.release())
    assert [again[name] for name in ("tag", "release")] == ["present"] * 2
    assert again["upload shop-0.0.1.tgz"] == "done"
    whole(forge, project)


def test_lost_response_to_publish(bad: Proxy, forge: Gitea, project: Project) -> None:
    bad.fail("lose-answer", "PATCH", PATCH)
    project.release()
    assert bad.count("PATCH", PATCH) <= 1
    whole(forge, project)


def test_gitea_has_not_processed_first_push(bad: Proxy, forge: Gitea, project: Project) -> None:
    """It calls the repository empty until it has, and refuses releases."""
    body = b'{"message": "repo is empty"}'
    fault = bad.fail("answer", "POST", POST, status=422, body=body, times=2)
    project.release()
    assert fault.happened == 2
    whole(forge, project)


def test_rate_limit_is_waited_for(bad: Proxy, forge: Gitea, project: Project) -> None:
    bad.fail("answer", "POST", POST, status=429, headers={"Retry-After": "1"})
    bad.fail("answer", "GET", "/releases/tags/", status=503)
    project.release()
    assert bad.count("POST", POST) == 2
    whole(forge, project)


def test_long_rate_limit_fails(bad: Proxy, project: Project) -> None:
    reset = str(int(time.time()) + 3600)
    limited = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset}
    bad.fail("answer", "GET", "/releases/tags/", status=403, headers=limited, times=100)
    broken = project.release(status=1)
    assert "limits requests" in broken["error"]["message"]


def test_response_is_not_json(bad: Proxy, project: Project) -> None:
    bad.fail("answer", "GET", "/releases/tags/", status=200, body=b"<html>", times=9)
    broken = project.release(status=1)
    assert "not JSON" in broken["error"]["message"]


def test_token_expires_during_release(bad: Proxy, forge: Gitea, project: Project) -> None:
    """What is done stays done, the error names the variable, and no error has the token."""
    token = forge.new_token("short", "write:repository")
    project.environ["LAPWING_FORGE_TOKEN"] = token
    fault = bad.fail("answer", "POST", ASSETS, status=401, body=b'{"message": "token %s"}'
                     % token.encode(), times=9)  # fmt: skip
    broken = project.release(status=1)
    assert broken["error"]["code"] == "forge-login"
    assert "LAPWING_FORGE_TOKEN" in broken["error"]["hint"]
    assert token not in str(broken)
    fault.times = 0
    forge.drop_token("short")
    dead = project.release(status=1)
    assert dead["error"]["code"] == "forge-login"
    assert token not in str(dead)
    project.release(LAPWING_FORGE_TOKEN=forge.token)
    whole(forge, project)


def test_missing_token(forge: Gitea, project: Project) -> None:
    project.push()
    broken = project.release(status=1, LAPWING_FORGE_TOKEN="")
    assert broken["error"]["code"] == "forge-login"
    assert outcomes(broken) == {"forge": "failed"}


def test_read_only_token(forge: Gitea, project: Project) -> None:
    project.push()
    token = forge.new_token("reader", "read:repository")
    broken = project.release(status=1, LAPWING_FORGE_TOKEN=token)
    assert broken["error"]["code"] == "forge-login"
    assert outcomes(broken) == {"forge": "failed"}
    assert project.git("ls-remote", "--tags", "origin") == ""
    assert token not in str(broken)


def test_protected_tag(forge: Gitea, project: Project) -> None:
    project.push()
    name = project.git("remote", "get-url", "origin").removesuffix(".git").rpartition("/")[2]
    other = {"username": "other", "email": "o@example.com", "password": "correct horse 2"}
    forge.api("POST", "/admin/users", json=other)
    rule = {"name_pattern": "v*", "whitelist_usernames": ["other"]}
    forge.api("POST", f"/repos/{OWNER}/{name}/tag_protections", json=rule)
    broken = project.release(status=1)
    assert "refuses the tag" in broken["error"]["message"]
    assert "protected" in broken["error"]["detail"].lower()
    assert project.git("tag") == ""


def test_different_file_is_refused(forge: Gitea, project: Project) -> None:
    """What was released is not changed."""
    project.push()
    project.release()
    name = project.git("remote", "get-url", "origin").removesuffix(".git").rpartition("/")[2]
    release = forge.api("GET", f"/repos/{OWNER}/{name}/releases/tags/v0.0.1")
    path = f"/repos/{OWNER}/{name}/releases/{release['id']}/assets"
    sbom = next(a for a in release["assets"] if a["name"].endswith(".cdx.json"))
    forge.api("DELETE", f"{path}/{sbom['id']}")
    other = {"attachment": (sbom["name"], b"other")}
    forge.api("POST", path, params={"name": sbom["name"]}, files=other)
    broken = project.release(status=1)
    assert "another shop-0.0.1.cdx.json" in broken["error"]["message"]


def test_token_is_not_in_process_list(bad: Proxy, forge: Gitea, project: Project) -> None:
    """Every process that runs while a slow push goes on is looked at."""
    bad.fail("slow-answer", "GET", "info/refs", seconds=0.5, times=9)
    process = subprocess.Popen(
        [LAPWING, "release"], cwd=project.folder, env=project.environ,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    lines: set[str] = set()
    while process.poll() is None:
        lines |= {each.replace(b"\0", b" ").decode(errors="replace") for each in command_lines()}
    assert process.returncode == 0
    assert any("git" in line and "push" in line for line in lines)
    assert not any(forge.token in line for line in lines)
    config = (project.folder / ".git" / "config").read_text()
    assert forge.token not in config
