"""`lapwing check`: validate the stack file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lapwing.cli.context import Context
from lapwing.cli.options import environment_named, output_option
from lapwing.errors import LapwingError, StackFileError

if TYPE_CHECKING:
    from lapwing.stack.load import LoadedStack


@click.command("check")
@environment_named("Check only this environment. Default: all, but requirements only of `local`.")
@output_option
@click.pass_obj
def command(context: Context, environment: str | None) -> None:
    """Validate the stack file; list every problem with its line and a hint.

    If the environment is on a machine, what a deployment would refuse before it builds is listed as
    well: unset secrets, missing database servers, missing folders and lock files, versions of Node;
    in a cluster, the secrets that are not set here. Exit status: 0 if the file is valid, 2 if not.
    """
    from lapwing.stack.environment_rules import built_images, ignored_settings
    from lapwing.stack.load import LOCAL, environments, find, load
    from lapwing.targets.image_pins import unpinned_notes

    path = find(context.directory)
    checked = environments(path, environment)
    loaded = load(path, environment or LOCAL)
    services = loaded.stack.services
    notes = [
        note
        for each in checked
        for notes_of in (ignored_settings, built_images)
        for note in notes_of(each.stack, each.environment, each.settings)
    ]
    notes += [note for each in checked for note in unpinned_notes(each)]
    missing = _missing(context, loaded)
    notes += missing
    if context.for_programs:
        context.printer.json(
            {
                "stack": loaded.stack.stack,
                "file": str(path),
                "services": {n: {"kind": s.kind, "route": s.route} for n, s in services.items()},
                "resources": {n: r.kind for n, r in loaded.stack.resources.items()},
                "environments": sorted({"local", *loaded.stack.environments}),
                "problems": [],
                "notes": notes,
            }
        )
        return
    rows = [(n, s.kind, s.route or "-", ", ".join(s.needs) or "-") for n, s in services.items()]
    context.printer.table(("SERVICE", "KIND", "ROUTE", "NEEDS"), rows)
    for note in notes:
        context.printer.say(note)
    if missing and loaded.settings.target == "machine":
        refused = f"`lapwing deploy -e {loaded.environment}` would be refused"
        context.printer.say(f"{path} is valid, but {refused}.", style="yellow")
    else:
        context.printer.say(f"{path} is valid.", style="green")


def _missing(context: Context, loaded: LoadedStack) -> list[str]:
    """What a deployment on this machine would lack."""
    from lapwing.stack.load import check_machine
    from lapwing.targets.requirements import missing_requirements

    if loaded.settings.target != "machine":
        return _missing_in_cluster(context, loaded)
    try:
        check_machine(loaded)
        problems = missing_requirements(loaded, context.settings)
    except StackFileError:  # The implied `local` of a stack of containers.
        return []
    except LapwingError as error:
        problems = [error]
    return [f"{loaded.environment}: {p.message} {p.hint or ''}".rstrip() for p in problems]


def _missing_in_cluster(context: Context, loaded: LoadedStack) -> list[str]:
    """What a deployment to a cluster would lack, unless the cluster has it."""
    from lapwing.targets.kubernetes_plan import find_unset_secrets

    name = loaded.environment
    return [
        f"{name}: Secret {secret} is not set on this machine. Set it with `lapwing secret set "
        f"{secret} -e {name}`, unless the cluster has a value."
        for secret in find_unset_secrets(loaded, context.settings)
    ]
