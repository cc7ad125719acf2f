"""Where a verb runs: here, on the server of its environment, or in the repository that it pulls."""

from __future__ import annotations

import functools
from typing import Any

import click

from lapwing.cli import branches, remote
from lapwing.cli.context import ARGUMENTS, Context

IN_REPOSITORY = {"deploy", "up", "rollback", "down", "history"}
"""Verbs that need only the desired-state repository of a machine that pulls."""


@functools.cache
def forward(command: click.Command) -> None:
    """Let a verb, and its subcommands, run on the server of its environment. Done once for each."""
    for inner in command.commands.values() if isinstance(command, click.Group) else ():
        forward(inner)
    call = command.callback
    if call is None or not any(p.name == "environment" for p in command.params):
        return

    @functools.wraps(call)
    def run(*arguments: Any, **options: Any) -> Any:
        current = click.get_current_context()
        context = current.find_object(Context)
        environment = current.params["environment"]
        if context is None:
            return call(*arguments, **options)
        verb, host = current.meta[ARGUMENTS][0], remote.host_of(context, environment)
        is_list = verb == "status" or current.params.get("gone")
        if is_list and branches.is_template(context, environment):
            return call(*arguments, **options)
        branches.prepare(context, verb, environment, dry_run=bool(current.params.get("dry_run")))
        if verb != "agent" and remote.is_pulled_elsewhere(context, environment):
            if verb in IN_REPOSITORY:
                return call(*arguments, **options)
            if host is None:
                from lapwing.targets.pulled import not_here

                raise not_here(verb, context.ref(environment))
        if host is None:
            return call(*arguments, **options)
        if verb == "down" and current.params.get("volumes"):
            removed = branches.skip_removal(context, environment)
            if removed is not None:
                return removed
        words, given = current.meta[ARGUMENTS], current.params.get("identity")
        status, _ = remote.run_on_server(
            context,
            host,
            environment,
            remote.identity_from_stdin(words) if given else words,
            given=given,
        )
        return status

    command.callback = run
