"""Remove the document of an environment from the desired state; its history stays in git."""

from __future__ import annotations

from lapwing.desired import message
from lapwing.desired.git_objects import import_commit
from lapwing.desired.repository import DesiredRepository


def remove(repository: DesiredRepository, stack: str, environment: str, actor: str) -> None:
    """Commit that an environment has no document any more. Idempotent.

    Raises DesiredStateError or NoSpaceError.
    """
    with repository.writing():
        if repository.newest(stack, environment) is None:
            return
        pairs = {"Stack": stack, "Environment": environment, "Kind": "remove", "Actor": actor}
        trailers = (f"{message.PREFIX}{k}: {message.one_line(v)}" for k, v in pairs.items())
        text = "\n".join((f"remove {stack}/{environment}", "", *trailers))
        folder = f"{stack}/{environment}"
        import_commit(repository.git, repository.head(), text, actor, {}, folder)
