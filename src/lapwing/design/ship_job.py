"""The job of the workflow that ships the release branches to an environment.

Its first step checks that the forge has the job's secrets, so a missing one fails early, and the
job `release`, which needs this one, tags nothing. A comment above the job lists the secrets.
"""

from __future__ import annotations

import re

from lapwing.design import programs
from lapwing.design.pipeline import (
    SSH_KEY,
    Pipeline,
    ShipJob,
    check_settings,
    checkout,
    google_login,
    in_folder,
    install,
    job_comment,
    variables,
    with_ssh_key,
)
from lapwing.system.yaml_loader import read_yaml

_COMMENT = re.compile(r"(?:^|(?<=\s))#.*", re.MULTILINE)
_SHIP = re.compile(r"\blapwing\b[^\n;&|]*?\s(?:ship|deploy)\b([^\n;&|]*)")
_ENVIRONMENT = re.compile(r"\s(?:--environment|-e)[ =][\"']?([^\s\"']+)")
_PUSH = "push, and commit to the desired state"
_TITLES = {
    "home": "Build, test, scan, and commit to the desired state",
    "ssh": "Build{}, then deploy on the server",
    "pull": f"Build{{}}, {_PUSH}",
    "argo": f"Build{{}}, {_PUSH}",
    "direct": "Build, push, and deploy to the cluster",
}
_FETCH_ALL = ("fetch-depth: 0",)
"""An image has the time of the last commit that changed it, which a shallow clone does not know."""
_UNSCANNED = (
    "To scan for known vulnerabilities, add `scan` to the stack file, and run `lapwing ci init` "
    "again."
)
_NOTES = {
    "home": "Runs on a self-hosted runner with the label `lapwing`, as the user of the agent of {} "
    "(both use one LAPWING_HOME), and never for pull requests. Requires trivy or grype.",
    "ssh": "`lapwing server key -e {}` allows the SSH key to deploy only this environment.",
    "pull": "The machine of {} pulls what is committed.",
    "argo": "Argo CD deploys what is committed for {}; this job has no access to the cluster.",
    "direct": "Runs on a self-hosted runner with the label `lapwing`, and never for pull requests: "
    "the LAPWING_HOME of its user has the desired state, the history and the secrets of {}. The "
    "kubeconfig of this user has access to the cluster, and its `docker login` may push images.",
}


def render(pipeline: Pipeline, job: ShipJob) -> str:
    """Write the job with the comment above it."""
    label = "ubuntu-latest"
    if job.is_self_hosted:
        label = "lapwing" if pipeline.forge == "gitea" else "[self-hosted, lapwing]"
    return f"""\
{job_comment(_note(job), job.settings)}\
  ship:
    needs: check
    if: github.event_name == 'push'{_except_others(pipeline)}
    runs-on: {label}
    timeout-minutes: 60
{_permissions(job)}\
    steps:
{check_settings(job.settings, "ship")}\
{checkout(*_FETCH_ALL if job.way in ("pull", "argo", "direct") else ())}\
{"" if job.is_self_hosted else install(pipeline)}\
{google_login(job.login)}\
{programs.install_step(programs.TRIVY) if job.scans and not job.is_self_hosted else ""}\
      - name: {_title(job)}
        run: {_script(pipeline, job)}
        env:
{variables(job.settings, job.login)}\
          LAPWING_ACTOR: ${{{{ github.actor }}}}
{in_folder(pipeline)}"""


def _note(job: ShipJob) -> str:
    note = _NOTES[job.way].format(job.environment)
    if not job.is_self_hosted and not job.scans:
        return f"{note} {_UNSCANNED}"
    return f"{note} Requires trivy or grype." if job.way == "direct" and job.scans else note


def _title(job: ShipJob) -> str:
    if job.way == "ssh":
        return _TITLES["ssh"].format(", test and scan" if job.scans else " and test")
    return _TITLES[job.way].format(", test, scan" if job.scans else ", test")


def shipped_environment(workflow: str) -> str | None:
    """Return the environment that a workflow ships the main branch to.

    Raises yaml.YAMLError or ValueError if it is not a workflow.
    """
    try:
        jobs = read_yaml(workflow)["jobs"].values()
        scripts = [str(step.get("run", "")) for job in jobs for step in job.get("steps", ())]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError("not a workflow") from error
    return next(filter(None, map(environment_of_script, scripts)), None)


def environment_of_script(script: str) -> str | None:
    """Return the environment that the script of a step ships the main branch to."""
    lines = _COMMENT.sub("", script.replace("\\\n", " "))
    for command in _SHIP.finditer(lines):
        words = command[1].split()
        found = _ENVIRONMENT.search(command[1])
        if found and not any(word.startswith(("--check", "--branch")) for word in words):
            return found[1]
    return None


def _permissions(job: ShipJob) -> str:
    """Return the permissions that the login of the job needs beyond those of the workflow."""
    needed = {"id-token"} if job.is_keyless else set()
    if job.login is not None:
        needed.add("id-token" if job.login.account else "packages")
    lines = "".join(f"      {name}: write\n" for name in sorted(needed))
    return f"    permissions:\n      contents: read\n{lines}" if needed else ""


def _script(pipeline: Pipeline, job: ShipJob) -> str:
    """Return the command, with what it needs before it."""
    unscanned = "" if job.is_self_hosted or job.scans else " --scan off"
    verb = "deploy" if job.way == "direct" else f"ship{unscanned}"
    arguments = f"{verb} --environment {job.environment}"
    if job.is_self_hosted:
        return f"""|
          python3 -m venv "$RUNNER_TEMP/lapwing"
          "$RUNNER_TEMP/lapwing/bin/pip" install --quiet {pipeline.install}
          "$RUNNER_TEMP/lapwing/bin/lapwing" {arguments}"""
    if not _uses_ssh(job):
        return f"lapwing {arguments}"
    return with_ssh_key(f"lapwing {arguments}")


def _uses_ssh(job: ShipJob) -> bool:
    return any(setting.name == SSH_KEY for setting in job.settings)


def _except_others(pipeline: Pipeline) -> str:
    names = (branch.replace("'", "''") for branch in pipeline.others)
    return "".join(f" && github.ref_name != '{name}'" for name in names)
