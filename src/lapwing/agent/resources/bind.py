"""Binding: what provides a resource of the stack file, decided when a deployment is created.

In this order: a URL set in an environment variable; a container, where an engine runs; a server
program on the PATH; for a resource with `embedded: true`, a folder in which the application keeps
its data itself. A binding stays, also after `lapwing down`: an engine or a database program that is
installed later does not silently replace what created the data.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec import UNSET

from lapwing.agent.resources import images
from lapwing.agent.resources.kinds import HOW_TO_GET, PROGRAMS
from lapwing.errors import ResourceError
from lapwing.plan.model import Resource, ResourceContainer, ResourceKind


@dataclass(frozen=True, slots=True)
class Host:
    """What this machine has for a resource: the folder of its data, an engine, programs."""

    folder: Path
    engine: Callable[[], bool]
    find: Callable[[str], str | None] = shutil.which


def bind(
    name: str,
    wanted: Resource,
    *,
    embedded: bool,
    url: str | None,
    current: Resource | None,
    keep_url: Callable[[str], str],
    host: Host,
) -> Resource:
    """Bind a resource: return `wanted` with the provider and its details.

    `current` is the binding in the running document; `keep_url` stores a URL as a secret and
    returns its version. Raises ResourceError if no provider is found.
    """
    bound = msgspec.structs.replace(wanted, container=UNSET)
    if url is not None:
        return msgspec.structs.replace(bound, provider="url", secret=keep_url(url), program=None)
    current = current if current is not None and current.kind == wanted.kind else None
    before = images.recorded(host.folder)
    if current is not None and isinstance(current.container, ResourceContainer):
        before = current.container
    has_data = images.has_data(host.folder)
    if current is None and before is None and not has_data and host.engine():
        return msgspec.structs.replace(wanted, provider="container")
    if before is not None and (current is None or current.provider == "container"):
        return _kept(name, wanted, before)
    if current is not None:
        if current.provider == "binary" and not os.access(current.program or "", os.X_OK):
            raise ResourceError(
                f"{current.program}, the server program with the data of {name}, is missing.",
                hint=f"Reinstall it, or set {variable(name)} to the URL of another server.",
            )
        return msgspec.structs.replace(
            bound,
            provider=current.provider,
            program=current.program,
            secret=current.secret,
        )
    program = _on_path(wanted.kind, host.find)
    if program is not None:
        return msgspec.structs.replace(bound, provider="binary", program=program)
    if embedded:
        return msgspec.structs.replace(bound, provider="embedded")
    raise ResourceError(
        f"No {wanted.kind} server for resource {name} was found on this machine.",
        hint=f"{HOW_TO_GET[wanted.kind]}, or set {variable(name)} to the URL of a server.",
    )


def _kept(name: str, wanted: Resource, before: ResourceContainer) -> Resource:
    """Keep a container: of the same image by the same digest. Raises ResourceError."""
    assert isinstance(wanted.container, ResourceContainer)
    new = wanted.container
    if new.image == before.image:
        new = msgspec.structs.replace(new, digest=before.digest)
    elif wanted.kind == "postgres" and _major(new.image) != _major(before.image):
        raise ResourceError(
            f"The data of {name} was created by {before.image}, and {new.image} cannot read it.",
            hint=f"Set `image: {before.image}` of {name}; to change it, dump the database and load "
            "it into a new resource.",
        )
    return msgspec.structs.replace(wanted, provider="container", container=new)


def _major(image: str) -> str:
    """Return the major version in the tag of an image: `17` of `postgres:17.2-alpine`."""
    found = re.search(r"\d+", image.partition("@")[0].rpartition(":")[2])
    return found[0] if found else ""


def variable(name: str) -> str:
    """Return the environment variable that sets the URL of a resource (see `settings.py`)."""
    return f"LAPWING_RESOURCE_{name.upper().replace('-', '_')}_URL"


def _on_path(kind: ResourceKind, find: Callable[[str], str | None]) -> str | None:
    for program in PROGRAMS.get(kind, ()):
        for name in program.names:
            found = find(name)
            if found is not None and "mariadb" not in Path(found).resolve().name:
                return found
    return None
