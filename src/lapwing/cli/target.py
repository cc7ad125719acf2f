"""Which environment of which stack a verb is about, from the folder it is called in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lapwing.cli.context import Context
from lapwing.errors import UsageError
from lapwing.observed import agent, status
from lapwing.observed.status import Status
from lapwing.targets.planned import Where

if TYPE_CHECKING:
    from lapwing.desired.remote import Remote


def where(context: Context, environment: str) -> Where:
    """The stack of the folder, and the environment that was asked for. Raises StackFileError."""
    from lapwing.stack.load import find, read_name

    return Where(read_name(find(context.directory)), environment)


def remote_of(context: Context, environment: str) -> Remote | None:
    """The desired state of an environment that Argo CD looks after; None for any other. Reads the
    file and nothing more: every rollback on a machine asks this, too. Raises StackFileError."""
    from lapwing.desired.remote import Remote
    from lapwing.stack.load import find, read_environment

    said = read_environment(find(context.directory), environment)
    url = said.get("repository")
    if said.get("target") != "kubernetes" or not url:
        return None
    return Remote(str(url), context.settings.remotes, context.settings.environ)


def present(context: Context, target: Where) -> Status | None:
    """What the agent says of an environment; None if it was never deployed here."""
    return status.read(context.settings.environment(target.stack, target.environment))


def agent_lives(context: Context) -> bool:
    """Whether the agent lives now."""
    return agent.is_running(context.settings.agent)


def never_deployed(target: Where) -> UsageError:
    """The error for an environment that nothing is known of."""
    return UsageError(
        f"{target} has never been deployed on this machine.", hint="`lapwing up` deploys it."
    )
