"""`lapwing infra`: the cloud that the stack needs, as Terraform JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lapwing.cli.context import Context, output_option
from lapwing.cli.rendered import folder_options

if TYPE_CHECKING:
    from lapwing.errors import Problem
    from lapwing.stack.load import LoadedStack

LONGEST_PROJECT = 30
"""Characters of a project id in Google Cloud, at the most."""


@click.command("infra")
@click.option(
    "-e",
    "--environment",
    "--env",
    metavar="NAME",
    help="Only this environment's project, and what is shared. Default: every project.",
)
@folder_options("Where to write; each project becomes a folder in it.")
@output_option
@click.pass_obj
def command(context: Context, environment: str | None, folder: Path, force: bool) -> None:
    """Write the cloud that the stack needs as Terraform (or OpenTofu) JSON.

    Each project is a Terraform root with a state of its own; apply `shared` first. An environment
    with a domain is applied a second time, after its first deployment: only then is there anything
    that its load balancer can send requests to. The same stack always gives the same bytes.
    """
    from lapwing.cli import rendered
    from lapwing.render.terraform.files import files

    clouds = with_cloud(context, environment)
    _refuse([*_long_projects(clouds)])
    roots = files(clouds, environment)
    report = {}
    for root, texts in roots.items():
        data = {name: text.encode() for name, text in texts.items()}
        report[root] = rendered.write(folder / root, data, force=force)
    if context.for_programs:
        shape = {root: change.as_data() for root, change in report.items()}
        context.printer.json({"folder": str(folder), "roots": shape})
        return
    for root, change in report.items():
        context.printer.data(str(folder / root))
        context.printer.say(f"  {change}")
    context.printer.say("Apply `shared` first, then the others: `terraform init`, `plan`, `apply`.")
    if any("edge.tf.json" in texts for texts in roots.values()):
        context.printer.say(
            "That is not all: the endpoint group of the load balancer is made by the cluster, when "
            "the stack is deployed first. Until you then apply once more with `edge_zones`, every "
            "request is answered with 502. The description of `edge_zones` in variables.tf.json "
            "has the command that tells the zones."
        )


def with_cloud(context: Context, environment: str | None = None) -> list[LoadedStack]:
    """Every environment with a cloud, in the order of the file. Raises StackFileError where the
    one that is asked for has none, or where none has one."""
    from lapwing.errors import Problem, StackFileError
    from lapwing.stack import source
    from lapwing.stack.load import LOCAL, find, load

    path = find(context.directory)
    first = load(path, environment or LOCAL)
    names = [name for name, e in first.stack.environments.items() if e.cloud is not None]
    if (environment is None and names) or environment in names:
        return [load(path, name) for name in names]
    read = source.read(path)
    hint = "Add `target: kubernetes` and `cloud: {provider: gcp, region: europe-west1}`."
    if environment is None:
        where = read.where(("environments",), key=True)
        raise StackFileError([Problem("No environment has a `cloud`.", where, hint)])
    where = read.where(("environments", environment), key=True)
    raise StackFileError([Problem(f"`{environment}` has no `cloud`.", where, hint)])


def _refuse(problems: list[Problem]) -> None:
    from lapwing.errors import StackFileError

    if problems:
        raise StackFileError(problems)


def _long_projects(clouds: list[LoadedStack]) -> Iterator[Problem]:
    """Project ids that follow from names and are too long for Google Cloud. Elsewhere that does no
    harm, so `lapwing check` lets it pass."""
    from lapwing.errors import Problem
    from lapwing.render.terraform.cloud import cloud_of
    from lapwing.stack import source
    from lapwing.stack.cloud import project_of, shared_project_of

    shared_is_told = False
    for loaded in clouds:
        cloud = cloud_of(loaded)
        where = source.read(loaded.path).where(
            ("environments", loaded.environment, "cloud"), key=True
        )
        derived = []
        if cloud.project is None:
            derived.append(("project", project_of(loaded.stack, loaded.environment)))
        if cloud.shared_project is None and not shared_is_told:
            derived.append(("shared_project", shared_project_of(loaded.stack)))
            shared_is_told = True
        for key, identity in derived:
            if len(identity) > LONGEST_PROJECT:
                yield Problem(
                    f"The project id would be `{identity}`: it has {len(identity)} characters, and "
                    f"{LONGEST_PROJECT} is the most.",
                    where,
                    f"Add `{key}:` with an id of 6 to {LONGEST_PROJECT} characters.",
                )
