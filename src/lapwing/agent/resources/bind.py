"""Binding: what stands behind a resource of the stack file, decided when a deployment is made.

In this order: the URL that the user gives in the environment; the server program on the PATH; for
a resource with `embedded: true`, a folder that the application keeps its data in by itself. A
binding stays: a database program that appears on the PATH later does not silently take the place
of the one that holds the data.
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
    """Bind a resource. `wanted` has its settings; provider and what belongs to it are filled in.

    `current` is the binding of the running document, `keep_url` stores a URL as a secret and
    returns its version. Raises ResourceError if there is nothing to bind it to.
    """
    import msgspec

    if url is not None:
        version = keep_url(url)
        return msgspec.structs.replace(wanted, provider="url", secret=version, program=None)
    if current is not None and current.kind == wanted.kind:
        if current.provider == "binary" and not os.access(current.program or "", os.X_OK):
            raise ResourceError(
                f"{current.program}, which holds the data of {name}, is gone.",
                hint=f"Install it again, or set {variable(name)} to another server's URL.",
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
        f"There is no server for {name} ({wanted.kind}) on this machine.",
        hint=f"{HOW_TO_GET[wanted.kind]}, or set {variable(name)} to the URL of one.",
    )


def variable(name: str) -> str:
    """The variable by which a user gives the URL of a resource (read in `settings.py`)."""
    return f"LAPWING_RESOURCE_{name.upper().replace('-', '_')}_URL"


def _on_path(kind: ResourceKind, find: Callable[[str], str | None]) -> str | None:
    for program in PROGRAMS.get(kind, ()):
        for name in program.names:
            found = find(name)
            if found is not None:
                return found
    return None
