"""Verbs for an environment on a server run there: see the package `lapwing.server`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from lapwing import server
from lapwing.cli.context import Context

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from lapwing.server.source import Snapshot
    from lapwing.server.ssh import Connection

SEND_SOURCE = {"deploy", "up", "secret", "maintenance", "agent"}
"""Commands that send the source and need a valid stack file, except `maintenance off`."""
RESUMED = {"deploy", "up"}
"""Verbs that may run again: a second deployment of the same content follows the first."""
RECONNECT_S = 120.0
RECONNECT_INTERVAL_S = 2.0
GREETING_TIMEOUT_S = 60.0


def host_of(context: Context, environment: str | None) -> str | None:
    """Return the server of an environment; None without `host`, as for a cluster."""
    if context.settings.server or environment in (None, "local"):
        return None
    found = context.stack_file.environment(environment)
    return str(found["host"]) if found.get("host") and found.get("target") != "kubernetes" else None


def is_pulled_elsewhere(context: Context, environment: str | None) -> bool:
    """Return whether another machine pulls an environment."""
    from lapwing.targets import select

    if environment in (None, "local"):
        return False
    return select.is_pulled_elsewhere(context.stack_file, environment, context.settings)


def run_on_server(
    context: Context,
    host: str,
    environment: str,
    arguments: Sequence[str],
    *,
    snapshot: Snapshot | None = None,
    capture: bool = False,
    given: IO[str] | None = None,
) -> tuple[int, bytes]:
    """Run a verb on a server; return its exit status and, with `capture`, its standard output.

    The source that is sent is a `snapshot`, by default the working tree; `given` is the standard
    input. Raises LapwingError.
    """
    from lapwing.server import receive, source
    from lapwing.server.ssh import FAILED, Connection, Host
    from lapwing.targets.base import actor_name

    verb = arguments[0]
    file, folder = context.stack_file, context.stack_file.path.parent
    directory = context.directory
    sends_source = verb in SEND_SOURCE and not {"maintenance", "off"} <= set(arguments)
    if sends_source:
        context.load(environment, folders=verb in RESUMED)
    address = Host.parse(host).as_user(server.USER)
    to = Connection(address, context.settings.environ or os.environ, environment)
    _greet(context, to, environment)
    if sends_source:
        snapshot = snapshot or source.take(folder, to.environ)
        _send(context, to, snapshot, file.stack, environment)
    request = receive.Request(
        arguments=without_place(click.get_current_context().find_root(), arguments, directory),
        stack=file.stack,
        environment=environment,
        snapshot=snapshot,
        actor=actor_name(context.settings, folder),
        color=context.settings.color and sys.stderr.isatty(),
    )
    while True:
        status, output = to.call(receive.encode(request), capture=capture, given=given)
        if status != FAILED:
            return status, output
        continues = "A committed deployment continues on the server. Run "
        continues += f"`lapwing status -e {environment}` to see its state."
        _reconnect(context, to, continues, resume=verb in RESUMED)


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


def _send(
    context: Context, to: Connection, snapshot: Snapshot, stack: str, environment: str
) -> None:
    """Send a snapshot; if the connection is lost, reconnect and send it once more.

    Raises LapwingError.
    """
    from lapwing.errors import ServerConnectionError
    from lapwing.server import source

    folder = context.stack_file.path.parent
    for is_last in (False, True):
        try:
            with context.printer.working(f"sending the source to {to.host}"):
                source.send(folder, snapshot, stack, environment, to)
        except ServerConnectionError:
            if is_last:
                raise
            _reconnect(context, to, "Nothing was deployed. Run the command again.")
        else:
            return


def _reconnect(context: Context, to: Connection, hint: str, *, resume: bool = True) -> None:
    """Wait until the server is reached again.

    Raises ServerConnectionError, with this hint, if it is not, or at once without `resume`.
    """
    from lapwing.errors import ServerConnectionError
    from lapwing.server import receive

    lost = ServerConnectionError(f"The connection to {to.host} was lost.", hint=hint)
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


def identity_from_stdin(arguments: Sequence[str]) -> list[str]:
    """Return arguments whose `--identity FILE` is standard input: the file is on this machine."""
    option = "--identity"
    return [
        "-" if before == option else f"{option}=-" if word.startswith(f"{option}=") else word
        for before, word in zip(("", *arguments), arguments, strict=False)
    ]


PLACE = {"-C", "-e", "--environment", "--env", "--branch"}
"""The options of a verb that a server sets."""


def without_place(
    root: click.Context, arguments: Sequence[str], directory: Path = Path()
) -> list[str]:
    """Return arguments without what the server sets: `-C`, `-e`, `--branch`, the folder of `up`.

    They are read as click does with the commands of `root`: the value of an option and what
    follows `--` are kept.
    """
    verb, *rest = arguments
    valued = _valued_options(root, verb)
    kept = [verb]
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*kept, word, *rest]
        option, has_value = _option_with_value(word, valued)
        values = [rest.pop(0)] if option and not has_value and rest else []
        if option in PLACE:
            flags = "" if word.startswith("--") else word[: word.index(option[1])]
            kept += [flags] if flags.strip("-") else []
        elif verb != "up" or word.startswith("-") or Path(word) != directory:
            kept += [word, *values]
    return kept


def _option_with_value(word: str, valued: Collection[str]) -> tuple[str | None, bool]:
    """Return the option with a value in a word, as `-e` in `-fevps`, and if its value is there."""
    if word.startswith("--"):
        name, has_value, _ = word.partition("=")
        return (name if name in valued else None), bool(has_value)
    for position, letter in enumerate(word[1:] if word.startswith("-") else "", start=2):
        if f"-{letter}" in valued:
            return f"-{letter}", len(word) > position
    return None, False


def _valued_options(root: click.Context, verb: str) -> set[str]:
    """Return the options with a value of a verb and of its subcommands."""
    assert isinstance(root.command, click.Group)
    command = root.command.get_command(root, verb)
    inner = command.commands.values() if isinstance(command, click.Group) else ()
    options = (p for c in (command, *inner) if c for p in c.params if isinstance(p, click.Option))
    return {name for o in options if not (o.is_flag or o.count) for name in o.opts}
