"""One-off commands of `lapwing run`: processes or containers in a service's environment.

They are marked like every process of an environment, so `lapwing down` finds and stops them. Their
owner names the release, and the process that started them: while that is running, the agent does
not stop them. The home folder of a command records that it is in progress, from before its start
until after its end. The agent stops a command whose caller was killed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

from lapwing.agent import processes, termination
from lapwing.agent.containers import Containers
from lapwing.agent.processes import Identity, Owner
from lapwing.settings import Settings
from lapwing.system.files import remove_tree

LABEL = "run-"
"""Prefix of the label of a one-off command: `run-START-RELEASE`, the start time of its caller."""
CONTAINER = ".container"
"""A file in the home folder of a command that runs in a container."""
GRACE_S = 10.0
"""How long a one-off command may take to end."""


def label(caller: Identity, release: str) -> str:
    """Return the label of the commands of a caller; their index is its process id."""
    return f"{LABEL}{caller.started:.0f}-{release}"


def is_one_off(owner: str) -> bool:
    """Return whether an owner is that of a one-off command."""
    return owner.split("/")[3:4] != [] and owner.split("/")[3].startswith(LABEL)


def is_running(owner: str) -> bool:
    """Return whether an owner is that of a one-off command whose caller is running."""
    if not is_one_off(owner):
        return False
    label, index = owner.split("/")[3:5]
    since = processes.started(int(index)) if index.isdigit() else None
    return since is not None and f"{since:.0f}" == label.split("-")[1]


def releases(settings: Settings) -> set[tuple[str, str, str]]:
    """Return stack, service and release of each command in progress."""
    found = (owner for owner, _ in _find(settings, "*/*/"))
    return {(o.stack, o.service, o.label.split("-", 2)[-1]) for o in found}


async def stop_all(settings: Settings, containers: Containers, prefix: str) -> None:
    """Stop the commands of an environment (`STACK/ENVIRONMENT/`)."""
    found = _find(settings, prefix)
    await asyncio.gather(*(_stop(settings, containers, *each) for each in found))


async def stop_abandoned(settings: Settings, containers: Containers) -> None:
    """Stop the commands whose caller was killed, with all that they started."""
    found = [each for each in _find(settings, "*/*/") if not is_running(str(each[0]))]
    await asyncio.gather(*(_stop(settings, containers, *each) for each in found))


async def _stop(settings: Settings, containers: Containers, owner: Owner, folder: Path) -> None:
    mark = f"{settings.home}|{owner}"
    if (folder / CONTAINER).exists():
        await containers.stop(await containers.find(mark), mark, GRACE_S)
    else:
        await termination.stop(Identity(0, 0.0), GRACE_S, mark)
    if not is_running(str(owner)):
        await asyncio.to_thread(remove_tree, folder)


def _find(settings: Settings, prefix: str) -> Iterator[tuple[Owner, Path]]:
    """Yield the owner and the home folder of each command."""
    root = settings.home / "environments"
    for folder in root.glob(f"{prefix}homes/*/{LABEL}*"):
        stack, environment, _, service, name = folder.relative_to(root).parts
        label, _, index = name.rpartition(".")
        if index.isdigit():
            yield Owner(stack, environment, service, label, int(index)), folder
