"""Removes releases that are neither in use nor rollback targets, so that disk use stays bounded.

The agent knows both what is running and the history, so it decides which releases retention keeps:
those of every generation, of the documents in use, and of the last successful deployments of each
environment (the rollback targets). It runs in a thread, after a rollout and once a day.
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

ROLLBACK_TARGETS = 10
"""Successful deployments of each environment that stay rollback targets."""
HISTORY_LENGTH = 200
"""Commits of each environment that are searched for them, as `lapwing rollback` does."""

Releases = frozenset[tuple[str, str, str]]
"""Stack, service and release."""
Keep = dict[tuple[str, str], set[str]]


def releases_in_use(states: Iterable[EnvironmentState]) -> Releases:
    """Return the releases that are running or being deployed.

    Call it in the event loop, where the states cannot change meanwhile.
    """
    found = set()
    for state in states:
        documents = [state.document, state.rollout.document if state.rollout else None]
        wanted = [(n, s.release) for d in documents if d for n, s in d.services.items()]
        running = [(g.service, g.spec.release) for g in state.with_processes]
        found |= {(state.stack, name, release) for name, release in [*wanted, *running]}
    return frozenset(found)


def to_keep(repository: DesiredRepository, running: Releases, store: ReleaseStore) -> Keep:
    """Return the releases to keep, by stack and service. Reads the history.

    Raises DesiredStateError if the history cannot be read: nothing may be removed then.
    """
    environments = repository.environments()
    stacks = {stack for stack, _ in environments}
    keep: Keep = {pair: set() for pair in store.services() if pair[0] in stacks}
    for stack, environment in environments:
        entries = history(repository, stack, environment, HISTORY_LENGTH)
        good = [e for e in entries if e.outcome == "succeeded"][:ROLLBACK_TARGETS]
        coming = [e for e in entries if e.outcome == IN_PROGRESS]
        for entry in [*entries[:1], *coming, *good]:
            for service, at in entry.services.items():
                keep.setdefault((stack, service), set()).add(at.release)
    for stack, service, release in running:
        keep.setdefault((stack, service), set()).add(release)
    return keep


def clean_up(settings: Settings, repository: DesiredRepository, running: Releases) -> None:
    """Remove unneeded releases and layers, and pack the repository when it is due.

    Blocks for seconds, so call it in a thread. Errors are logged: nothing depends on it.
    """
    try:
        keep = to_keep(repository, running, ReleaseStore(settings.releases))
        done = collect(settings, keep)
        repository.maintain()
    except (LapwingError, OSError) as error:
        log.warning("Housekeeping failed: %s", error)
        return
    if done.removed:
        mebibytes = done.bytes / 2**20
        log.info("Removed %s, %.0f MiB.", ", ".join(done.removed), mebibytes)
