"""Run a one-off command in the environment of a service's active release.

The command gets what a replica gets: files, settings, secrets, URLs of resources, volumes, and if
the service runs in containers, a container (`one_off_container`). Else it is a child of this
process and uses the terminal of this process. If this process is killed, the kernel sends a signal
to the command. When the command ends, every process that it started is stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

import msgspec

from lapwing.agent import cgroups, one_off, processes, state, termination
from lapwing.agent.launch import Launcher, prepare_home
from lapwing.agent.processes import MARK, Identity, Launch
from lapwing.agent.state import EnvironmentState
from lapwing.build.release import ReleaseStore
from lapwing.desired.secrets import SecretStore
from lapwing.errors import StateError, UsageError, check_name
from lapwing.plan.model import Service
from lapwing.settings import Settings
from lapwing.system.files import remove_tree
from lapwing.system.process import bound_to_caller
from lapwing.targets import one_off_container
from lapwing.targets.base import EnvironmentRef
from lapwing.targets.one_off_container import Command

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)


def run(settings: Settings, ref: EnvironmentRef, service: str, words: Sequence[str]) -> int:
    """Run a command and return its exit status, 128 and more if a signal ended it.

    One word is a line for the shell, as `command` in the stack file. Raises StateError if the
    service is not running, UsageError if it has no environment for commands.
    """
    folder = settings.environment(ref.stack, ref.environment)
    found = _state(settings, ref)
    spec = _spec(found, service, ref)
    line = words[0] if len(words) == 1 else shlex.join(words)
    launcher = Launcher(
        found, settings, ReleaseStore(settings.releases), SecretStore(settings.secrets), folder
    )
    caller = Identity(os.getpid(), processes.started(os.getpid()) or 0.0)
    owner = launcher.owner(service, one_off.label(caller, spec.release), caller.pid)
    spec = msgspec.structs.replace(spec, command=line)
    home = prepare_home(folder / "homes", owner, None)
    try:
        launch = asyncio.run(launcher.launch(spec, owner, None))
        if launch.container is None:
            return _run(launch)
        (home / one_off.CONTAINER).touch()
        terminal = sys.stdin.isatty() and sys.stdout.isatty()
        with forwarding(shares_terminal=terminal) as begin_with:
            return asyncio.run(one_off_container.run(settings, launch, begin_with, terminal))
    finally:
        remove_tree(home)


def _state(settings: Settings, ref: EnvironmentRef) -> EnvironmentState:
    found = None
    with contextlib.suppress(msgspec.MsgspecError):
        found = state.load(settings.environment(ref.stack, ref.environment))
    if found is None or found.document is None or not found.document.services:
        raise StateError(
            f"{ref} is not running.", hint=f"Run `lapwing up -e {ref.environment}` first."
        )
    return found


def _spec(found: EnvironmentState, service: str, ref: EnvironmentRef) -> Service:
    """Return the active release of a service, that of the last deployment for a job."""
    assert found.document is not None
    check_name("service", service, found.document.services, ref)
    spec = found.document.services[service]
    if spec.kind == "static":
        raise UsageError(
            f"{service} is static: it has files, and no environment for a command.",
            hint="Name a service with a `command`.",
        )
    active = found.of(service, "active")
    if active is None and spec.kind != "job":
        raise StateError(
            f"{service} of {ref} is not running.",
            hint=f"`lapwing status -e {ref.environment}` shows its state.",
        )
    return active.spec if active is not None else spec


def _run(launch: Launch) -> int:
    """Run a process with our terminal, streams and signals; return its exit status."""
    mark = launch.environ[MARK]
    arguments = bound_to_caller(cgroups.command(mark, launch.arguments), launch.environ)
    # In our process group it is in the foreground of the terminal, which signals both of us.
    # Without a terminal it gets a group, so that it gets only the signals that we forward.
    shares_terminal = sys.stdin.isatty()
    sys.stdout.flush()
    with forwarding(shares_terminal=shares_terminal) as begin_with:
        process = subprocess.Popen(
            arguments,
            env=dict(launch.environ),
            cwd=launch.folder,
            process_group=None if shares_terminal else 0,
        )
        identity = Identity(process.pid, processes.started(process.pid) or 0.0)
        begin_with(process)
        try:
            status = process.wait()
        finally:
            asyncio.run(termination.kill(identity, mark, watched=True))
    return 128 - status if status < 0 else status


@contextlib.contextmanager
def forwarding(*, shares_terminal: bool) -> Iterator[Callable[[Command], None]]:
    """Forward received signals to a command, also those received before it has started.

    Signals of keys reach it from its terminal. Yields a function that takes the command.
    """
    keys = (signal.SIGINT, signal.SIGQUIT) if shares_terminal else ()
    commands, early = list[Command](), list[int]()

    def forward(number: int, _frame: FrameType | None = None) -> None:
        if number not in keys and not commands:
            early.append(number)
        elif number not in keys:
            with contextlib.suppress(ProcessLookupError):
                commands[0].send_signal(number)

    def begin_with(command: Command) -> None:
        commands.append(command)
        for number in early:
            forward(number)

    before = {
        number: signal.signal(number, forward)
        for number in FORWARDED
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield begin_with
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
