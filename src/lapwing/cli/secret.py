"""`lapwing secret`: set, list and remove secrets.

A value comes from standard input or a hidden prompt, never from the command line, where the shell's
history and `ps` would keep it.
"""

from __future__ import annotations

import sys
import time

import click

from lapwing.cli.context import Context, environment_option, output_option
from lapwing.errors import UsageError


@click.group("secret")
def command() -> None:
    """Set, list and remove secrets."""


@command.command("set")
@click.argument("name")
@click.argument("value", required=False)
@environment_option
@click.pass_obj
def set_(context: Context, name: str, value: str | None, environment: str) -> None:
    """Set NAME to what standard input, or the prompt, gives."""
    from lapwing.cli import target
    from lapwing.desired.secrets import SecretStore

    if value is not None:
        raise UsageError(
            "A secret's value does not belong on a command line: history and `ps` would keep it.",
            hint=f"Pipe it in: `lapwing secret set {name} < file`, or leave it out to be asked.",
        )
    if not name.replace("_", "a").isalnum() or name[0].isdigit():
        raise UsageError(f"{name!r} is not the name of a variable.")
    where = target.where(context, environment)
    if sys.stdin.isatty():
        given = click.prompt(name, hide_input=True, confirmation_prompt=True, err=True)
    else:
        given = sys.stdin.read().removesuffix("\n")
    if not given:
        raise UsageError("The value is empty.", hint="Nothing was changed.")
    store = SecretStore(context.settings.secrets)
    before = store.current(where.stack, where.environment).get(name)
    version = store.set(where.stack, where.environment, name, given)
    same = " It is the value it had." if version == before else " `lapwing deploy` brings it in."
    context.printer.say(f"{name} of {where} is set (version {version}).{same}")


@command.command("list")
@environment_option
@output_option
@click.pass_obj
def list_(context: Context, environment: str) -> None:
    """List names, versions and dates; never values."""
    from lapwing.cli import target
    from lapwing.desired.secrets import SecretStore

    where = target.where(context, environment)
    found = SecretStore(context.settings.secrets).listing(where.stack, where.environment)
    if context.for_programs:
        context.printer.json([{"name": n, "version": v, "set": since} for n, v, since in found])
        return
    if not found:
        context.printer.say(f"No secret is set for {where}.")
        return
    rows = [(n, v, time.strftime("%Y-%m-%d %H:%M", time.gmtime(s))) for n, v, s in found]
    context.printer.table(("NAME", "VERSION", "SET (UTC)"), rows)


@command.command("remove")
@click.argument("name")
@environment_option
@click.pass_obj
def remove(context: Context, name: str, environment: str) -> None:
    """Remove NAME with all its versions. What runs keeps it until it is started again."""
    from lapwing.cli import target
    from lapwing.desired.secrets import SecretStore

    where = target.where(context, environment)
    if not SecretStore(context.settings.secrets).remove(where.stack, where.environment, name):
        raise UsageError(f"{where} has no secret {name}.", hint="`lapwing secret list` tells.")
    context.printer.say(f"{name} of {where} is removed.")
