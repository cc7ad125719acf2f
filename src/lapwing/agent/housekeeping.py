"""Removes releases that are neither in use nor rollback targets, so that disk use stays bounded.

The agent knows both what is running and the history, so it decides which releases retention keeps:
those of every generation, of one-off commands, of the documents in use, and of the last successful
deployments of each environment (the rollback targets). It runs in a thread, after a rollout and
once a day.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable
from pathlib import Path

from lapwing.agent import one_off
from lapwing.agent.state import EnvironmentState
from lapwing.build.release import ReleaseStore
from lapwing.build.retention import collect
from lapwing.desired.history import HISTORY_LENGTH, entries_to_keep, history
from lapwing.desired.repository import DesiredRepository
from lapwing.errors import LapwingError
from lapwing.settings import Settings
from lapwing.system import files

log = logging.getLogger(__name__)

LEFTOVER_AGE_S = 3600.0
"""Age from which a temporary file is that of a killed process, as is every one before the boot."""
FOLDERS = (
    *(".", "agent", "envoy", "certificates", "secrets", "secrets/*", "desired.git", "pull/*"),
    *("environments/*/*", "environments/*/*/static", "data/*/*/*"),
)
"""Where temporary files are written, in LAPWING_HOME; the rest belongs to applications."""

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
        running += [(name, run.spec.release) for name, run in state.runs.items()]
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
        for entry in entries_to_keep(entries):
            for service, at in entry.services.items():
                keep.setdefault((stack, service), set()).add(at.release)
    for stack, service, release in running:
        keep.setdefault((stack, service), set()).add(release)
    return keep


def remove_leftovers(home: Path) -> None:
    """Remove the temporary files that killed processes, of ours and of git, have left."""
    since_boot = time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
    before = time.time() - min(LEFTOVER_AGE_S, since_boot)
    found = [f for g in FOLDERS for f in home.glob(f"{g}/.*") if files.TEMPORARY.fullmatch(f.name)]
    for file in [*found, *(home / "desired.git" / "objects").glob("??/tmp_obj_*")]:
        with contextlib.suppress(OSError):
            if file.stat().st_mtime < before:
                file.unlink()


def clean_up(settings: Settings, repository: DesiredRepository, running: Releases) -> Keep:
    """Remove unneeded releases and layers, and pack the repository when it is due.

    Returns the releases that were kept, nothing after an error. Blocks for seconds, so call it in a
    thread. Errors are logged: nothing depends on it.
    """
    try:
        running |= one_off.releases(settings)
        keep = to_keep(repository, running, ReleaseStore(settings.releases))
        done = collect(settings, keep)
        repository.maintain()
    except (LapwingError, OSError) as error:
        log.warning("Housekeeping failed: %s", error)
        return {}
    if done.removed:
        mebibytes = done.bytes / 2**20
        log.info("Removed %s, %.0f MiB.", ", ".join(done.removed), mebibytes)
    return keep
