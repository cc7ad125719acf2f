"""What a demo has counted and timed, in the shape that programs get. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from lapwing.load.figures import Switch, switch
from lapwing.load.record import Ledger, Total

SHOWN = 20
"""How many failed requests are described."""


class Played(msgspec.Struct, frozen=True, kw_only=True):
    """An act that was played. Times in seconds. `old` and `new` are the releases of the API that
    had the traffic before and after; `moments` the Unix times at which the agent entered each
    state; `committed` when the commit was made."""

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
        """From the commit until Envoy had confirmed the switch; None without a switch."""
        if "switching" not in self.moments:
            return None
        after = [t for s, t in self.moments.items() if s in ("analysing", "succeeded")]
        return min(after) - self.committed if after else None

    @property
    def to_roll_back(self) -> float | None:
        """Of a rollback, from its commit to its switch; of a deployment that was taken back, from
        the decision until all of it was undone; None for any other."""
        if self.verb == "rollback":
            return self.to_switch
        if "switching" not in self.moments or self.outcome != "rolled-back":
            return None
        return self.moments[self.outcome] - self.moments["undoing"]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A whole demo: what was played, and everything that clients met."""

    played: tuple[Played, ...]
    ledger: Ledger
    seconds: float

    @property
    def good(self) -> bool:
        """Whether no request failed and every act came out as it had to."""
        return not self.ledger.failures and all(p.outcome == p.expected for p in self.played)

    def seen(self, act: Played) -> Switch | None:
        """How clients saw the switch of an act; None if it switched nothing."""
        if "switching" not in act.moments:
            return None
        later = [p.moments["switching"] for p in self.played if "switching" in p.moments]
        until = min((t for t in later if t > act.moments["switching"]), default=float("inf"))
        until = min(until, act.moments.get("undoing", until))
        return switch(self.ledger, act.old, act.new, act.moments["switching"], until)

    def seen_back(self, act: Played) -> Switch | None:
        """How clients saw that an act was taken back; None if it was not, or had no traffic."""
        if not {"switching", "undoing"} <= set(act.moments):
            return None
        return switch(self.ledger, act.new, act.old, act.moments["undoing"])

    def totals(self) -> list[Total]:
        """The sums by kind of traffic."""
        return self.ledger.totals()

    def as_json(self) -> dict[str, Any]:
        """The result for programs. Times in seconds."""
        return {
            "sent": self.ledger.sent,
            "failed": len(self.ledger.failures),
            "raced": len(self.ledger.races),
            "seconds": round(self.seconds, 3),
            "versions": self.ledger.versions(),
            "traffic": msgspec.to_builtins(self.totals()),
            "acts": [self._act(p) for p in self.played],
            "failures": [msgspec.to_builtins(e) for e in self.ledger.failures[:SHOWN]],
        }

    def _act(self, act: Played) -> dict[str, Any]:
        return {
            "name": act.name,
            "verb": act.verb,
            "outcome": act.outcome,
            "expected": act.expected,
            "reason": act.reason,
            "commit": act.commit,
            "old": act.old,
            "new": act.new,
            "commit_to_switch": act.to_switch,
            "rolled_back_in": act.to_roll_back,
            "switch": _switch(self.seen(act)),
            "switch_back": _switch(self.seen_back(act)),
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
