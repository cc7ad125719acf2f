"""Housekeeping: disk use stays bounded, and what serves or can be rolled back to stays.

The agent is the one who knows both what runs and what the history says, so it tells retention what
to keep: the releases of every generation, of the document that is wanted, and of the last
deployments of each environment that succeeded (the rollback targets). It does so in a thread, after
a rollout and once a day, never while one is in flight.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from lapwing.agent.state import EnvironmentState
from lapwing.build.release import ReleaseStore
from lapwing.build.retention import collect
from lapwing.desired.history import IN_PROGRESS, history
from lapwing.desired.repository import DesiredRepository
from lapwing.errors import LapwingError
from lapwing.settings import Settings

log = logging.getLogger(__name__)

TARGETS = 10
"""Deployments of each environment that succeeded and stay rollback targets."""
LOOKED_AT = 200
"""Commits of each environment among which they are looked for, as `lapwing rollback` does."""

Needed = frozenset[tuple[str, str, str]]
"""Stack, service and release."""
Keep = dict[tuple[str, str], set[str]]


def needed(states: Iterable[EnvironmentState]) -> Needed:
    """What runs, or is about to. Pure, and called where the states cannot change meanwhile."""
    found = set()
    for state in states:
        documents = [state.document, state.rollout.document if state.rollout else None]
        wanted = [(n, s.release) for d in documents if d for n, s in d.services.items()]
        running = [(g.service, g.spec.release) for g in state.generations]
        found |= {(state.stack, name, release) for name, release in [*wanted, *running]}
    return frozenset(found)


def to_keep(repository: DesiredRepository, running: Needed, store: ReleaseStore) -> Keep:
    """For each stack and service, the releases that must stay.

    Raises DesiredStateError if the history cannot be read: nothing may be removed then.
    """
    environments = repository.environments()
    stacks = {stack for stack, _ in environments}
    keep: Keep = {pair: set() for pair in store.services() if pair[0] in stacks}
    for stack, environment in environments:
        entries = history(repository, stack, environment, LOOKED_AT)
        good = [e for e in entries if e.outcome == "succeeded"][:TARGETS]
        coming = [e for e in entries if e.outcome == IN_PROGRESS]
        for entry in [*entries[:1], *coming, *good]:
            for service, at in entry.services.items():
                keep.setdefault((stack, service), set()).add(at.release)
    for stack, service, release in running:
        keep.setdefault((stack, service), set()).add(release)
    return keep


def tidy(settings: Settings, repository: DesiredRepository, running: Needed) -> None:
    """Remove releases and layers that nobody needs, and pack the repository when it is time.

    Blocks: seconds where there is much to do. What goes wrong is logged; nothing depends on it.
    """
    try:
        keep = to_keep(repository, running, ReleaseStore(settings.releases))
        done = collect(settings, keep)
        repository.maintain()
    except (LapwingError, OSError) as error:
        log.warning("Housekeeping: %s", error)
        return
    if done.removed:
        mebibytes = done.bytes / 2**20
        log.info("Removed %s, %.0f MiB.", ", ".join(done.removed), mebibytes)
