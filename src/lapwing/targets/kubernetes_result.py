"""What a verb on a cluster has done so far, and the result of it, however it ends."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from lapwing.desired.history import Entry
from lapwing.targets.base import (
    DeployResult,
    EnvironmentRef,
    Outcome,
    Rollout,
    Verb,
    services_of,
)
from lapwing.targets.planned import PlannedChange

if TYPE_CHECKING:
    from lapwing.kubernetes.apply import ApplyResult

SEARCHED_DEPLOYMENTS = 50
"""How many deployments are searched for one that succeeded."""


@dataclass(slots=True)
class Progress:
    """What a verb has done, for the result of one that ends early."""

    began: float = field(default_factory=time.monotonic)
    commit: str | None = None
    plan: PlannedChange | None = None
    applied: ApplyResult | None = None
    is_new: bool = True

    @property
    def is_held(self) -> bool:
        """Whether a rollout is paused, so that the previous release still runs."""
        return self.applied is not None and bool(self.applied.held)

    @property
    def outcome(self) -> Outcome:
        """The outcome of a verb that was not interrupted."""
        assert self.applied is not None
        if self.is_held:
            return "held"
        is_same = not self.is_new and not self.applied.changed and not self.applied.pruned
        return "unchanged" if is_same else "succeeded"

    def result(
        self, ref: EnvironmentRef, verb: Verb, outcome: Outcome, **values: str | None
    ) -> DeployResult:
        """Return the result of a verb with an outcome; `values` are more of its fields."""
        applied, plan = self.applied, self.plan
        rollout = None
        if applied is not None:
            rollout = Rollout(
                services=[r.name for r in applied.held],
                applied=[str(r) for r in applied.changed],
                removed=[str(r) for r in applied.pruned],
            )
        result = DeployResult(
            stack=ref.stack,
            environment=ref.environment,
            target="kubernetes",
            kind=verb,
            outcome=outcome,
            commit=self.commit,
            changes=plan.changes if plan is not None else [],
            rollout=rollout,
            services=services_of(plan.document) if plan is not None else {},
            seconds=round(time.monotonic() - self.began, 3),
        )
        return msgspec.structs.replace(result, **values)


def failure_hint(hint: str | None, ref: EnvironmentRef, entries: Iterable[Entry]) -> str:
    """Return a hint for a failed deployment: that of the error, and general advice."""
    name = ref.environment
    more = f"Applied objects stay. Correct the problem and run `lapwing up -e {name}` again"
    if any(e.outcome == "succeeded" and e.services for e in entries):
        more += f", or run `lapwing rollback -e {name}`"
    return f"{hint} {more}." if hint else f"{more}."
