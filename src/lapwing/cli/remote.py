"""Verbs for an environment on a server run there: see the package `lapwing.server`."""

from __future__ import annotations

import functools
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lapwing import server
from lapwing.cli.context import ARGUMENTS, Context

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lapwing.server.source import Snapshot
    from lapwing.server.ssh import Connection

SEND_SOURCE = {"deploy", "up", "secret", "maintenance"}
"""Verbs that need the present stack file and source."""
RESUMED = {"deploy", "up"}
"""Verbs that may run again: a second deployment of the same content follows the first."""
RECONNECT_S = 120.0
RECONNECT_INTERVAL_S = 2.0
GREETING_TIMEOUT_S = 60.0


@functools.cache
def forward(command: click.Command) -> None:
    """Let a verb, and its subcommands, run on the server of its environment. Done once for each."""
    for inner in command.commands.values() if isinstance(command, click.Group) else ():
        forward(inner)
    call = command.callback
    if call is None or not any(p.name == "environment" for p in command.params):
        return

    @functools.wraps(call)
    def run(*arguments: Any, **options: Any) -> Any:
        current = click.get_current_context()
        context = current.find_object(Context)
        environment = current.params["environment"]
        if context is None or (host := host_of(context, environment)) is None:
            return call(*arguments, **options)
        status, _ = run_on_server(context, host, environment, current.meta[ARGUMENTS])
        return status

    command.callback = run


def host_of(context: Context, environment: str | None) -> str | None:
    """Return the server of an environment; None without `host`, as for a cluster."""
    if context.settings.server or environment in (None, "local"):
        return None
    found = context.stack_file.environment(environment)
    return str(found["host"]) if found.get("host") and found.get("target") != "kubernetes" else None


def run_on_server(
    context: Context,
    host: str,
    environment: str,
    arguments: Sequence[str],
    *,
    capture: bool = False,
) -> tuple[int, bytes]:
    """Run a verb on a server; return its exit status and, with `capture`, its standard output.

    Raises LapwingError.
    """
    from lapwing.server import receive, source
    from lapwing.server.ssh import FAILED, Connection, Host
    from lapwing.targets.base import actor_name

    verb = arguments[0]
    file, folder = context.stack_file, context.stack_file.path.parent
    context.load(environment, folders=verb in RESUMED)
    address = Host.parse(host).as_user(server.USER)
    to = Connection(address, context.settings.environ or os.environ)
    _greet(context, to, environment)
    snapshot: Snapshot | None = None
    if verb in SEND_SOURCE:
        with context.printer.working(f"sending the source to {address}"):
            snapshot = source.take(folder, to.environ)
            source.send(folder, snapshot, file.stack, environment, to)
    request = receive.Request(
        arguments=without_place(arguments, context.directory),
        stack=file.stack,
        environment=environment,
        snapshot=snapshot,
        actor=actor_name(context.settings, folder),
        color=context.settings.color and sys.stderr.isatty(),
    )
    while True:
        status, output = to.call(receive.encode(request), capture=capture)
        if status != FAILED:
            return status, output
        _reconnect(context, to, environment, resume=verb in RESUMED)


def _greet(context: Context, to: Connection, environment: str) -> None:
    """Open the connection; report a server with another version. Raises LapwingError."""
    import msgspec

    from lapwing import __version__
    from lapwing.server import receive

    version = msgspec.json.decode(to.run(receive.GREETING, timeout=GREETING_TIMEOUT_S))["lapwing"]
    if version != __version__:
        context.printer.say(
            f"{to.host} has Lapwing {version}, this machine has {__version__}. Run "
            f"`lapwing server setup -e {environment}` to upgrade it.",
            style="yellow",
        )


def _reconnect(context: Context, to: Connection, environment: str, *, resume: bool) -> None:
    """Wait until the server is reached again. Raises ServerConnectionError if it is not."""
    from lapwing.errors import ServerConnectionError
    from lapwing.server import receive

    lost = ServerConnectionError(
        f"The connection to {to.host} was lost.",
        hint="A committed deployment continues on the server. Run "
        f"`lapwing status -e {environment}` to see its state.",
    )
    if not resume:
        raise lost
    context.printer.say(f"The connection to {to.host} was lost. Connecting again ...")
    until = time.monotonic() + RECONNECT_S
    while time.monotonic() < until:
        time.sleep(RECONNECT_INTERVAL_S)
        try:
            to.run(receive.GREETING, timeout=GREETING_TIMEOUT_S)
        except ServerConnectionError:
            continue
        return
    raise lost


def without_place(arguments: Sequence[str], directory: Path = Path()) -> list[str]:
    """Return arguments without `-C DIR`, `-e NAME` and the folder of `up`: the server sets them."""
    kept: list[str] = []
    rest = list(arguments)
    if rest[0] == "up":
        rest = [word for word in rest if Path(word) != directory]
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*kept, word, *rest]
        if word in ("-C", "-e", "--environment", "--env"):
            rest = rest[1:]
        elif not word.startswith(("-C", "-e", "--environment=", "--env=")):
            kept.append(word)
    return kept
