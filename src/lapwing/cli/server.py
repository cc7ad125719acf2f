"""`lapwing server`: set up a machine that is reached over SSH, and its SSH keys."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lapwing import server
from lapwing.cli.context import Context
from lapwing.cli.options import environment_named
from lapwing.errors import ServerError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lapwing.server.setup import Step
    from lapwing.server.ssh import Connection

PUBLIC_KEY = r"(ssh-|ecdsa-|sk-)[a-z0-9@.-]+ [A-Za-z0-9+/=]+( .*)?"
required = environment_named("The environment of the server.", required=True)


@click.group("server")
def command() -> None:
    """Set up the server of an environment, upgrade or remove it, allow SSH keys."""


@command.command("setup")
@required
@click.option(
    "--key",
    "files",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A public SSH key that may deploy. Default: the keys of the user in `host`.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Check the server, and print the commands and files without changing anything.",
)
@click.pass_obj
def setup(context: Context, environment: str, files: tuple[Path, ...], dry_run: bool) -> None:
    """Install or upgrade Lapwing on the server of an environment; running services keep serving.

    Requires Debian 12 or Ubuntu 24.04 (or newer) with systemd, and SSH as root or as a user with
    passwordless sudo. Only SSH, and Envoy on the ports 80 and 443, are reachable from outside.
    """
    from lapwing.server import package, probe
    from lapwing.server import setup as steps

    to = _connection(context, environment)
    facts = probe.parse(to.run_as_root(probe.SCRIPT).decode(errors="replace"))
    found = list(probe.check(facts))
    for finding in found:
        context.printer.say(f"{finding.message} {finding.hint}", style="yellow")
    if any(f.fatal for f in found):
        raise ServerError(
            f"{to.host} cannot be set up; nothing was changed.",
            hint="Correct what is listed above, and run the command again.",
        )
    keys = _public_keys(files) or _authorized_keys(to)
    found_steps = steps.steps(package.build(), facts, keys)
    if dry_run:
        for step in found_steps:
            context.printer.data(context.printer.mask(str(step)))
        return
    _run(context, to, found_steps)
    context.printer.say(f"{to.host} is ready. Run `lapwing deploy -e {environment}`.")


@command.command("key")
@required
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.pass_obj
def key(context: Context, environment: str, file: Path) -> None:
    """Allow the public SSH key in FILE to deploy this environment and read its status and history.

    If the environment has `branches`, the key may do so for each branch, and list and remove them.

    For CI: create a key without a passphrase with `ssh-keygen -t ed25519 -N '' -f deploy-key`, pass
    `deploy-key.pub` here, and give `deploy-key` to CI as a secret.
    """
    from lapwing.server import setup as steps
    from lapwing.server import ssh

    to = _connection(context, environment)
    if not to.run(steps.INSTALLED):
        raise ssh.not_installed(to.host, environment)
    ref = context.ref(environment)
    lines = [steps.key_line(k, f"{ref.stack}/{environment}") for k in _public_keys([file])]
    step = steps.allow(lines)
    to.run_as_root(step.script, step.given)
    context.printer.say(f"The key in {file} may deploy {ref} and read its status and history.")


@command.command("remove")
@required
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def remove(context: Context, environment: str, yes: bool) -> None:
    """Stop every stack on the server and remove Lapwing with its SSH keys; keep the data.

    Databases, volumes, secrets and backups stay in /var/lib/lapwing.
    """
    from lapwing.server import probe, removal

    to = _connection(context, environment)
    facts = probe.parse(to.run_as_root(removal.LIST).decode(errors="replace"))
    context.printer.say(removal.describe(to.host, facts))
    if not yes and not context.printer.confirm(f"Remove Lapwing from {to.host}?"):
        raise UsageError(
            f"Removing Lapwing from {to.host} was not confirmed; nothing was changed.",
            hint="Pass --yes to skip the confirmation.",
        )
    _run(context, to, removal.STEPS)
    context.printer.say(
        f"Lapwing is removed from {to.host}. To use the data again, run `lapwing server setup -e "
        f"{environment}`. To delete it with the local backups, run as root on the server: "
        f"`userdel --remove {server.USER}`."
    )


def _run(context: Context, to: Connection, steps: Sequence[Step]) -> None:
    """Run steps as root, and show the progress. Raises ServerConnectionError or ServerError."""
    with context.printer.working(f"connecting to {to.host}"):
        for number, step in enumerate(steps, start=1):
            context.printer.progress(f"[{number}/{len(steps)}] {step.title}")
            to.run_as_root(step.script, step.given)


def _connection(context: Context, environment: str) -> Connection:
    """Return a connection as the user in `host`. Raises UsageError without a `host`."""
    from lapwing.server.ssh import Connection, Host

    context.load(environment, folders=False)
    host = context.stack_file.environment(environment).get("host")
    if host is None:
        raise UsageError(
            f"{environment} has no `host`.",
            hint=f"Add it in {context.stack_file.path}: `environments: {{{environment}: {{target: "
            "machine, host: root@203.0.113.7}}`.",
        )
    return Connection(Host.parse(str(host)), context.settings.environ, environment)


def _authorized_keys(to: Connection) -> list[str]:
    """Return the keys that may log in as the user in `host`. Raises ServerError without one."""
    lines = to.run("cat ~/.ssh/authorized_keys 2>/dev/null || true").decode(errors="replace")
    keys = [found[0] for line in lines.splitlines() if (found := re.search(PUBLIC_KEY, line))]
    if not keys:
        raise ServerError(
            f"{to.host} has no ~/.ssh/authorized_keys with a key.",
            hint="Pass the keys that may deploy: `--key ~/.ssh/id_ed25519.pub`.",
        )
    return keys


def _public_keys(files: tuple[Path, ...] | list[Path]) -> list[str]:
    """Read public keys. Raises UsageError for a file without one, such as a private key."""
    keys = []
    for file in files:
        text = file.read_text(errors="replace").strip()
        if "PRIVATE KEY" in text or not re.fullmatch(PUBLIC_KEY, text):
            raise UsageError(
                f"{file} is not a public SSH key.", hint=f"Pass the file {file}.pub, if it exists."
            )
        keys.append(text)
    return keys
