"""`lapwing image prune`: remove old images of the stack's services from the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lapwing.cli import complete
from lapwing.cli.context import Context
from lapwing.cli.options import declared_environment_option, output_option
from lapwing.cli.references import plain_http_option

if TYPE_CHECKING:
    from lapwing.plan.image_retention import Decision
    from lapwing.targets.image_prune import PrunedRepository


@click.command("prune")
@click.argument("services", nargs=-1, shell_complete=complete.services)
@declared_environment_option
@click.option("--dry-run", is_flag=True, help="Show the decisions, and delete nothing.")
@click.option(
    "--not-deployed",
    multiple=True,
    metavar="ENVIRONMENT",
    help="An environment of the stack file that was never deployed. Repeatable.",
)
@click.option(
    "--registry",
    metavar="HOST/FOLDER",
    help="Where the images are: HOST/FOLDER/<service>. Default: `registry` of the stack file.",
)
@plain_http_option
@output_option
@click.pass_obj
def prune(context: Context, /, services: tuple[str, ...], environment: str, **options: Any) -> None:
    """Delete old images of SERVICES (default: all with a source) from the registry.

    Keeps the newest 10 tagged images of each service, `latest`, tags that begin with `deployed-`,
    untagged images of the last 30 days, and what any environment runs or can be rolled back to,
    with the platforms, signatures and SBOMs of these images.
    """
    from lapwing.targets.image_prune import PruneOptions, prune_images

    wanted = PruneOptions(services, **options)
    loaded = context.load(environment)
    context.prepare_home()
    with context.printer.working("listing images"):
        say = context.printer.progress
        found = prune_images(context.stack_file, loaded, context.settings, wanted, say)
    if context.for_programs:
        repositories = [_to_json(each) for each in found]
        context.printer.json({"dry_run": wanted.dry_run, "repositories": repositories})
        return
    for each in found:
        for decision in each.decisions:
            context.printer.data(_line(each, decision, dry_run=wanted.dry_run))
    unwanted = sum(not d.keep for each in found for d in each.decisions)
    verb = "would be deleted" if wanted.dry_run else "deleted"
    total = sum(len(each.decisions) for each in found)
    context.printer.say(
        f"{unwanted} of {total} manifests {verb}. The registry frees the space of their layers."
    )


def _line(found: PrunedRepository, decision: Decision, *, dry_run: bool) -> str:
    verb = "keep" if decision.keep else "delete" if dry_run else "deleted"
    stored = decision.stored
    tags = f" ({', '.join(stored.tags)})" if stored.tags else ""
    return f"{verb:<7}  {found.service}@{stored.digest[:19]}{tags}: {decision.reason}"


def _to_json(found: PrunedRepository) -> dict[str, Any]:
    return {
        "service": found.service,
        "repository": found.repository,
        "manifests": [
            {
                "digest": each.stored.digest,
                "tags": list(each.stored.tags),
                "time": each.stored.time,
                "keep": each.keep,
                "reason": each.reason,
                "deleted": each.stored.digest in found.deleted,
            }
            for each in found.decisions
        ],
    }
