"""What a demo counted and measured, and its JSON."""

from __future__ import annotations

from typing import Any

import msgspec

from lapwing.load.figures import Switch, switch
from lapwing.load.record import Ledger, Total

MAX_FAILURES = 20
"""How many failed requests the JSON lists."""


class StepResult(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a step. Times in seconds.

    `old` and `new` are the active releases of the API before and after; `moments` the Unix times at
    which the agent entered each state; `committed` when the commit was made.
    """

    name: str
    verb: str
    outcome: str
    expected: str
    reason: str | None
    commit: str
    old: str
    new: str
    committed: float
    moments: dict[str, float]

    @property
    def to_switch(self) -> float | None:
        """The time from the commit until Envoy confirmed the switch; None without a switch."""
        if "switching" not in self.moments:
            return None
        after = [t for s, t in self.moments.items() if s in ("analysing", "succeeded")]
        return min(after) - self.committed if after else None

    @property
    def to_roll_back(self) -> float | None:
        """The time of a rollback; None if there was none.

        From the commit to the switch for the command; from the decision until everything is undone
        for an automatic rollback.
        """
        if self.verb == "rollback":
            return self.to_switch
        if "switching" not in self.moments or self.outcome != "rolled-back":
            return None
        return self.moments[self.outcome] - self.moments["undoing"]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The results of all steps and the record of all requests."""

    results: tuple[StepResult, ...]
    ledger: Ledger
    seconds: float

    @property
    def good(self) -> bool:
        """Whether no request failed and every step had its expected outcome."""
        return not self.ledger.failures and all(p.outcome == p.expected for p in self.results)

    def seen(self, step: StepResult) -> Switch | None:
        """Return how clients saw the switch of a step; None without a switch."""
        if "switching" not in step.moments:
            return None
        later = [p.moments["switching"] for p in self.results if "switching" in p.moments]
        until = min((t for t in later if t > step.moments["switching"]), default=float("inf"))
        until = min(until, step.moments.get("undoing", until))
        return switch(self.ledger, step.old, step.new, step.moments["switching"], until)

    def seen_back(self, step: StepResult) -> Switch | None:
        """Return how clients saw the automatic rollback of a step; None if there was none."""
        if not {"switching", "undoing"} <= set(step.moments):
            return None
        return switch(self.ledger, step.new, step.old, step.moments["undoing"])

    def totals(self) -> list[Total]:
        """Return the sums by kind of traffic."""
        return self.ledger.totals()

    def as_json(self) -> dict[str, Any]:
        """Return the result as JSON data. Times in seconds."""
        return {
            "sent": self.ledger.sent,
            "failed": len(self.ledger.failures),
            "raced": len(self.ledger.races),
            "seconds": round(self.seconds, 3),
            "versions": self.ledger.versions(),
            "traffic": msgspec.to_builtins(self.totals()),
            "acts": [self._step(p) for p in self.results],
            "failures": [msgspec.to_builtins(e) for e in self.ledger.failures[:MAX_FAILURES]],
        }

    def _step(self, step: StepResult) -> dict[str, Any]:
        return {
            "name": step.name,
            "verb": step.verb,
            "outcome": step.outcome,
            "expected": step.expected,
            "reason": step.reason,
            "commit": step.commit,
            "old": step.old,
            "new": step.new,
            "commit_to_switch": step.to_switch,
            "rolled_back_in": step.to_roll_back,
            "switch": _switch(self.seen(step)),
            "switch_back": _switch(self.seen_back(step)),
        }


def _switch(seen: Switch | None) -> dict[str, float | None] | None:
    if seen is None:
        return None
    return {
        "window": seen.window,
        "delay": seen.delay,
        "spacing": seen.spacing,
        "longest": seen.longest,
    }
