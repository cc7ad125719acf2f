"""The environments of branches, for `status`, `down --gone`, and before a deployment.

They are listed and removed where they run: on this machine, or by `lapwing branches` and `lapwing
down` on the server. Which branches exist is found here, where the repository of the source is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lapwing.cli.context import Context
from lapwing.errors import LapwingError, ServerError, SourceError, UsageError

if TYPE_CHECKING:
    from lapwing.targets.branch_environments import BranchEnvironment

ON_TEMPLATE = {"secret", "doctor", "agent"}
"""Verbs for the declared environment itself: its secrets, its machine."""
BUILDS = {"deploy", "up", "ship"}


@click.command("branches", hidden=True)
@click.option("-e", "--environment", "--env", required=True)
@click.option("--stack", required=True)
@click.pass_obj
def command(context: Context, environment: str, stack: str) -> None:
    """Print the environments of branches on this machine as JSON, for a client."""
    from msgspec import to_builtins

    from lapwing.targets import branch_environments

    entries = branch_environments.found(context.settings, stack, environment)
    context.printer.json(to_builtins(entries))


def is_template(context: Context, environment: str | None) -> bool:
    """Return whether an environment is the template of environments of branches."""
    from lapwing.stack.branch_names import split

    if environment in (None, "local") or split(environment)[1] is not None:
        return False  # `local` needs no stack file here: `status --all` works in every folder.
    return bool(context.stack_file.environment(environment).get("branches"))


def prepare(context: Context, verb: str, environment: str | None, *, dry_run: bool = False) -> None:
    """Check a verb for the environment of a branch; make room for a new one on this machine.

    On a server, which others use, nothing is removed because of what one clone has.
    Raises UsageError, StateError, SourceError or ServerError.
    """
    from lapwing.stack.branch_names import check_chosen, split

    if environment is None or context.settings.server or environment == "local":
        return
    if is_template(context, environment):
        if verb not in ON_TEMPLATE:
            check_chosen(environment, True)
        return
    template, branch = split(environment)
    if branch is None or verb not in BUILDS:
        return
    from lapwing.cli import remote
    from lapwing.targets import branch_environments

    limits = context.load(environment, folders=False).settings.branches
    assert limits is not None
    branch_environments.check_checkout(
        context.stack_file.path.parent, environment, context.settings
    )
    entries, problem = listed(context, template), None
    if len(entries) >= limits.max and remote.host_of(context, environment) is None:
        entries, problem = marked(context, entries, template)
    oldest = branch_environments.choose_room(entries, environment, limits, problem)
    if oldest is not None and not dry_run:
        context.printer.say(
            f"{len(entries)} environments of branches exist; the maximum is {limits.max}. Removing "
            f"{oldest.environment}, whose branch no longer exists."
        )
        remove(context, oldest.environment)
        entries.remove(oldest)
    branch_environments.check_disk(entries, limits, environment)


def listed(context: Context, template: str) -> list[BranchEnvironment]:
    """List the environments of branches where they run. Raises LapwingError."""
    import msgspec

    from lapwing.cli import remote
    from lapwing.targets import branch_environments
    from lapwing.targets.branch_environments import BranchEnvironment

    stack = context.stack_file.stack
    host = remote.host_of(context, template)
    if host is None:
        return branch_environments.found(context.settings, stack, template)
    output = _on_server(context, host, template, ["branches"])
    try:
        return msgspec.json.decode(output, type=list[BranchEnvironment])
    except msgspec.MsgspecError as error:
        shown = output.decode(errors="replace").strip() or None
        raise ServerError(
            f"{host} sent an invalid list of the environments of {template}.",
            detail=shown,
            hint=f"Update Lapwing on the server: `lapwing server setup -e {template}`.",
        ) from error


def marked(
    context: Context, entries: list[BranchEnvironment], template: str
) -> tuple[list[BranchEnvironment], SourceError | None]:
    """Add to the entries whether their branch exists, or return why that is not known."""
    from lapwing.targets import branch_environments

    try:
        existing = branch_environments.branches(context.stack_file.path.parent, context.settings)
    except SourceError as error:
        return entries, error
    return branch_environments.with_branches(entries, template, existing), None


def remove(context: Context, environment: str) -> None:
    """Remove the environment of a branch where it runs. Raises LapwingError."""
    from lapwing.cli import remote
    from lapwing.targets.base import DownRequest

    host = remote.host_of(context, environment)
    if host is not None:
        _on_server(context, host, environment, ["down", "--volumes", "--output", "json"])
        return
    result = context.target(environment).down(DownRequest(volumes=True))
    if result.outcome != "succeeded":
        raise UsageError(
            f"{environment} was not removed: {result.reason or result.outcome}.",
            hint=f"Run `lapwing down --volumes -e {environment}` again.",
        )


def skip_removal(context: Context, environment: str) -> int | None:
    """Report that there is nothing to remove if the server does not have the environment.

    CI removes one for each closed pull request, also if it was never deployed. Return the exit
    status; None if the environment exists or is not that of a branch. Raises LapwingError.
    """
    from lapwing.cli import present
    from lapwing.stack.branch_names import split
    from lapwing.targets.base import DeployResult

    template, branch = split(environment)
    if branch is None or environment in [e.environment for e in listed(context, template)]:
        return None
    result = DeployResult(
        stack=context.stack_file.stack,
        environment=environment,
        target="machine",
        kind="down",
        outcome="unchanged",
        reason=f"{environment} does not exist",
    )
    return present.deploy_result(context, result)


def _on_server(context: Context, host: str, environment: str, arguments: list[str]) -> bytes:
    from lapwing.cli import remote

    status, output = remote.run_on_server(context, host, environment, arguments, capture=True)
    if status:
        raise ServerError(
            f"`lapwing {arguments[0]}` for {environment} failed on {host}.",
            detail=output.decode(errors="replace").strip() or None,
            hint=f"Run `lapwing doctor -e {environment}`.",
        )
    return output


def remove_gone(context: Context, template: str, *, dry_run: bool) -> int:
    """Remove the environments whose branch is gone; print each decision; return the exit status.

    The branches are read last: one that is pushed and deployed meanwhile is not gone. Raises
    LapwingError if nothing was removed.
    """
    from lapwing.targets import branch_environments

    entries, folder = listed(context, template), context.stack_file.path.parent
    existing = branch_environments.branches(folder, context.settings)
    entries = branch_environments.with_branches(entries, template, existing)
    decisions: list[dict[str, Any]] = []
    for entry in entries:
        action = "keep" if entry.exists else "would remove" if dry_run else "removed"
        why = f"branch {entry.branch} exists" if entry.exists else "its branch is gone"
        if action == "removed":
            try:
                with context.printer.working(f"removing {entry.environment}"):
                    remove(context, entry.environment)
            except LapwingError as error:
                action = "failed"
                why = "\n".join(filter(None, (error.message, error.detail, error.hint)))
        decisions.append({"environment": entry.environment, "action": action, "reason": why})
        if not context.for_programs:
            context.printer.data(f"{entry.environment}: {action}, {why}")
    if context.for_programs:
        context.printer.json(decisions)
    elif not decisions:
        context.printer.say("There are no environments of branches.")
    return 1 if any(decision["action"] == "failed" for decision in decisions) else 0


def show(context: Context, template: str) -> int:
    """Print the environments of branches. Raises LapwingError."""
    import msgspec

    from lapwing.stack.quantities import show_size
    from lapwing.targets.branch_environments import describe_age

    entries, problem = marked(context, listed(context, template), template)
    if context.for_programs:
        stack = context.stack_file.stack
        answer = {"stack": stack, "environment": template, "branches": msgspec.to_builtins(entries)}
        context.printer.json(answer)
        return 0
    if not entries:
        context.printer.say(
            f"There are no environments of branches. Run `lapwing up -e {template} --branch NAME`."
        )
        return 0
    if problem is not None:
        context.printer.say(f"The branches are not known: {problem}")
    rows = [
        (
            entry.environment,
            {True: entry.branch or "", False: "gone", None: "unknown"}[entry.exists],
            entry.state,
            ", ".join(sorted({s.revision[:12] for s in entry.services.values()})) or "-",
            describe_age(entry),
            show_size(entry.disk),
            entry.url or "-",
        )
        for entry in entries
    ]
    header = ("ENVIRONMENT", "BRANCH", "STATE", "REVISION", "DEPLOYED", "DISK", "ADDRESS")
    context.printer.table(header, rows)
    return 0
