"""One-off commands of `lapwing run`: processes of the command line in a service's environment.

They are marked like every process of an environment, so `lapwing down` finds and stops them. Their
owner names the process that started them: while that is running, the agent does not stop them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

from lapwing.agent import process_tree, processes, termination
from lapwing.agent.processes import Identity

LABEL = "run-"
"""Prefix of the label of a one-off command; the start time of its caller follows."""


def label(caller: Identity) -> str:
    """Return the label of the commands of a caller; their index is its process id."""
    return f"{LABEL}{caller.started:.0f}"


def is_one_off(owner: str) -> bool:
    """Return whether an owner is that of a one-off command."""
    return owner.split("/")[3:4] != [] and owner.split("/")[3].startswith(LABEL)


def is_called(label: str, index: str) -> bool:
    """Return whether the caller of a one-off command is running."""
    if not label.startswith(LABEL) or not index.isdigit():
        return False
    since = processes.started(int(index))
    return since is not None and f"{since:.0f}" == label.removeprefix(LABEL)


def is_running(owner: str) -> bool:
    """Return whether an owner is that of a one-off command whose caller is running."""
    return is_one_off(owner) and is_called(*owner.split("/")[3:5])


async def stop_all(home: Path, prefix: str, grace: float) -> None:
    """Stop the one-off commands whose owner begins with `prefix`, each within `grace` seconds."""
    found = await asyncio.to_thread(lambda: [*process_tree.owned(home)])
    oldest = _oldest((p, o) for p, o in found if o.startswith(prefix) and is_one_off(o))
    await asyncio.gather(
        *(termination.stop(first, grace, f"{home}|{o}") for o, first in oldest.items())
    )


def _oldest(found: Iterable[tuple[Identity, str]]) -> dict[str, Identity]:
    """Return the first process of each owner: `stop` finds those that it started."""
    oldest = dict[str, Identity]()
    for identity, owner in found:
        known = oldest.get(owner)
        if known is None or (identity.started, identity.pid) < (known.started, known.pid):
            oldest[owner] = identity
    return oldest
