"""The agent and Envoy as commands see them: start, stop, probe, follow a deployment to its end.

Following reads the event log, and once a second the history: an agent that is killed between the
two has written one of them only. If the agent dies meanwhile, another is started and continues;
if the command ends, the deployment continues too.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lapwing import __version__
from lapwing.desired import history
from lapwing.desired.repository import DesiredRepository
from lapwing.errors import AgentError, DesiredStateError, PortTakenError
from lapwing.observed import agent as observed
from lapwing.observed import status
from lapwing.observed.agent import AgentRecord
from lapwing.observed.status import Event, Follower
from lapwing.settings import Settings
from lapwing.system import home, locks
from lapwing.targets.base import EnvironmentRef

if TYPE_CHECKING:
    from lapwing.agent.processes import Identity

START_TIMEOUT_S = 30.0
"""Within this time an agent process has to run; it usually takes less than one second."""
READY_TIMEOUT_S = 120.0
"""Within this time a running agent has to be ready, on a machine that is very busy."""
STOP_TIMEOUT_S = 15.0
ENVOY_TIMEOUT_S = 2.0
END_TIMEOUT_S = 30.0
"""Within this time connections have to end, and processes after their `stop_grace`."""
POLL_S = 0.015
MAX_RESTARTS = 5
"""How often the agent is started again by one command."""


def begin(settings: Settings) -> Identity | None:
    """Start the agent without waiting for it; returns its process, None if one is running.

    Raises UsageError if the state folder cannot be one, ProxyError if Envoy is not installed.
    """
    if observed.is_running(settings.agent):
        return None
    if settings.server:
        raise AgentError(
            "The agent of this server is not running.",
            hint="Log in as root and run `systemctl status lapwing`.",
        )
    from lapwing.agent import daemon
    from lapwing.agent.proxy import instances

    instances.program()
    home.prepare(settings.home)
    settings.agent.mkdir(exist_ok=True)
    try:
        with locks.hold(settings.agent / "lock", wait=False):  # Not the record of a running agent.
            (settings.agent / "lock").write_text("")  # The id of a process that has ended.
            (settings.agent / "agent.json").unlink(missing_ok=True)
    except BlockingIOError:
        return None
    return daemon.spawn(settings, settings.agent / "agent.log")


def ensure(settings: Settings, progress: Callable[[str], None] = lambda _: None) -> AgentRecord:
    """Start the agent if it is not running, and wait until it is ready.

    An agent of another version is stopped, and a new one adopts the running processes, which no
    client notices. Raises AgentError or PortTakenError.
    """
    from lapwing.agent.processes import alive as is_alive

    record = observed.read(settings.agent)
    if record is not None and record.pid == observed.holder(settings.agent):
        if record.port != settings.port:
            raise AgentError(
                f"The agent of {settings.home} serves port {record.port}, not {settings.port}.",
                hint="Unset LAPWING_PORT, or run `lapwing agent stop` first to change the port.",
            )
        if record.ready and record.version == __version__:
            return record
        if record.version != __version__:
            progress(f"replacing the agent of version {record.version} with {__version__}")
            end(settings)
    agent, attempts = begin(settings), 1
    began = time.monotonic()
    while time.monotonic() - began < (
        READY_TIMEOUT_S if observed.is_running(settings.agent) else START_TIMEOUT_S
    ):
        record = observed.read(settings.agent)
        if record is not None and record.ready and record.pid == observed.holder(settings.agent):
            return record
        if not observed.is_running(settings.agent):
            record = observed.read(settings.agent)
            if record is not None and record.problem is not None:
                error = PortTakenError if record.code == PortTakenError.code else AgentError
                raise error(record.problem, hint=record.hint)
            if agent is None or not is_alive(agent):  # It was killed, or had nothing to run.
                if attempts > MAX_RESTARTS:
                    break
                agent = begin(settings)
                attempts += agent is not None
        time.sleep(0.01)
    raise AgentError("The agent did not start.", hint=f"See its log {_log(settings)}.")


def end(settings: Settings) -> bool:
    """Stop the agent and wait for its end; replicas keep serving. Returns whether it was running.

    Raises AgentError if it does not end.
    """
    pid = observed.holder(settings.agent)
    if pid is None:
        return False
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return False
    until = time.monotonic() + STOP_TIMEOUT_S
    while observed.is_running(settings.agent):
        if time.monotonic() > until:
            raise AgentError(
                f"The agent (process {pid}) did not stop within {STOP_TIMEOUT_S:.0f} s.",
                hint=f"See its log {_log(settings)}.",
            )
        time.sleep(0.01)
    return True


def serving_port(settings: Settings) -> int:
    """Return the port of the last agent, which may differ from this command's LAPWING_PORT."""
    record = observed.read(settings.agent)
    return settings.port if record is None else record.port


