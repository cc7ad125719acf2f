"""A runner of Gitea Actions for the workflows that Lapwing generates.

Gitea decides what runs (branches, paths, `needs`) and gives each job its own token and secrets,
over the protocol of its runners; the jobs run here, in a clean folder, with bash. It knows exactly
as much of the workflow syntax as the generated files use, and refuses the rest. In place of two
actions: `checkout` is done by git with the job's token, and `setup-python` is a virtual environment
that the test made.

Source: code.gitea.io/actions-proto-go (runner.v1), over Connect with JSON; actions/checkout v6,
src/git-source-provider.ts, for what it fetches.
"""

from __future__ import annotations

import base64
import os
import re
import shlex
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.gitea import Gitea

PATIENCE_S = 120.0
JOB_KEYS = {
    "name", "runs-on", "timeout-minutes", "steps", "needs", "if", "permissions",
}  # fmt: skip
STEP_KEYS = {"name", "uses", "with", "run", "env", "working-directory"}
INPUTS = {
    "actions/checkout": {"fetch-depth", "persist-credentials"},
    "actions/setup-python": {"cache", "cache-dependency-path", "python-version"},
}


@dataclass
class Job:
    """A job that has run, or was skipped. `log` is what its steps printed."""

    name: str
    passed: bool
    log: str
    skipped: bool = False


@dataclass
class Runner:
    """A runner of a repository or an owner. `python` is the folder of the job's Python."""

    forge: Gitea
    root: Path
    python: Path
    environ: dict[str, str]
    headers: dict[str, str] = field(default_factory=dict)

    def register(self, path: str, *labels: str) -> None:
        """Register with the token that the API gives for `/repos/...` or `/orgs/...`."""
        token = self.forge.api("POST", f"{path}/actions/runners/registration-token")["token"]
        made = self._call("Register", name="test", token=token, labels=labels)["runner"]
        self.headers = {"x-runner-uuid": made["uuid"], "x-runner-token": made["token"]}
        self._call("Declare", labels=labels, version="test")

    def run(self, count: int) -> list[Job]:
        """Run the next jobs, in the order in which Gitea gives them out."""
        return [self._run_job(self._next()) for _ in range(count)]

    def is_idle(self) -> bool:
        """Whether there is no job to run."""
        return "task" not in self._call("FetchTask", tasksVersion=0)

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            found: dict[str, Any] = self._call("FetchTask", tasksVersion=0)
            if "task" in found:
                task: dict[str, Any] = found["task"]
                return task
            time.sleep(0.2)
        raise AssertionError("Gitea gives out no job")

    def _call(self, method: str, **message: Any) -> Any:
        url = f"{self.forge.address}/api/actions/runner.v1.RunnerService/{method}"
        answer = self.forge.client.post(url, json=message, headers=self.headers)
        assert answer.status_code == 200, f"{method}: {answer.status_code} {answer.text}"
        return answer.json()

    def _run_job(self, task: dict[str, Any]) -> Job:
        jobs = yaml.safe_load(base64.b64decode(task["workflowPayload"]))["jobs"]
        ((name, job),) = jobs.items()
        _only(job, JOB_KEYS, name)
        folder = self.root / task["id"]
        context = {"github": task["context"], "secrets": task.get("secrets", {})}
        if any(need["result"] != "RESULT_SUCCESS" for need in task.get("needs", {}).values()):
            # Gitea gives out a job with `if`; the runner adds `success()` to the condition.
            self._end(task, "RESULT_SKIPPED")
            return Job(name, passed=False, log="", skipped=True)
        log = []
        passed = True
        assert _condition(job.get("if", "github.event_name != ''"), context), f"{name} is skipped"
        for step in job["steps"]:
            status, printed = self._run_step(step, context, folder)
            log.append(printed)
            passed = status == 0
            if not passed:
                break
        self._end(task, "RESULT_SUCCESS" if passed else "RESULT_FAILURE")
        return Job(name, passed, "".join(log))

    def _end(self, task: dict[str, Any], result: str) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        state = {"id": task["id"], "result": result, "startedAt": now, "stoppedAt": now}
        self._call("UpdateTask", state=state)

    def _run_step(
        self, step: dict[str, Any], context: dict[str, Any], folder: Path
    ) -> tuple[int, str]:
        _only(step, STEP_KEYS, "step")
        workspace, temporary = folder / "work", folder / "temp"
        added = folder / "path"
        found = added.read_text().splitlines() if added.exists() else []
        github = context["github"]
        environ = self.environ | {
            "PATH": ":".join([*reversed(found), str(self.python), os.environ["PATH"]]),
            "GITHUB_PATH": str(added),
            "HOME": str(folder / "home"),
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "GITEA_ACTIONS": "true",
            "GITHUB_WORKSPACE": str(workspace),
            "RUNNER_TEMP": str(temporary),
            "GITHUB_REF": github["ref"],
            "GITHUB_SHA": github["sha"],
            "GITHUB_REPOSITORY": github["repository"],
            "GITHUB_SERVER_URL": github["server_url"],
        }
        for made in (workspace, temporary, folder / "home"):
            made.mkdir(parents=True, exist_ok=True)
        script = step.get("run")
        if script is None:
            action = step["uses"].partition("@")[0]
            given = step.get("with", {})
            _only(given, INPUTS[action], action)
            if action == "actions/setup-python":
                return 0, ""
            script = _checkout(given, github)
        for key, value in step.get("env", {}).items():
            environ[key] = _filled(str(value), context)
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=workspace / step.get("working-directory", "."),
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout


def _checkout(given: dict[str, Any], github: dict[str, Any]) -> str:
    """The commands of actions/checkout; the login is dropped afterwards."""
    assert given.get("persist-credentials") == "false"  # Gitea makes texts of all inputs.
    branch = github["ref"].removeprefix("refs/heads/")
    remote = f"refs/remotes/origin/{branch}"
    refs = f"--no-tags --depth=1 origin +{github['sha']}:{remote}"
    if given.get("fetch-depth") == "0":
        refs = "origin '+refs/heads/*:refs/remotes/origin/*' '+refs/tags/*:refs/tags/*'"
    login = base64.b64encode(f"x-access-token:{github['token']}".encode()).decode()
    url = shlex.quote(f"{github['server_url']}{github['repository']}")
    return f"""
git init -q -b unused .
git remote add origin {url}
git -c 'http.extraheader=AUTHORIZATION: basic {login}' fetch -q --prune {refs}
git checkout -q --force -B {shlex.quote(branch)} {github["sha"]}
"""


def _filled(text: str, context: dict[str, Any]) -> str:
    """A value whose expressions are single names: `${{ secrets.NAME }}`."""

    def value(found: re.Match[str]) -> str:
        names = re.fullmatch(r"(github|secrets)\.(\w+)", found[1])
        assert names, f"cannot evaluate {found[0]}"
        return str(context[names[1]].get(names[2], ""))

    return re.sub(r"\$\{\{ *(.*?) *\}\}", value, text)


def _condition(text: str, context: dict[str, Any]) -> bool:
    """A comparison of one name with a text, the only form that is generated."""
    found = re.fullmatch(r"github\.(\w+) (==|!=) '([^']*)'", text)
    assert found, f"cannot evaluate {text}"
    return bool((context["github"][found[1]] == found[3]) == (found[2] == "=="))


def _only(given: dict[str, Any], known: set[str], where: str) -> None:
    assert set(given) <= known, f"unknown keys of {where}: {set(given) - known}"
