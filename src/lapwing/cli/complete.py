"""Complete names for a shell: of services, environments, secrets and releases.

An invalid stack file, or none, completes nothing: a shell has no place for an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from lapwing.stack.load import StackFile

Names = Callable[["StackFile", str], Iterable[str]]
Completer = Callable[[click.Context, click.Parameter, str], list[str]]


def _completer(names: Names) -> Completer:
    """Return a completer of the names that belong to a stack file and an environment."""

    def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
        from lapwing.errors import LapwingError
        from lapwing.stack.load import StackFile, find

        folder = ctx.find_root().params.get("directory") or Path()
        environment = str(ctx.params.get("environment") or "local")
        value = ctx.params.get(parameter.name or "")
        given = value if isinstance(value, tuple) else ()
        try:
            found = list(names(StackFile(find(folder)), environment))
        except LapwingError:
            return []
        return [n for n in found if n.startswith(incomplete) and n not in given]

    return complete


def _secrets(file: StackFile, _environment: str) -> Iterable[str]:
    from lapwing.stack.secret_names import secret_names

    return secret_names(file.source)


def _stored_secrets(file: StackFile, environment: str) -> Iterable[str]:
    from lapwing import settings
    from lapwing.desired.secrets import SecretStore

    return sorted(SecretStore(settings.read().secrets).current(file.stack, environment))


def _releases(file: StackFile, environment: str) -> Iterable[str]:
    """Return the releases of earlier deployments, newest first."""
    from lapwing import settings
    from lapwing.desired.history import history
    from lapwing.desired.repository import DesiredRepository

    repository = DesiredRepository(settings.read().desired)
    entries = history(repository, file.stack, environment, limit=50)
    return dict.fromkeys(s.release for e in entries[1:] for s in e.services.values())


services = _completer(lambda file, _: file.names("services"))
parts = _completer(lambda file, _: [*file.names("services"), *file.names("resources")])
environments = _completer(lambda file, _: file.environments)
secrets = _completer(_secrets)
stored_secrets = _completer(_stored_secrets)
releases = _completer(_releases)
