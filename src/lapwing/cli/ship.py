"""`lapwing ship`: what CI runs, from the source to a commit of the desired state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lapwing.cli.context import (
    Context,
    complete_services,
    environment_option,
    image_option,
    output_option,
)

if TYPE_CHECKING:
    from lapwing.commands.ship import Shipped


@click.command("ship")
@click.argument("services", nargs=-1, shell_complete=complete_services)
@environment_option
@click.option(
    "--desired",
    metavar="URL",
    help="The git repository of the desired state. Default: this machine's own.",
)
@click.option(
    "--registry",
    metavar="PLACE",
    help="Where to keep releases: PLACE/<stack>/<service>, tagged with the commit and `latest`. "
    "Default: `registry` of the stack file.",
)
@image_option
@click.option(
    "--scan",
    type=click.Choice(["on", "off"]),
    default="on",
    show_default=True,
    help="Whether to look for known vulnerabilities; `on` fails where there is no scanner.",
)
@click.option(
    "--fail-on",
    type=click.Choice(["low", "medium", "high", "critical"]),
    help="The severity from which a finding stops it. Default: `scan` of the stack file, else "
    "critical.",
)
@click.option("--check", is_flag=True, help="Stop before the commit: for pull requests.")
@output_option
@click.pass_obj
def command(
    context: Context, /, services: tuple[str, ...], environment: str, **options: Any
) -> None:
    """Build, test and scan SERVICES (all by default), then commit to the desired state.

    It touches nothing that runs: the agent deploys what was committed. Run it again after any
    failure; what is wanted already is not committed again. A commit that comes second is made again
    on top of the first, and nothing is ever pushed by force.
    """
    from lapwing.cli.transfer import Lines, Silent
    from lapwing.commands.ship import Wanted, ship
    from lapwing.stack.load import find, load
    from lapwing.targets.base import actor_name

    loaded = load(find(context.directory), environment)
    wanted = Wanted(
        services=services,
        remote=options["desired"],
        registry=options["registry"],
        images=options["images"],
        scanned=options["scan"] == "on",
        fail_on=options["fail_on"],
        committed=not options["check"],
        actor=actor_name(context.settings, loaded.folder),
    )
    with context.printer.working("building"):
        progress = Silent() if context.for_programs else Lines(context.printer)
        shipped = ship(loaded, context.settings, wanted, context.printer.progress, progress)
    if context.for_programs:
        context.printer.json(_answer(shipped))
        return
    for name, outcome, text in shipped.steps:
        context.printer.say(f"  {name:6} {outcome}: {text}")
    for change in shipped.changes:
        context.printer.say(f"  {change}")
    if shipped.commit:
        context.printer.data(shipped.commit)


def _answer(shipped: Shipped) -> dict[str, Any]:
    until = {finding: str(entry.until) for finding, entry in shipped.accepted}
    return {
        "commit": shipped.commit,
        "services": {
            name: {"release": r.release.name, "revision": r.revision, "reused": r.reused}
            for name, r in shipped.built.items()
        },
        "steps": [{"name": n, "outcome": o, "text": t} for n, o, t in shipped.steps],
        "findings": [
            {
                "id": f.id,
                "package": f.package,
                "version": f.version,
                "severity": f.severity,
                "fixed": f.fixed,
                "accepted_until": until.get(f),
            }
            for f in shipped.findings
        ],
        "changes": [c.as_data for c in shipped.changes],
    }
