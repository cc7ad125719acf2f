"""The `lapwing` command: find the verb, run it, and print every error.

Verbs are imported when they are called, not before: `lapwing --help` reads this table and nothing
else. A verb raises LapwingError; only here it becomes a message and an exit status.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import io
import os
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from lapwing import __version__, server
from lapwing.cli.context import ARGUMENTS, Context, accept_directory
from lapwing.cli.output import Printer, describe
from lapwing.errors import LapwingError, NoSpaceError

if TYPE_CHECKING:
    from lapwing.settings import Settings

# httpx imports its own command line, and with it rich and pygments, if those are installed. None in
# this place makes that import fail, which httpx expects: 60 ms of processor time for each verb.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]

_ENDING = [found for name in ("SIGTERM", "SIGHUP") if (found := getattr(signal, name, None))]
"""Signals that end a command; Windows has no SIGHUP."""
_UNIX = ("fcntl", "grp", "pwd", "resource", "termios")
"""Modules that Windows lacks, and that are imported where they are used."""

VERBS = {
    "init": "Create a lapwing.yaml from the content of the folder.",
    "check": "Check the stack file.",
    "up": "Start what is needed, deploy every service, print the URL.",
    "deploy": "Build and release services without dropping a request.",
    "ship": "Build, test, scan, and commit to the desired state.",
    "ci": "Write the workflow that runs Lapwing on GitHub or Gitea.",
    "promote": "Switch traffic to a paused deployment.",
    "abort": "Stop a deployment; return to the previous release.",
    "rollback": "Restore an earlier release.",
    "maintenance": "Answer every request with a maintenance page.",
    "status": "Show running services and deployments in progress.",
    "history": "List the deployments.",
    "logs": "Show the output of replicas.",
    "run": "Run a one-off command in the environment of a service.",
    "open": "Forward a local port to a stack in a cluster.",
    "down": "Stop the stack; its data stays.",
    "verify": "Check a running stack from the outside.",
    "release": "Choose the next version, tag it, and publish it on the forge.",
    "image": "Build images; copy, list and inspect them in registries.",
    "cost": "Estimate the monthly cost of the stack.",
    "review": "Report over-engineering, risks and over-provisioning.",
    "backup": "Back up databases and volumes; list and verify backups.",
    "restore": "Restore a database or volume from a backup.",
    "secret": "Set, list and remove secrets.",
    "render": "Write an environment as Kubernetes manifests.",
    "chart": "Write an environment as a Helm chart.",
    "infra": "Write the stack's cloud infrastructure as Terraform JSON.",
    "bootstrap": "Install Argo CD and other add-ons in a cluster.",
    "diagram": "Draw architecture, blue-green switch, pipeline, network, cost.",
    "design": "Write the architecture document of the stack.",
    "doctor": "Check this machine and the state folder.",
    "demo": "Deploy under load and count failed requests.",
    "server": "Set up a server that is reached over SSH.",
    "agent": "Start, stop or install the agent.",
    "completion": "Print the completion script of a shell.",
}


HIDDEN = {"receive", "branches"}
"""Commands that other programs call."""


class _Verbs(click.Group):
    """Verbs by name, each in the module `lapwing.cli.<name>` as `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS and cmd_name not in HIDDEN:
            return None
        module = importlib.import_module(f"lapwing.cli.{cmd_name}")
        command: click.Command = module.command
        accept_directory(command)
        if cmd_name in server.VERBS and cmd_name not in HIDDEN:
            from lapwing.cli.forward import forward

            forward(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        ctx.meta[ARGUMENTS] = list(args)
        if args and args[0] not in VERBS and args[0] not in HIDDEN and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], VERBS, n=1)
            hint = f" Did you mean `lapwing {near[0]}`?" if near else ""
            raise click.UsageError(f"There is no command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-C",
    "directory",
    type=click.Path(path_type=Path),
    default=Path(),
    metavar="DIR",
    help="Use the stack of this folder instead of the current one.",
)
@click.version_option(__version__, message="lapwing %(version)s")
@click.pass_context
def cli(ctx: click.Context, directory: Path) -> None:
    """From a git commit to zero-downtime production, from one stack file."""
    from lapwing import settings
    from lapwing.system import home

    read = settings.read()
    if ctx.invoked_subcommand != "doctor":  # It reports every fault of the home in its table.
        home.check_folder(read.home)
    printer = Printer(color=read.color)
    printer.mask = lambda text: _mask(read, text)
    ctx.obj = Context(read, directory, printer)


def _mask(read: Settings, text: str) -> str:
    """Replace the secrets that are known here: stored ones, and logins of the environment."""
    from lapwing.desired.secrets import SecretStore
    from lapwing.system.sanitize import mask

    given = (v for n, v in read.environ.items() if re.search("TOKEN|PASSWORD", n))
    with contextlib.suppress(OSError):
        text = SecretStore(read.secrets).mask(text)
    return mask(text, given)


def main() -> NoReturn:
    """Run the command line and exit with its status: 0, 1, 2 or 130."""
    from lapwing import settings

    _open_closed()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A character that the terminal's encoding lacks is escaped, as on stderr.
        sys.stdout.reconfigure(errors="backslashreplace")
    asked = settings.completion()
    if asked is not None:
        from click.shell_completion import shell_complete

        sys.exit(shell_complete(cli, {}, "lapwing", settings.COMPLETION, asked))
    _end_like_interrupted()
    try:
        status = run(sys.argv[1:])
    except KeyboardInterrupt:  # A second one, while the first was reported.
        status = 130
    for number in (signal.SIGINT, *_ENDING):
        signal.signal(number, signal.SIG_IGN)  # The command has ended: its status is not changed.
    gc.freeze()  # Python's last collection would take a sixth of the time of a short command.
    sys.exit(status)


def _open_closed() -> None:
    """Discard what is written to stdout or stderr where the parent has closed it (`>&-`)."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115


def _end_like_interrupted() -> None:
    """Handle SIGTERM and SIGHUP as Ctrl-C, so that a command ends and removes what it began.

    A signal that the parent ignores (`nohup`) stays ignored.
    """
    for number in _ENDING:
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


def run(arguments: list[str]) -> int:
    """Run one command and return its exit status."""
    context: click.Context | None = None
    try:
        context = cli.make_context("lapwing", list(arguments))
        with context:
            status = cli.invoke(context)
        sys.stdout.flush()  # A full disk or a closed pipe shows here, not when Python ends.
        return status if isinstance(status, int) else 0
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except click.ClickException as error:
        if isinstance(error, click.MissingParameter) and isinstance(error.param, click.Option):
            option = error.param  # Click names the option without its value.
            error.param_hint = f"'{' / '.join(option.opts)} {option.metavar or ''}'"
        error.show()
        return 2
    except (KeyboardInterrupt, click.Abort):
        Printer().say("Interrupted.")
        return 130
    except BrokenPipeError:
        _drop_unwritten()
        return 1
    except OSError as error:
        status = _print_error(context, _from_system(error))
        _drop_unwritten()
        return status
    except LapwingError as error:
        return _print_error(context, error)
    except ModuleNotFoundError as error:
        if error.name not in _UNIX:
            raise
        return _print_error(context, _needs_unix())


def _needs_unix() -> LapwingError:
    return LapwingError(
        "This command needs Linux or macOS.",
        hint="On Windows, run it in WSL; check, render, cost, release and image copy need none.",
    )


def _drop_unwritten() -> None:
    """Discard what stdout cannot take, so that Python reports no error at its end.

    Source: Python's documentation of the signal module, "Note on SIGPIPE".
    """
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_error(context: click.Context | None, error: LapwingError) -> int:
    obj = context.obj if context else None
    printer = obj.printer if isinstance(obj, Context) else Printer()
    if isinstance(obj, Context) and obj.for_programs:
        try:
            printer.json(describe(error, printer.mask))
            printer.out.flush()
        except OSError:  # stdout takes nothing: its disk is full, or its reader has ended.
            printer.error(error)
            _drop_unwritten()
    else:
        printer.error(error)
    return error.exit_status


def _from_system(error: OSError) -> LapwingError:
    what = f"{error.strerror or error}: {error.filename}" if error.filename else str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceError(
            f"The disk is full ({what}).", hint="Free some space and run the command again."
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return LapwingError(f"{what}.", hint="Check the owner of that file: `ls -l`.")
    return LapwingError(what, hint="Run `lapwing doctor` to check the state folder.")