def envoy_accepts(settings: Settings) -> bool:
    """Return whether Envoy accepts a connection, with a certificate of this machine's authority."""
    import socket
    import ssl

    address = (settings.own_address(), serving_port(settings))
    try:
        context = ssl.create_default_context(cafile=str(settings.certificates / "ca.pem"))
        with (
            socket.create_connection(address, ENVOY_TIMEOUT_S) as connection,
            context.wrap_socket(connection, server_hostname="localhost"),
        ):
            return True
    except OSError:  # Also of TLS.
        return False


def finish_stops(settings: Settings, progress: Callable[[str], None]) -> None:
    """Wait until what is being stopped, of any stack, has ended; report what has not."""
    for folder, found in status.read_all(settings.home):
        if found.stopping or not found.services:
            try:
                wait_until_stopped(settings, folder, progress)
            except AgentError as error:
                progress(error.message)


def wait_until_stopped(
    settings: Settings, folder: Path, progress: Callable[[str], None], *, supervise: bool = False
) -> None:
    """Wait until what is being stopped in an environment has ended; without services, everything.

    To `supervise` is to start the agent again if it ends meanwhile. Raises AgentError if it takes
    longer than `stop_grace` allows.
    """
    shown, shown_end, checked, began = "", 0.0, time.monotonic(), time.time()
    printed = ""
    until = began + END_TIMEOUT_S
    while (found := status.read(folder)) and found.is_stopping:
        longest = max(found.stopping.values(), default=0.0)
        end = found.updated + longest
        until = max(until, end + END_TIMEOUT_S)
        names = ", ".join(sorted(found.stopping))
        if names and (names != shown or end > shown_end + 1):  # A release with more time follows.
            shown, shown_end = names, end
            text = f"stopping {names}, up to {longest:.0f} s"
            if text != printed:
                progress(text)
            printed = text
        if time.time() > until:
            where = f"{found.stack}/{found.environment}"
            raise AgentError(
                f"{names or 'A process'} of {where} did not stop within {until - began:.0f} s.",
                hint=f"See the agent's log {_log(settings)}.",
            )
        if time.monotonic() - checked > 1:
            checked = time.monotonic()
            if not observed.is_running(settings.agent):
                if not supervise:
                    return
                ensure(settings)
        time.sleep(0.05)


@dataclass(frozen=True, slots=True)
class Followed:
    """The end of a deployment: an outcome, or `held` for one that is paused.

    `times` are seconds from the commit to each state.
    """

    commit: str
    outcome: str
    reason: str
    detail: str | None = None
    hint: str | None = None
    times: dict[str, float] = field(default_factory=dict)


def watch(settings: Settings, ref: EnvironmentRef) -> Follower:
    """Start reading events; call it before the commit is made, so that no event is missed."""
    return Follower(settings.environment(ref.stack, ref.environment))


def follow(
    settings: Settings,
    follower: Follower,
    commit: str,
    on_event: Callable[[Event], None] = lambda _: None,
) -> Followed:
    """Wait until a deployment ends or is paused. Raises AgentError if the agent keeps ending."""
    began, checked = time.time(), time.monotonic()
    times: dict[str, float] = {}
    restarts = 0
    recorded: Followed | None = None
    while True:
        for event in follower.read():
            if event.commit != commit:
                continue
            on_event(event)
            if event.state is not None and event.kind == "state":
                times.setdefault(event.state, event.time - began)
            outcome = event.outcome if event.kind == "outcome" else None
            if event.kind == "note" and event.state == "holding":
                outcome = "held"
            if outcome is not None:
                return Followed(commit, outcome, event.text, event.detail, event.hint, times)
        if time.monotonic() - checked > 1:
            checked = time.monotonic()
            if recorded is not None:
                return recorded  # The agent was killed before it wrote the event.
            recorded = _recorded(settings, commit, times)
            if not observed.is_running(settings.agent):
                restarts += 1
                if restarts > MAX_RESTARTS:
                    raise AgentError(
                        f"The agent exited {restarts} times during the deployment.",
                        hint=f"See its log {_log(settings)}.",
                    )
                ensure(settings)
        time.sleep(POLL_S)


def _recorded(settings: Settings, commit: str, times: dict[str, float]) -> Followed | None:
    """Return the outcome that the history has of a commit."""
    try:
        found = history.outcome(DesiredRepository(settings.desired), commit)
    except DesiredStateError:
        return None
    return found and Followed(commit, found[0], found[1] or found[0], times=times)


def _log(settings: Settings) -> str:
    return str(settings.agent / "agent.log")
