"""`status`, `promote` and `abort` of an environment that runs on a cluster, through its API.

A context that is not a local cluster of kind or minikube is changed only after a question, or with
`--yes`: the current context may be somebody's production.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from lapwing.cli.context import Context
from lapwing.errors import ContextError

if TYPE_CHECKING:
    from lapwing.kubernetes.applyset import Scope
    from lapwing.kubernetes.client import ApiClient
    from lapwing.kubernetes.objects import Reference
    from lapwing.observed.status import Status


def context_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--context NAME`: which context of the kubeconfig."""
    return click.option(
        "--context", "cluster", metavar="NAME", help="The kubeconfig's context, for a cluster."
    )(function)


def yes_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--yes`: do not ask before touching a cluster that is not a local one."""
    return click.option(
        "--yes", is_flag=True, help="Do not ask before changing a cluster that is not local."
    )(function)


def scope_of(context: Context, environment: str) -> tuple[Scope, str] | None:
    """Where an environment is on its cluster, and its URL; None if it runs on a machine."""
    from lapwing.stack.load import find, read_environment, read_name

    path = find(context.directory)
    said = read_environment(path, environment)
    if said.get("target") != "kubernetes":
        return None
    from lapwing.kubernetes.applyset import Scope

    stack, domain = read_name(path), said.get("domain")
    url = f"https://{domain}" if domain else ""
    return Scope(stack, environment, f"{stack}-{environment}"), url


def connect(context: Context, name: str | None, scope: Scope | None = None) -> ApiClient:
    """A client of the context that is named; else of the one that the environment of `scope` was
    applied to last; else of the current one. Raises ClusterError."""
    from lapwing.kubernetes import kubeconfig, local_state
    from lapwing.kubernetes.client import ApiClient

    settings = context.settings
    if name is None and scope is not None:
        name = local_state.read_context(settings.environment(scope.stack, scope.environment))
    return ApiClient(kubeconfig.read(settings.kubeconfigs(), name), settings.environ)


def status(context: Context, name: str | None, scope: Scope, url: str) -> Status | None:
    """What the cluster runs of an environment; None if nothing was ever wanted there. Where Lapwing
    applies it, a deployment that came to no end and that nobody is at work on is a problem."""
    from lapwing.kubernetes.status import read_status
    from lapwing.targets import cluster as told

    with connect(context, name, scope) as api:
        found = read_status(api, scope, url)
    return told.corrected(context.settings, scope, found, url)


def act(
    context: Context,
    name: str | None,
    scope: Scope,
    what: str,
    do: Callable[[ApiClient, Scope], list[Reference]],
    *,
    yes: bool,
) -> int:
    """Promote or abort, after a question where one is due; returns the exit status."""
    with connect(context, name, scope) as api:
        ask(api, what, scope, yes=yes)
        done = do(api, scope)
    return tell_act(context, what, done)


def tell_act(context: Context, what: str, done: list[Reference]) -> int:
    """Tell which rollouts were promoted or aborted; returns the exit status."""
    if context.for_programs:
        context.printer.json({"act": what, "services": [r.name for r in done]})
    else:
        context.printer.say(f"{what}: {', '.join(r.name for r in done)}.")
    return 0


def ask(api: ApiClient, what: str, scope: Scope, *, yes: bool) -> None:
    """Ask before a cluster is changed that is not local. Raises ContextError without a yes."""
    access = api.access
    if yes or access.local:
        return
    question = f"{what} in {scope.namespace} on {access.context} ({access.server})?"
    if not sys.stdin.isatty() or not click.confirm(question, err=True):
        raise ContextError(
            f"Context {access.context!r} is not a local cluster; nothing was changed.",
            hint="Name another with `--context NAME`, or say `--yes`.",
        )
