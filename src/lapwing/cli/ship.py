"""`lapwing ship`: what CI runs, from the source to a commit of the desired state."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click
import msgspec

from lapwing.cli import complete
from lapwing.cli.context import Context
from lapwing.cli.options import environment_option, image_option, output_option
from lapwing.errors import ServerError
from lapwing.plan.diff import Change

if TYPE_CHECKING:
    from lapwing.commands.shipment import ShipResult
    from lapwing.server.source import Snapshot


@click.command("ship")
@click.argument("services", nargs=-1, shell_complete=complete.services)
@environment_option
@click.option(
    "--desired",
    metavar="URL",
    help="The desired-state repository to commit to. Default: `desired` or `repository` of the "
    "environment, else this machine's.",
)
@click.option(
    "--registry",
    metavar="HOST/FOLDER",
    help="Push releases to HOST/FOLDER/<stack>/<service>, or images of a cluster to "
    "HOST/FOLDER/<service>, tagged with the commit and `latest`. Default: `registry` of the stack "
    "file.",
)
@image_option
@click.option(
    "--scan",
    type=click.Choice(["on", "off"]),
    default="on",
    show_default=True,
    help="Whether to scan for known vulnerabilities; `on` requires trivy or grype.",
)
@click.option(
    "--fail-on",
    type=click.Choice(["low", "medium", "high", "critical"]),
    help="The lowest severity that fails the scan. Default: `scan` of the stack file, else "
    "critical.",
)
@click.option("--check", is_flag=True, help="Stop before the commit, for pull requests.")
@output_option
@click.pass_obj
def command(
    context: Context, /, services: tuple[str, ...], environment: str, **options: Any
) -> int:
    """Build, test and scan SERVICES (default: all), then commit to the desired state.

    Running services are not changed: the agent or Argo CD deploys the commit. Run it again after
    any failure; an unchanged desired state is not committed again. After a conflict the commit is
    made again on top of the other, and nothing is ever pushed by force.

    For an environment with a `host`, the last step is `lapwing deploy` on that server, which waits
    for the outcome. The exit status is then 1 if the deployment was rejected or rolled back.
    """
    from lapwing.cli import branches, remote
    from lapwing.cli.transfer import lines
    from lapwing.commands.ship import ship
    from lapwing.commands.shipment import ShipOptions
    from lapwing.server import source
    from lapwing.targets.base import actor_name
    from lapwing.targets.sources import source_folder, wanted_services

    if not options["check"]:
        branches.prepare(context, "ship", environment)
    loaded = context.load(environment)
    desired = loaded.settings.desired
    url = options["desired"] or (desired.url if desired is not None else None)
    host = remote.host_of(context, environment) if url is None else None
    wanted = ShipOptions(
        services=services,
        remote=url,
        registry=options["registry"],
        images=options["images"],
        scan=options["scan"] == "on",
        fail_on=options["fail_on"],
        commit=not options["check"],
        by_server=host is not None,
        actor=actor_name(context.settings, loaded.folder),
    )
    context.prepare_home()
    environ = context.settings.environ or os.environ
    snapshot = source.take(loaded.folder, environ) if host is not None else None
    with context.printer.working("building"):
        progress = lines(context.printer, quiet=context.for_programs)
        result = ship(loaded, context.settings, wanted, context.printer.progress, progress)
    status = 0
    if host is not None and snapshot is not None and not options["check"]:
        names = wanted_services(loaded, services)
        paths = (loaded.path, *(source_folder(loaded, name) for name in names))
        source.check_unchanged(snapshot, paths, environ)
        status = _deploy(context, host, environment, services, snapshot, result)
    if context.for_programs:
        context.printer.json(_to_json(result))
        return status
    for name, outcome, text in result.steps:
        context.printer.say(f"  {name:6} {outcome}: {text}")
    for change in result.changes:
        context.printer.say(f"  {change}")
    if result.commit:
        context.printer.data(result.commit)
    return status


def _deploy(
    context: Context,
    host: str,
    environment: str,
    services: tuple[str, ...],
    snapshot: Snapshot,
    result: ShipResult,
) -> int:
    """Deploy on the server of the environment as the last step; return the exit status.

    For programs, commit and changes are taken from the output of the deployment. Raises
    LapwingError.
    """
    from lapwing.cli import remote

    words = ["deploy", *services, *(("--output", "json") if context.for_programs else ())]
    status, output = remote.run_on_server(
        context, host, environment, words, snapshot=snapshot, capture=context.for_programs
    )
    text = f"on {host}"
    if context.for_programs:
        try:
            made = msgspec.json.decode(output)
        except msgspec.DecodeError as error:
            shown = output.decode(errors="replace").strip() or None
            raise ServerError(f"{host} did not report the outcome.", detail=shown) from error
        if "error" in made:
            raise ServerError(made["error"]["message"], hint=made["error"]["hint"])
        result.commit = made["commit"]
        result.changes = msgspec.convert(made["changes"], list[Change])
        text = f"{made['outcome']} {text}"
    result.steps.append(("deploy", "failed" if status else "done", text))
    return status


def _to_json(result: ShipResult) -> dict[str, Any]:
    until = {finding: str(entry.until) for finding, entry in result.accepted}
    return {
        "commit": result.commit,
        "services": {
            name: {"release": r.release.name, "revision": r.revision, "reused": r.reused}
            for name, r in result.built.items()
        },
        "images": result.images,
        "steps": [{"name": n, "outcome": o, "text": t} for n, o, t in result.steps],
        "findings": [
            {
                "id": f.id,
                "package": f.package,
                "version": f.version,
                "severity": f.severity,
                "fixed": f.fixed,
                "accepted_until": until.get(f),
            }
            for f in result.findings
        ],
        "changes": msgspec.to_builtins(result.changes),
    }
