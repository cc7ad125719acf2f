"""`lapwing secret`: set, list and remove secrets.

A value comes from standard input or a hidden prompt, never from the command line, where the shell's
history and `ps` would keep it.
"""

from __future__ import annotations

import sys
import time

import click

from lapwing.cli import complete
from lapwing.cli.context import Context
from lapwing.cli.options import environment_option, output_option
from lapwing.errors import StateError, UsageError, check_name, did_you_mean


@click.group("secret")
def command() -> None:
    """Set, list and remove secrets."""


@command.command("set")
@click.argument("name", shell_complete=complete.secrets)
@click.argument("value", required=False, metavar="")  # Always refused.
@environment_option
@click.pass_obj
def set_(context: Context, name: str, value: str | None, environment: str) -> None:
    """Set NAME to the value from standard input or a prompt."""
    from lapwing.cli import branches
    from lapwing.desired.secrets import SecretStore
    from lapwing.stack.secret_names import deployed_secrets, secret_names

    if value is not None:
        raise UsageError(
            "A secret cannot be given on the command line: the shell's history and `ps` would "
            "show it.",
            hint=f"Run `lapwing secret set {name} -e {environment} < FILE`, or without `< FILE` to "
            "get a prompt.",
        )
    if "=" in name:  # What follows it is probably the value: it must not be shown.
        name = name.partition("=")[0]
        raise UsageError(
            f"A value after {name!r} cannot be given on the command line: the shell's history and "
            "`ps` would show it.",
            hint=f"Run `lapwing secret set {name or 'NAME'} -e {environment}`; the value comes "
            "from a prompt or standard input.",
        )
    if not name.replace("_", "a").isalnum() or name[0].isdigit():
        raise UsageError(f"{name!r} is not a valid variable name.")
    ref = context.ref(environment)
    if sys.stdin.isatty():
        given = click.prompt(name, hide_input=True, confirmation_prompt=True, err=True)
    else:
        given = sys.stdin.read().removesuffix("\n")
    if not given:
        raise UsageError("The value is empty.", hint="Nothing was changed.")
    context.prepare_home()
    store = SecretStore(context.settings.secrets)
    before = store.current(ref.stack, ref.environment).get(name)
    version = store.set(ref.stack, ref.environment, name, given)
    file, then = context.stack_file, ""
    known = secret_names(file.source)
    found = file.environment(environment)
    on_cluster = found.get("target") == "kubernetes"
    is_pulled = bool(found.get("desired")) and not on_cluster
    is_variable = is_pulled and name.startswith("LAPWING_")
    if version == before:
        then = " The value is unchanged."
    elif is_variable or (is_pulled and name in deployed_secrets(file.source)):
        then = " The next pull uses it."
    elif name in deployed_secrets(file.source) or (on_cluster and name in known):
        branch = " --branch NAME" if branches.is_template(context, environment) else ""
        then = f" Run `lapwing deploy -e {ref.environment}{branch}` to use it."
    elif name in known:
        then = " No deployment is needed if the `logs` or `backup` that uses it is deployed."
    context.printer.say(f"{name} of {ref} is set (version {version}).{then}")
    if name not in known and not is_variable:
        what_next = did_you_mean(name, known) or "List it under `secrets` of a service to use it."
        context.printer.say(f"No service has a secret {name}. {what_next}", style="yellow")


@command.command("list")
@environment_option
@output_option
@click.pass_obj
def list_(context: Context, environment: str) -> None:
    """List names, versions and dates; never values."""
    from lapwing.desired.secrets import SecretStore

    ref = context.ref(environment)
    found = SecretStore(context.settings.secrets).listing(ref.stack, ref.environment)
    if context.for_programs:
        context.printer.json([{"name": n, "version": v, "set": since} for n, v, since in found])
        return
    if not found:
        context.printer.say(f"No secret is set for {ref}.")
        return
    rows = [(n, v, time.strftime("%Y-%m-%d %H:%M", time.gmtime(s))) for n, v, s in found]
    context.printer.table(("NAME", "VERSION", "SET (UTC)"), rows)


@command.command("remove")
@click.argument("name", shell_complete=complete.stored_secrets)
@environment_option
@click.option("--yes", is_flag=True, help="Do not ask before the secret is removed.")
@click.pass_obj
def remove(context: Context, name: str, environment: str, yes: bool) -> None:
    """Remove NAME with all its versions; running replicas keep it until they are restarted.

    A secret with the users of `access` cannot be removed while a deployment uses it.
    """
    from lapwing.desired.repository import DesiredRepository
    from lapwing.desired.secrets import SecretStore

    ref = context.ref(environment)
    store = SecretStore(context.settings.secrets)
    check_name("secret", name, store.current(ref.stack, ref.environment), ref)
    desired = context.settings.desired
    running = (
        DesiredRepository(desired).latest_valid(ref.stack, ref.environment)
        if desired.is_dir()
        else None
    )
    services = running.services if running else {}
    if services and running and any(users.secret == name for users in running.basic_auth):
        raise StateError(
            f"{name} of {ref} cannot be removed: `access` of the current deployment uses it.",
            hint=f"To change the users, run `lapwing secret set {name} -e {ref.environment}` and "
            "deploy. To remove it, first deploy without it.",
        )
    used = ", ".join(n for n, service in services.items() if name in service.secrets)
    warning = f" Without it, replicas of {used} cannot be started again." if used else ""
    question = f"Remove {name} of {ref} with all its versions?{warning}"
    if not yes and not context.printer.confirm(question):
        raise UsageError(
            f"The removal of {name} was not confirmed; it is still set.",
            hint="Run the command again with `--yes`.",
        )
    store.remove(ref.stack, ref.environment, name)
    context.printer.say(f"{name} of {ref} is removed.{warning}")
