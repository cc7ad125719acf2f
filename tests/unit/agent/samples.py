"""Small services, documents and states to reason about."""

from __future__ import annotations

from typing import Any

from lapwing.agent.decide import decide
from lapwing.agent.rollout import State
from lapwing.agent.state import EnvironmentState, Generation, Replica, RolloutRecord
from lapwing.plan.model import Deployment, DeploymentKind, Document, Service


def service(release: str = "a-1", **changes: Any) -> Service:
    """A web service on `/` (or another kind)."""
    return Service(**{"kind": "web", "route": "/", "revision": "r1", "release": release} | changes)


def document(kind: DeploymentKind = "deploy", hold: bool = False, **services: Service) -> Document:
    """A document of stack `shop` in `local` with these services."""
    return Document(
        stack="shop",
        environment="local",
        domains=("shop.localhost",),
        deployment=Deployment(kind=kind, actor="ada", hold=hold),
        services=services,
    )


def generation(
    number: int, role: Any = "active", slot: Any = "blue", of: str = "api", **changes: Any
) -> Generation:
    """A generation of one ready replica, on port 20000 + number."""
    return Generation(
        number=number,
        service=of,
        slot=slot,
        role=role,
        spec=changes.pop("spec", None) or service(f"{of}-{number}"),
        replicas=[Replica(index=0, port=20000 + number, pid=number, ready=True)],
        **changes,
    )


def environment(*generations: Generation, running: Document | None = None) -> EnvironmentState:
    """The memory of an environment in which these generations are."""
    return EnvironmentState(
        stack="shop",
        environment="local",
        document=running,
        generations=list(generations),
        next_number=max((g.number for g in generations), default=0) + 1,
    )


def rollout(wanted: Document, state: EnvironmentState) -> RolloutRecord:
    """The record of a rollout as the driver begins it; it is put in flight."""
    choice = decide(wanted, state)
    state.rollout = RolloutRecord(
        commit="c" * 40,
        document=wanted,
        route=choice.route,
        state=State.RESOURCES,
        verdicts={n: str(v) for n, v in choice.verdicts.items()},
        is_switched=False,
    )
    return state.rollout
