"""Seeing to it that the agent runs, and ending it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from lapwing import __version__
from lapwing.errors import AgentError, PortTakenError
from lapwing.observed import agent as observed
from lapwing.observed.agent import AgentRecord
from lapwing.settings import Settings

START = 30.0
"""Seconds in which an agent has to come to life; it usually takes less than one."""
LATE = 120.0
"""Seconds after which one that lives has to be ready, on a machine that is very busy."""


def begin(settings: Settings) -> bool:
    """Start the agent if none lives, without waiting for it; whether one was started."""
    if observed.is_running(settings.agent):
        return False
    from lapwing.agent import daemon as agent

    settings.home.mkdir(parents=True, exist_ok=True)
    settings.home.chmod(0o700)
    settings.agent.mkdir(parents=True, exist_ok=True)
    (settings.agent / "agent.json").unlink(missing_ok=True)
    agent.spawn(settings, settings.agent / "agent.log")
    return True


def ensure(settings: Settings, tell: Callable[[str], None] = lambda _: None) -> AgentRecord:
    """Have an agent of this version that is ready; returns its record.

    An agent of another version is asked to end and a new one takes over what runs, which no client
    notices. Raises AgentError or PortTakenError.
    """
    record = observed.read(settings.agent)
    if record is not None and observed.is_running(settings.agent):
        if record.port != settings.port:
            raise AgentError(
                f"The agent of {settings.home} serves port {record.port}, not {settings.port}.",
                hint="Unset LAPWING_PORT, or run `lapwing agent stop` first to change the port.",
            )
        if record.ready and record.version == __version__:
            return record
        if record.version != __version__:
            tell(f"the agent is of version {record.version}; {__version__} takes over")
            end(settings)
    begin(settings)
    began = time.monotonic()
    while time.monotonic() - began < (LATE if observed.is_running(settings.agent) else START):
        record = observed.read(settings.agent)
        if record is not None and record.ready:
            return record
        if not observed.is_running(settings.agent):
            record = observed.read(settings.agent)
            if record is not None and record.problem is not None:
                kind = PortTakenError if record.code == PortTakenError.code else AgentError
                raise kind(record.problem, hint=record.hint)
            if record is not None:
                begin(settings)  # It ended by itself just now, with nothing to do.
        time.sleep(0.01)
    raise AgentError("The agent did not start.", hint=f"Its log is {settings.agent / 'agent.log'}.")


def end(settings: Settings) -> bool:
    """Ask the agent to end and wait until it has; what serves goes on serving. Whether it lived.

    Raises AgentError if it does not end.
    """
    record = observed.read(settings.agent)
    if record is None or not observed.is_running(settings.agent):
        return False
    try:
        os.kill(record.pid, signal.SIGTERM)
    except ProcessLookupError:
        return False
    until = time.monotonic() + 15
    while observed.is_running(settings.agent):
        if time.monotonic() > until:
            raise AgentError(
                f"The agent (process {record.pid}) does not end.",
                hint=f"Its log is {settings.agent / 'agent.log'}.",
            )
        time.sleep(0.01)
    return True
