"""`lapwing run`: a one-off command in the environment of a service."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from lapwing.cli import complete
from lapwing.cli.context import ARGUMENTS, Context
from lapwing.cli.options import context_option, environment_option
from lapwing.errors import StateError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lapwing.targets.cluster import ClusterEnvironment


class _Command(click.Command):
    """Options end at the command: those after it belong to it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        valued = {name for p in self.params if isinstance(p, click.Option) and not p.is_flag
                  for name in p.opts}  # fmt: skip
        ordered = options_first(args, valued)
        ctx.meta[ARGUMENTS] = ["run", *ordered]
        return super().parse_args(ctx, ordered)


def options_first(args: Sequence[str], valued: set[str]) -> list[str]:
    """Return options, `--`, the service, and the command with its options.

    `valued` are the options with a value.
    """
    options, service, rest = list[str](), list[str](), list(args)
    while rest and (rest[0].startswith("-") or not service):
        word = rest.pop(0)
        if word == "--":
            break
        if not word.startswith("-"):
            service = [word]
            continue
        options.append(word)
        if word in valued and rest:
            options.append(rest.pop(0))
    return [*options, "--", *service, *rest]


@click.command("run", cls=_Command)
@click.argument("service", shell_complete=complete.services)
@click.argument("words", nargs=-1, required=True, metavar="COMMAND...")
@environment_option
@context_option
@click.pass_obj
def command(
    context: Context,
    /,
    service: str,
    words: tuple[str, ...],
    environment: str,
    cluster: str | None,
) -> int:
    """Run a one-off command with the files, settings and secrets of a service.

    The command runs beside the replicas of the active release, in this terminal, and its exit
    status is returned. A single word is run by the shell: `lapwing run api 'echo $DB_URL'`.
    `lapwing down` stops the command. Options of `lapwing` go before the command.
    """
    from lapwing.targets import one_off

    place = context.cluster(environment, cluster)
    if place is not None:
        raise _on_a_cluster(place, service, words)
    return one_off.run(context.settings, context.ref(environment), service, words)


def _on_a_cluster(place: ClusterEnvironment, service: str, words: Sequence[str]) -> Exception:
    from lapwing.kubernetes import pods

    with place.connect() as api:
        names = [
            p.name
            for p in pods.list_pods(api, place.scope)
            if p.belongs_to(service) and p.active and p.ready
        ]
        access = api.access.context
    if not names:
        return StateError(
            f"{place.scope.namespace} has no ready pod of {service}.",
            hint=f"`lapwing status -e {place.ref.environment}` shows its state.",
        )
    where = f"--context {access} --namespace {place.scope.namespace}"
    return UsageError(
        f"`lapwing run` does not run commands on a cluster ({place.ref}).",
        hint=f"Run `kubectl {where} exec -it {names[0]} -- {shlex.join(words)}`.",
    )
