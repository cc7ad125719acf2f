"""Every environment that was deployed from this machine, with its address and its state."""

from __future__ import annotations

from typing import Literal

import msgspec

from lapwing.desired.repository import DesiredRepository
from lapwing.observed import agent, status
from lapwing.plan.model import Document
from lapwing.settings import Settings
from lapwing.targets import local_agent
from lapwing.targets.base import State, StatusReport
from lapwing.targets.machine_status import correct


class EnvironmentOverview(msgspec.Struct, kw_only=True):
    """One environment. `state` is null on a cluster, because clusters are not asked."""

    stack: str
    environment: str
    target: Literal["machine", "kubernetes"]
    state: State | None = None
    url: str | None = None
    commit: str | None = None
    folder: str | None = None
    """The folder of the stack file that it was deployed from."""


def environments(settings: Settings) -> list[EnvironmentOverview]:
    """List the environments of this machine's desired state, by stack and name.

    Those whose first deployment was rejected or aborted are omitted.
    """
    repository = DesiredRepository(settings.desired)
    envoy_running: bool | None = None
    agent_running = agent.is_running(settings.agent)
    found = []
    for stack, environment in sorted(repository.environments()):
        document = repository.latest_valid(stack, environment)
        if document is None or _never_ran(document):
            continue
        entry = EnvironmentOverview(
            stack=stack,
            environment=environment,
            target=document.target,
            commit=repository.newest(stack, environment),
            folder=document.folder if isinstance(document.folder, str) else None,
        )
        seen = status.read(settings.environment(stack, environment))
        if document.target == "machine" and seen is not None:
            if envoy_running is None:
                envoy_running = local_agent.envoy_accepts(settings)
            report = StatusReport(
                correct(seen, agent_running=agent_running), envoy_running=envoy_running
            )
            entry.state, entry.url = report.state, seen.url
        elif document.target == "kubernetes" and document.domains:
            entry.url = f"https://{document.domains[0]}"
        found.append(entry)
    return found


def _never_ran(document: Document) -> bool:
    """Return whether a document undoes a first deployment: there is nothing that it restores."""
    act = document.deployment
    return act.kind in ("revert", "abort") and act.restores is None and not document.services
