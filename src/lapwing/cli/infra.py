"""`lapwing infra`: write the cloud infrastructure of a stack as Terraform JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lapwing.cli.context import Context
from lapwing.cli.options import environment_named, output_option
from lapwing.cli.rendered import folder_options

if TYPE_CHECKING:
    from lapwing.stack.load import LoadedStack

MAX_PROJECT_LENGTH = 30
"""Characters of a project id in Google Cloud."""


@click.command("infra")
@environment_named(
    "Write only the project of this environment, and the shared one. Default: all projects."
)
@folder_options("The folder to write, with a folder for each project in it.")
@output_option
@click.pass_obj
def command(context: Context, environment: str | None, folder: Path, force: bool) -> None:
    """Write the cloud infrastructure of a stack as Terraform (or OpenTofu) JSON.

    Each project is a Terraform root with its own state; apply `shared` first. Apply an environment
    with a domain again after its first deployment, which creates the endpoint group of its load
    balancer. The same stack always gives the same bytes.
    """
    from lapwing.cli import rendered
    from lapwing.render.terraform.files import files

    stacks = with_cloud(context, environment)
    _check_project_ids(stacks)
    roots = files(stacks, environment)
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
    context.printer.say(
        "Apply `shared` first, then the others: `terraform init`, then `terraform apply`."
    )
    if any("edge.tf.json" in texts for texts in roots.values()):
        context.printer.say(
            "Apply again after the first deployment, with `edge_zones` set: the deployment creates "
            "the endpoint group of the load balancer, which answers every request with 502 until "
            "then. The description of `edge_zones` in variables.tf.json has the command that lists "
            "the zones."
        )


def with_cloud(context: Context, environment: str | None = None) -> list[LoadedStack]:
    """Load every environment with a cloud, in the order of the file.

    Raises:
        StackFileError: `environment` has no cloud, or no environment has one.
    """
    from lapwing.errors import Problem, StackFileError
    from lapwing.stack import source
    from lapwing.stack.load import LOCAL, find, load

    path = find(context.directory)
    first = load(path, environment or LOCAL)
    names = [name for name, e in first.stack.environments.items() if e.cloud is not None]
    if (environment is None and names) or environment in names:
        return [load(path, name) for name in names]
    at: tuple[str, ...] = ("environments",)
    message = "No environment has a `cloud`."
    if environment is not None:
        at = ("environments", environment)
        message = f"Environment `{environment}` has no `cloud`."
    hint = "Add `target: kubernetes` and `cloud: {provider: gcp, region: europe-west1}`."
    raise StackFileError([Problem(message, source.read(path).where(at, key=True), hint)])


def _check_project_ids(stacks: list[LoadedStack]) -> None:
    """Refuse project ids that follow from names and are too long for Google Cloud.

    Other commands work with them, so `lapwing check` accepts them. Raises StackFileError.
    """
    from lapwing.errors import Problem, StackFileError
    from lapwing.render.terraform.cloud import cloud_of
    from lapwing.stack import source
    from lapwing.stack.cloud import project_of, shared_project_of

    problems = []
    for loaded in stacks:
        cloud = cloud_of(loaded)
        at = ("environments", loaded.environment, "cloud")
        where = source.read(loaded.path).where(at, key=True)
        derived = {}
        if cloud.project is None:
            derived["project"] = project_of(loaded.stack, loaded.environment)
        if cloud.shared_project is None and loaded is stacks[0]:
            derived["shared_project"] = shared_project_of(loaded.stack)
        problems += [
            Problem(
                f"The project id `{identity}` is too long: {len(identity)} characters, the maximum "
                f"is {MAX_PROJECT_LENGTH}.",
                where,
                f"Add `{key}:` with an id of 6 to {MAX_PROJECT_LENGTH} characters.",
            )
            for key, identity in derived.items()
            if len(identity) > MAX_PROJECT_LENGTH
        ]
    if problems:
        raise StackFileError(problems)
