"""Binding: what provides a resource of the stack file, decided when a deployment is created.

In this order: a URL set in an environment variable; a server program on the PATH; for a resource
with `embedded: true`, a folder in which the application keeps its data itself. A binding stays: a
database program installed later does not silently replace the one that holds the data.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

from lapwing.agent.resources.kinds import HOW_TO_GET, PROGRAMS
from lapwing.errors import ResourceError
from lapwing.plan.model import Resource, ResourceKind


def bind(
    name: str,
    wanted: Resource,
    *,
    embedded: bool,
    url: str | None,
    current: Resource | None,
    keep_url: Callable[[str], str],
    find: Callable[[str], str | None] = shutil.which,
) -> Resource:
    """Bind a resource: return `wanted` with the provider and its details.

    `current` is the binding in the running document; `keep_url` stores a URL as a secret and
    returns its version. Raises ResourceError if no provider is found.
    """
    import msgspec

    if url is not None:
        version = keep_url(url)
        return msgspec.structs.replace(wanted, provider="url", secret=version, program=None)
    if current is not None and current.kind == wanted.kind:
        if current.provider == "binary" and not os.access(current.program or "", os.X_OK):
            raise ResourceError(
                f"{current.program}, the server program with the data of {name}, is missing.",
                hint=f"Reinstall it, or set {variable(name)} to the URL of another server.",
            )
        return msgspec.structs.replace(
            wanted,
            provider=current.provider,
            program=current.program,
            secret=current.secret,
        )
    program = _on_path(wanted.kind, find)
    if program is not None:
        return msgspec.structs.replace(wanted, provider="binary", program=program)
    if embedded:
        return msgspec.structs.replace(wanted, provider="embedded")
    raise ResourceError(
        f"No {wanted.kind} server for resource {name} was found on this machine.",
        hint=f"{HOW_TO_GET[wanted.kind]}, or set {variable(name)} to the URL of a server.",
    )


def variable(name: str) -> str:
    """Return the environment variable that sets the URL of a resource (see `settings.py`)."""
    return f"LAPWING_RESOURCE_{name.upper().replace('-', '_')}_URL"


def _on_path(kind: ResourceKind, find: Callable[[str], str | None]) -> str | None:
    for program in PROGRAMS.get(kind, ()):
        for name in program.names:
            found = find(name)
            if found is not None:
                return found
    return None
