"""`lapwing deploy`: build what changed and release it without dropping a request."""

from __future__ import annotations

from collections.abc import Mapping

import click

from lapwing.cli.context import (
    Context,
    complete_services,
    environment_option,
    image_option,
    output_option,
)

ATTEMPTS = 5
"""How often a deployment is prepared again when another one commits first."""


@click.command("deploy")
@click.argument("services", nargs=-1, shell_complete=complete_services)
@environment_option
@click.option("--hold", is_flag=True, help="Stop before the switch; `lapwing promote` goes on.")
@image_option
@click.option(
    "--allow-downtime",
    is_flag=True,
    help="On a cluster: commit a new image of a service with an offline migration. Back up first.",
)
@click.option("--dry-run", is_flag=True, help="Build, and tell what would change; change nothing.")
@output_option
@click.pass_obj
def command(
    context: Context,
    services: tuple[str, ...],
    environment: str,
    hold: bool,
    images: dict[str, str],
    allow_downtime: bool,
    dry_run: bool,
) -> int:
    """Build SERVICES (all by default) and release what changed.

    Exit status: 0 deployed (or held), 1 rejected or rolled back, 2 an invalid stack file,
    130 interrupted: a deployment that was committed goes on.
    """
    return run(
        context,
        services,
        environment,
        hold=hold,
        dry_run=dry_run,
        images=images,
        allow_downtime=allow_downtime,
    )


def run(
    context: Context,
    services: tuple[str, ...],
    environment: str,
    *,
    hold: bool = False,
    dry_run: bool = False,
    images: Mapping[str, str] | None = None,
    allow_downtime: bool = False,
) -> int:
    """Deploy; returns the exit status. Shared with `up`."""
    from lapwing import wiring
    from lapwing.acts import agent, deploy, follow
    from lapwing.acts.change import Where
    from lapwing.cli import rolling
    from lapwing.errors import ConflictError
    from lapwing.stack.load import find, load

    printer, settings = context.printer, context.settings
    loaded = load(find(context.directory), environment)
    if loaded.settings.target == "kubernetes":
        from lapwing.cli import delivery

        return delivery.deploy(
            context,
            loaded,
            services,
            images or {},
            hold=hold,
            dry_run=dry_run,
            allow_downtime=allow_downtime,
        )
    if images:
        raise click.UsageError("--image is for a cluster; a machine builds from source.")
    if not dry_run:
        agent.begin(settings)  # It starts while we build.
    where = Where(loaded.stack.stack, environment)
    actor = wiring.actor(settings, loaded.folder)
    for attempt in range(ATTEMPTS):
        with printer.working("building"):
            prepared = deploy.prepare(
                loaded, settings, services=services, hold=hold, actor=actor, tell=printer.progress
            )
        if dry_run:
            return _tell(context, prepared)
        agent.ensure(settings, printer.progress)
        if not prepared.changes:
            return _nothing(context, where)
        for change in prepared.changes:
            printer.say(f"  {change.act:6} {change.name}: {change.text}")
        listener = follow.watch(settings, where.stack, where.environment)
        try:
            commit = deploy.commit(prepared, settings)
        except ConflictError:
            if attempt + 1 == ATTEMPTS:
                raise
            continue
        return rolling.watch(context, where, listener, commit, prepared.document)
    raise AssertionError("the last attempt returns or raises")


def _tell(context: Context, prepared: object) -> int:
    from lapwing.acts.deploy import Prepared

    assert isinstance(prepared, Prepared)
    if context.for_programs:
        context.printer.json(
            [{"name": c.name, "act": c.act, "text": c.text} for c in prepared.changes]
        )
    elif not prepared.changes:
        context.printer.data("Nothing would change.")
    for change in prepared.changes if not context.for_programs else ():
        context.printer.data(f"{change.act:6} {change.name}: {change.text}")
    return 0


def _nothing(context: Context, where: object) -> int:
    from lapwing.acts.change import Where
    from lapwing.cli.target import present

    assert isinstance(where, Where)
    status = present(context, where)
    in_flight = status.rollout if status else None
    if context.for_programs:
        context.printer.json({"outcome": "unchanged", "commit": status.commit if status else None})
    elif in_flight is not None:
        context.printer.say(
            f"Nothing new: deployment {in_flight.commit[:12]} with the same is {in_flight.state}."
        )
    else:
        context.printer.say("Nothing to deploy: what is in the folder already runs.")
    return 0
