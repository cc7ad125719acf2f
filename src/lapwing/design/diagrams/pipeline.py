"""The way from a push to live traffic, read from the workflow that `lapwing ci init` writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

from lapwing.design.diagrams.model import Band, Box, Flow
from lapwing.design.ship_job import environment_of_script
from lapwing.design.subject import Subject
from lapwing.system.yaml_loader import read_yaml

PUSH_ONLY = "github.event_name == 'push'"


def pipeline(subject: Subject, workflow: str) -> Flow:
    """Draw the jobs of a workflow with their steps, and who deploys what is committed.

    The job that ships the environment is followed by its deployment, and the jobs after it are
    drawn last. If no job ships it, the team deploys it, independently of CI.
    """
    jobs: Mapping[str, Any] = read_yaml(workflow)["jobs"]
    name = subject.environment.name
    bands = [_job(key, job) for key, job in jobs.items()]
    shipped = next((n for n, job in enumerate(jobs.values(), 1) if _ships(job, name)), 0)
    push = Band("Developer", (Box("git push"),))
    deployment = [_desired_state(), _deployment(subject)]
    if shipped:
        labels = ["triggers", *["then"] * (shipped - 1), "commits", "is deployed by"]
        drawn = _connected([push, *bands[:shipped], *deployment], labels) + bands[shipped:]
    else:
        pushed = subject.environment.built and subject.environment.registry
        builds = ("builds what changed",) if subject.has_source else ()
        does = (*builds, *(("pushes images",) if pushed and not subject.on_machine else ()))
        box = Box(f"lapwing deploy -e {name}", (", ".join((*does, "commits")),))
        team = Band(f"Team: CI does not deploy to {name}", (box,), tint="violet")
        drawn = _connected([push, *bands], ["triggers", *["then"] * (len(bands) - 1)])
        drawn += _connected([team, *deployment], ["commits", "is deployed by"])
    return Flow("pipeline", f"{subject.stack}, {name}: pipeline", tuple(drawn))


def _ships(job: Mapping[str, Any], environment: str) -> bool:
    """Return whether a job commits to the desired state of an environment."""
    return any(
        environment_of_script(str(step.get("run", ""))) == environment
        for step in job.get("steps", ())
    )


def _connected(bands: Sequence[Band], labels: Sequence[str]) -> list[Band]:
    """Return bands with a labelled arrow from each to the next one."""
    return [replace(b, to_next=label) for b, label in zip_longest(bands, labels)]


def _job(key: str, job: Mapping[str, Any]) -> Band:
    """Draw a job: its named steps; the others only install."""
    steps = tuple(Box(step["name"]) for step in job["steps"] if "name" in step)
    where = (
        "a self-hosted runner" if "self-hosted" in str(job["runs-on"]) else "a runner of the forge"
    )
    when = "pushes" if PUSH_ONLY in job.get("if", "") else "pushes and pull requests"
    return Band(f"CI job {key}: {when}, on {where}", steps, chained=True)


def _desired_state() -> Band:
    boxes = (Box("Commit", ("releases and settings",)), Box("Rollback", ("is another commit",)))
    return Band("Desired state (git)", boxes, tint="violet")


def _deployment(subject: Subject) -> Band:
    boxes = (_deployer(subject), _release(subject), Box("Live", ("clients get the release",)))
    return Band(f"Deployment to {subject.environment.name}", boxes, chained=True, tint="green")


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
