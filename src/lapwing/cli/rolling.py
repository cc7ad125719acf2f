"""Committing an act and showing what becomes of it: shared by every verb that changes something.

The deployment belongs to the agent from the commit on, so Ctrl-C only stops the watching, and says
so.
"""

from __future__ import annotations

import time
from typing import Any

from lapwing.cli.context import Context
from lapwing.desired.repository import DesiredRepository
from lapwing.errors import DeploymentFailed
from lapwing.observed.status import Event, Follower
from lapwing.plan.model import Document
from lapwing.targets import follow
from lapwing.targets import local_agent as agent
from lapwing.targets.follow import Outcome
from lapwing.targets.planned import Change, Where

WORDS = {
    "resources": "resources",
    "jobs": "jobs",
    "starting": "starting",
    "testing": "testing",
    "switching": "switching",
    "analysing": "watching live traffic",
    "undoing": "undoing",
}


def carry_out(context: Context, where: Where, change: Change) -> int:
    """Commit a change and follow it to its end; returns the exit status.

    Raises DeploymentFailed if it failed.
    """
    agent.ensure(context.settings, context.printer.progress)
    listener = follow.watch(context.settings, where.stack, where.environment)
    commit = DesiredRepository(context.settings.desired).commit(
        change.document, expected=change.expected
    )
    return watch(context, where, listener, commit, change.document)


def watch(
    context: Context,
    where: Where,
    listener: Follower,
    commit: str,
    document: Document,
) -> int:
    """Show a deployment until it has an outcome or is held; returns the exit status."""
    printer = context.printer
    began = time.monotonic()

    def tell(event: Event) -> None:
        if event.kind == "note":
            printer.progress(event.text)
        elif event.kind == "state" and event.state in WORDS:
            printer.progress(WORDS[event.state])

    try:
        with printer.working(f"deploying {commit[:12]}"):
            outcome = follow.follow(context.settings, listener, commit, tell=tell)
    except KeyboardInterrupt:
        printer.say(
            f"\nDetached. Deployment {commit[:12]} goes on without you: `lapwing status` tells "
            "how it does, `lapwing abort` stops it."
        )
        return 130
    return _end(context, where, document, outcome, time.monotonic() - began)


def _end(
    context: Context, where: Where, document: Document, outcome: Outcome, seconds: float
) -> int:
    from lapwing.cli.target import present

    status = present(context, where)
    url = status.url if status else ""
    if context.for_programs:
        context.printer.json(_answer(where, document, outcome, seconds, url))
        return 0 if outcome.outcome in ("succeeded", "held") else 1
    if outcome.held:
        preview = status.rollout.preview if status and status.rollout else ""
        context.printer.say(f"Deployment {outcome.commit[:12]} is held; no client sees it yet.")
        context.printer.data(f"Preview: {preview}")
        context.printer.say("`lapwing promote` lets it go on, `lapwing abort` stops it.")
        return 0
    if outcome.outcome == "succeeded":
        context.printer.say(_success(document, outcome, seconds), style="green")
        return 0
    raise DeploymentFailed(
        f"Deployment {outcome.commit[:12]} {_PAST[outcome.outcome]}: {outcome.reason}",
        detail=outcome.detail,
        hint=" ".join(h for h in (_HINT.get(outcome.outcome), outcome.hint) if h) or None,
    )


_PAST = {
    "failed": "was rejected",
    "rolled-back": "was rolled back",
    "aborted": "was aborted",
    "superseded": "was superseded",
}
_HINT = {
    "failed": "No client was sent to it; what ran before still serves.",
    "rolled-back": "Traffic is back on what ran before.",
    "aborted": "What ran before still serves.",
    "superseded": "`lapwing history` shows the newer one.",
}


def _success(document: Document, outcome: Outcome, seconds: float) -> str:
    kind = document.deployment.kind
    if kind == "down":
        return "Everything is stopped; data stays."
    switched = outcome.times.get("switching")
    when = f"; switched after {switched:.2f} s" if switched is not None else ""
    what = {"rollback": "Rolled back", "promote": "Promoted", "abort": "Aborted"}.get(
        kind, "Deployed"
    )
    return f"{what} {outcome.commit[:12]} in {seconds:.2f} s{when}."


def _answer(
    where: Where, document: Document, outcome: Outcome, seconds: float, url: str
) -> dict[str, Any]:
    return {
        "stack": where.stack,
        "environment": where.environment,
        "commit": outcome.commit,
        "kind": document.deployment.kind,
        "outcome": outcome.outcome,
        "reason": None if outcome.outcome == "succeeded" else outcome.reason,
        "detail": outcome.detail,
        "seconds": round(seconds, 3),
        "times": {state: round(t, 3) for state, t in outcome.times.items()},
        "url": url,
        "services": {
            name: {"release": s.release, "revision": s.revision}
            for name, s in document.services.items()
        },
    }
