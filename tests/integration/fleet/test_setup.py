"""Fleet's first set-up: the very script of the rendered Job, with the real sh and curl, against a
small server that behaves as Fleet's source says.

Every program that the script starts goes through a wrapper that notes its arguments. Where BusyBox
is on the PATH, the script runs by it, too, as it does in the image.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from lapwing.render.kubernetes import render
from lapwing.stack.load import load
from tests.integration.fleet.server import MADE_UP, RULE, TOKEN, Fleet, serving
from tests.needs import require

FLEET = Path(__file__).parents[3] / "stacks" / "fleetdm" / "lapwing.yaml"
PROGRAMS = ("cat", "grep", "head", "mktemp", "printenv", "sed", "sleep", "sort", "tail", "tr")
PASSWORD, ENROLL = "abcDEF123456abcDEF123456", "enroll7enroll7enroll7enroll7enro"
EMAIL = "admin@example.com"


@dataclass(frozen=True)
class Ran:
    """How a run ended, and the arguments of every program that it started."""

    status: int
    output: str
    arguments: str

    def tells(self, *secrets: str) -> bool:
        """Whether a secret is in its output or on a command line."""
        return any(s in self.output or s in self.arguments for s in secrets)


def applets() -> list[str]:
    """What this BusyBox has: Debian's leaves out some, such as `printenv`, that Alpine's has."""
    ran = subprocess.run([require("busybox"), "--list"], capture_output=True, text=True, check=True)
    return ran.stdout.split()


class Job:
    """The container of the Job, as the cluster would start it."""

    def __init__(self, shell: str, folder: Path) -> None:
        files = render.files(render.prepare(load(FLEET, "kind", folders=False)))
        (job,) = [t for t in yaml.safe_load_all(files["after.yaml"]) if t["kind"] == "Job"]
        (container,) = job["spec"]["template"]["spec"]["containers"]
        self.env = {e["name"]: e.get("value", "") for e in container["env"]}
        sh, option, script = container["command"]
        assert (sh, option) == ("/bin/sh", "-c")
        self.script, self.shell, self.folder = script, shell, folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.log = folder / "arguments"
        for program in (*PROGRAMS, "curl"):
            real = require("curl") if program == "curl" else shutil.which(program)
            assert real is not None
            if shell == "busybox" and program in applets():
                real = f"{require('busybox')} {program}"
            (self.bin / program).write_text(
                f'#!/bin/sh\nprintf \'%s\\n\' "{program}" "$@" >> "{self.log}"\nexec {real} "$@"\n'
            )
            (self.bin / program).chmod(0o755)

    def run(self, url: str, **given: str) -> Ran:
        """Run it to its end. The variables are those of the manifest, but for `given`."""
        secrets = {"FLEET_ADMIN_PASSWORD": PASSWORD, "FLEET_ENROLL_SECRET": ENROLL}
        env = {**self.env, **secrets, "FLEET_SETUP_EMAIL": EMAIL, **given, "FLEET_URL": url}
        assert set(env) == set(self.env), "a variable that the manifest does not have"
        script = re.sub(  # What the cluster expands; source: Kubernetes API, Container.command.
            r"\$(\$|\((\w+)\))",
            lambda m: "$" if m[1] == "$" else env.get(m[2], m[0]),
            self.script,
        )
        tmp = self.folder / "tmp"
        tmp.mkdir(exist_ok=True)
        self.log.write_text("")
        shell = [require("busybox"), "sh"] if self.shell == "busybox" else ["/bin/sh"]
        ran = subprocess.run(
            [*shell, "-c", script],
            env={"PATH": str(self.bin), "TMPDIR": str(tmp), **env},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        for file in tmp.rglob("*"):
            assert file.stat().st_mode & 0o077 == 0, f"{file.name} can be read by others"
        shutil.rmtree(tmp)
        return Ran(ran.returncode, ran.stdout + ran.stderr, self.log.read_text())


@pytest.fixture(params=["sh", "busybox"])
def job(request: pytest.FixtureRequest, tmp_path: Path) -> Job:
    return Job(request.param, tmp_path)


def test_setup_without_an_address_reports_that_it_is_skipped(job: Job) -> None:
    ran = job.run("http://127.0.0.1:1", FLEET_SETUP_EMAIL="")
    assert ran.status == 0
    assert "Set-up is skipped" in ran.output
    assert ran.arguments == ""


def test_setup_waits_for_fleet_and_runs_once(job: Job) -> None:
    fleet = Fleet(ready_after=1)
    with serving(fleet) as url:
        first = job.run(url)
        assert first.status == 0, first.output
        assert fleet.user == {"email": EMAIL, "password": f"{PASSWORD}#1"}
        assert fleet.admin["name"] == "Administrator"
        assert (fleet.organization, fleet.server_url) == (
            "My organization", "https://localhost:8585",
        )  # fmt: skip
        assert [s["secret"] for s in fleet.secrets] == [ENROLL]
        assert fleet.sessions == set()
        changes, fleet.asked = fleet.changes, []
        second = job.run(url)
        assert second.status == 0, second.output
        assert "set up already: nothing is done" in second.output
        assert fleet.changes == changes
        assert "POST /api/v1/fleet/spec/enroll_secret" not in fleet.asked
        assert fleet.sessions == set()
    seen = "\n".join(fleet.lines)
    assert "curl" in seen
    for secret in (PASSWORD, ENROLL, TOKEN):
        assert secret not in seen
        assert not first.tells(secret)
        assert not second.tells(secret)


@pytest.mark.parametrize(
    "text",
    [
        'quo"te \\ back\\\\slash 1',
        "two\nlines\tand a tab 1!",
        "$HOME `id` ${x} %s 'é' 1",
        "-n 1 !!!!!!!!",
    ],
)  # fmt: skip
def test_values_are_passed_unchanged(job: Job, text: str) -> None:
    fleet = Fleet()
    with serving(fleet) as url:
        ran = job.run(
            url, FLEET_ADMIN_PASSWORD=text, FLEET_ENROLL_SECRET=text, FLEET_SETUP_NAME=text,
            FLEET_SETUP_ORGANIZATION=text,
        )  # fmt: skip
        assert ran.status == 0, ran.output
        assert fleet.user == {"email": EMAIL, "password": text}
        assert [s["secret"] for s in fleet.secrets] == [text]
        assert (fleet.organization, fleet.admin["name"]) == (text, text)
        changes = fleet.changes
        assert job.run(url, FLEET_ADMIN_PASSWORD=text, FLEET_ENROLL_SECRET=text).status == 0
        assert fleet.changes == changes


def test_interrupted_setup_is_completed_by_the_next(job: Job) -> None:
    fleet = Fleet(broken={"/api/v1/fleet/spec/enroll_secret": (500, {"message": "mysql is away"})})
    with serving(fleet) as url:
        first = job.run(url)
        assert first.status == 1
        assert "mysql is away" in first.output
        assert [s["secret"] for s in fleet.secrets] == [MADE_UP]
        fleet.broken.clear()
        assert job.run(url).status == 0
        assert [s["secret"] for s in fleet.secrets] == [ENROLL]


def test_later_changes_are_kept(job: Job) -> None:
    fleet = Fleet()
    with serving(fleet) as url:
        assert job.run(url).status == 0
        fleet.keep("another-one")
        assert job.run(url).status == 0
        assert [s["secret"] for s in fleet.secrets] == ["another-one"]
        assert fleet.user is not None
        fleet.user["password"] = "changed by hand 1"
        ran = job.run(url)
        assert ran.status == 0
        assert "with another password: nothing is done" in ran.output
        assert [s["secret"] for s in fleet.secrets] == ["another-one"]


def test_fleets_error_is_reported(job: Job) -> None:
    fleet = Fleet()
    with serving(fleet) as url:
        ran = job.run(url, FLEET_ADMIN_PASSWORD="short!1")
        assert ran.status == 1
        assert "answers 422 to /api/v1/setup" in ran.output
        assert RULE in ran.output
        assert fleet.user is None
        assert not ran.tells("short!1")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((500, {"message": "db", "echo": f"{PASSWORD}#1"}), "answers 500"),
        ((502, f"<html>{PASSWORD}</html>"), "answers 502"),
        ((200, {"admin": {}, "secret": ENROLL}), "no token"),
        ((200, "not JSON"), "no token"),
    ],
)
def test_invalid_response_fails_without_showing_a_secret(
    job: Job, answer: tuple[int, object], told: str
) -> None:
    fleet = Fleet(broken={"/api/v1/setup": answer})
    with serving(fleet) as url:
        ran = job.run(url)
    assert ran.status == 1
    assert told in ran.output
    assert not ran.tells(PASSWORD, ENROLL)


def test_unreachable_fleet_fails(job: Job) -> None:
    """curl's own words are the reason. The wrapper of curl answers once, for `/healthz`."""
    curl = job.bin / "curl"
    told = curl.read_text().replace("exec ", 'case "$*" in *healthz) exit 0 ;; esac\nexec ', 1)
    curl.write_text(told)
    ran = job.run("http://127.0.0.1:1")
    assert ran.status != 0
    assert "curl:" in ran.output
    assert not ran.tells(PASSWORD, ENROLL)
