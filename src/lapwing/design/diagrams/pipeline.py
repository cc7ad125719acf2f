"""The way from a push to live traffic, read from the workflow that `lapwing ci init` writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lapwing.design.diagrams.model import Band, Box, Flow
from lapwing.design.subject import Subject
from lapwing.system.yaml_loader import read_yaml

PUSH_ONLY = "github.event_name == 'push'"


def pipeline(subject: Subject, workflow: str) -> Flow:
    """Draw the jobs of a workflow with their steps, and who deploys what is committed."""
    jobs: Mapping[str, Any] = read_yaml(workflow)["jobs"]
    name = subject.environment.name
    bands = [Band("Developer", (Box("git push"),), to_next="triggers")]
    bands += [_job(key, job) for key, job in jobs.items()]
    if not ships(jobs, name):
        deploy = Box(f"lapwing deploy -e {name}", ("builds what changed, commits",))
        bands.append(Band("Team", (deploy,), to_next="commits", tint="violet"))
    commit = (Box("Commit", ("releases and settings",)), Box("Rollback", ("is another commit",)))
    bands.append(Band("Desired state (git)", commit, to_next="is deployed by", tint="violet"))
    steps = (_deployer(subject), _release(subject), Box("Live", ("clients get the release",)))
    bands.append(Band(f"Deployment to {name}", steps, chained=True, tint="green"))
    return Flow("pipeline", f"{subject.stack}, {name}: pipeline", tuple(bands))


def ships(jobs: Mapping[str, Any], environment: str) -> bool:
    """Return whether a job commits to the desired state of an environment."""
    runs = (step.get("run", "") for job in jobs.values() for step in job["steps"])
    lines = (line for run in runs for line in run.splitlines() if "--check" not in line)
    return any(f"ship --environment {environment}" in line for line in lines)


def _job(key: str, job: Mapping[str, Any]) -> Band:
    """Draw a job: its named steps; the others only install."""
    steps = tuple(Box(step["name"]) for step in job["steps"] if "name" in step)
    where = (
        "a self-hosted runner" if "self-hosted" in str(job["runs-on"]) else "a runner of the forge"
    )
    when = "pushes" if job.get("if") == PUSH_ONLY else "pushes and pull requests"
    return Band(f"CI job {key}: {when}, on {where}", steps, chained=True, to_next="then")


def _deployer(subject: Subject) -> Box:
    return {
        "agent": Box("Agent", ("detects the commit",)),
        "argocd": Box("Argo CD", ("applies the commit",)),
        "lapwing": Box("lapwing deploy", ("applies the commit",)),
    }[subject.environment.deployed_by]


def _release(subject: Subject) -> Box:
    if subject.blue_green:
        return Box("Blue-green rollout", ("health, smoke tests, switch, analysis",))
    return Box("Rolling update", ("one pod after the other",))
