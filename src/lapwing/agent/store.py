"""What the agent writes about one environment: its state, its status and its event log.

The state is for the agent itself and survives a crash (`state.py`). Status and events are for the
CLI and the console (`observed/status.py`), which read nothing else. A full disk delays them, but
loses none of the last events, because `lapwing deploy` waits for those.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from lapwing.agent import report, rollout, state
from lapwing.agent.proxy import provided_certificates
from lapwing.agent.rollout import State
from lapwing.agent.state import EnvironmentState, FileWriter
from lapwing.errors import NoSpaceError
from lapwing.observed import status
from lapwing.observed.status import Event, ScalingStatus
from lapwing.system.sanitize import escape_controls

log = logging.getLogger(__name__)

MAX_PENDING_EVENTS = 1000
"""Events kept in memory while the disk is full; the oldest are dropped first."""


class EventLog:
    """Appends to the event log in `folder`, in order, as soon as there is disk space."""

    def __init__(self, folder: Path, mask: Callable[[str], str] = escape_controls) -> None:
        self._folder = folder
        self._mask = mask
        self._pending: deque[Event] = deque(maxlen=MAX_PENDING_EVENTS)

    def event(
        self,
        kind: str,
        text: str,
        commit: str | None = None,
        *,
        state: str | None = None,
        outcome: str | None = None,
        detail: str | None = None,
        hint: str | None = None,
    ) -> None:
        """Append an event with the present time. Never raises for a full disk."""
        fields = {"time": time.time(), "kind": kind, "text": self._mask(text), "commit": commit}
        fields |= {"state": state, "outcome": outcome}
        fields |= {"detail": detail and self._mask(detail), "hint": hint and self._mask(hint)}
        self._pending.append(msgspec.convert(fields, Event))
        self.flush()

    def flush(self) -> None:
        """Write the pending events, as far as there is disk space."""
        with contextlib.suppress(OSError):
            while self._pending:
                status.append(self._folder, self._pending[0])
                self._pending.popleft()


class Store:
    """Keeps the state of one environment, in memory as `state` and on disk in `folder`."""

    def __init__(
        self,
        memory: EnvironmentState,
        folder: Path,
        port: int,
        writer: FileWriter,
        mask: Callable[[str], str] = escape_controls,
    ) -> None:
        self.state = memory
        self.folder = folder
        self.events = EventLog(folder, mask)
        self.event = self.events.event
        self.problem: str | None = None
        """Why Envoy does not serve the present state."""
        self.desired_problem: str | None = None
        """Why the desired state cannot be followed; set by the agent."""
        self.pull_problem: str | None = None
        """Why the remote desired-state repository cannot be pulled; set by the agent."""
        self.machine_problem: str | None = None
        """That the disk is full or the clock is wrong; set by the agent."""
        self.engine_problem: str | None = None
        """That containers could not be removed."""
        self.unsaved: str | None = None
        """Why the state on disk is not the present one."""
        self._public_certificate_problem: str | None = None
        self._log_problem: str | None = None
        self._certificate_problem: str | None = None
        self._mask = mask
        self._scaling: dict[int, ScalingStatus] = {}
        """The autoscaling of services, by the number of their active generation."""
        self._advice: dict[tuple[int, str], list[str]] = {}
        self._port = port
        self._writer = writer

    async def save(self) -> None:
        """Persist the state and update the status.

        Raises NoSpaceError if it cannot be written while a rollout could still fail for that; the
        state in memory stays valid and is written later.
        """
        await self._submit()
        record = self.state.rollout
        if self.unsaved is None or record is None:
            return
        if record.state is not State.UNDOING and record.state not in rollout.TERMINAL:
            raise NoSpaceError(self.unsaved, hint="Free some disk space and deploy again.")

    def save_soon(self) -> None:
        """Persist the present state in the background and update the status.

        For changes that happen to processes by themselves. A process that is in no record is
        treated as an orphan by the next agent. A full disk is reported in the status.
        """
        self._submit()

    def retry(self) -> None:
        """Write the state and the events that could not be written."""
        if self.unsaved is not None:
            self.save_soon()
        elif (
            status.read(self.folder) is None  # It is damaged or missing.
            or self._find_certificate_problem() != self._certificate_problem
        ):
            self.update_status()
        self.events.flush()

    def show_certificate(self, problem: str | None) -> None:
        """Show in the status why there is no valid public certificate for this environment."""
        if problem != self._public_certificate_problem:
            self._public_certificate_problem = problem
            self.update_status()

    def show_log_problem(self, problem: str | None) -> None:
        """Show in the status why logs are not shipped."""
        if problem != self._log_problem:
            self.event("agent", problem or "The problem with shipping logs has ended.")
            self._log_problem = problem
            self.update_status()

    def _find_certificate_problem(self) -> str | None:
        return provided_certificates.problem(self.state) or self._public_certificate_problem

    def update_status(self) -> None:
        """Write the status file."""
        certificate = self._find_certificate_problem()
        if certificate != self._certificate_problem:
            self.event("agent", certificate or f"Solved: {self._certificate_problem}")
            self._certificate_problem = certificate
        problem = self.desired_problem or self.unsaved or self.machine_problem or self.problem
        problem = problem or self.pull_problem or self.engine_problem or certificate
        with contextlib.suppress(OSError):
            found = report.status(self.state, self._port, problem)
            active = {g.number for g in self.state.generations if g.role == "active"}
            for service in found.services:
                generation = self.state.of(service.name, "active")
                if generation is not None and generation.spec.scale:
                    service.scaling = self._scaling.get(generation.number)
            found.advice = [
                text for (n, _), texts in self._advice.items() if n in active for text in texts
            ]
            found.log_problem = self._log_problem and self._mask(self._log_problem)
            status.write(self.folder, found)

    def show_scaling(self, number: int, scaling: ScalingStatus) -> None:
        """Show the autoscaling of a service, of which a generation is active, in the status."""
        if self._scaling.get(number) != scaling:
            active = {g.number for g in self.state.generations if g.role == "active"}
            self._scaling = {n: s for n, s in self._scaling.items() if n in active}
            self._scaling[number] = scaling
            self.update_status()

    def advise(self, number: int, topic: str, texts: Iterable[str], commit: str | None) -> None:
        """Show advice on a generation in the status, and as events: at a deployment all of it.

        It replaces what was known on the topic.
        """
        found, known = [self._mask(text) for text in texts], self._advice.get((number, topic), [])
        for text in found:
            if commit or text not in known:
                self.event("note", text, commit)
        if found != known:
            self._advice[number, topic] = found
            self.update_status()

    def _submit(self) -> asyncio.Future[None]:
        """Encode the state now, and write it after those that were submitted before."""
        data = msgspec.json.encode(self.state)
        written = self._writer.submit(functools.partial(self._write, data))
        written.add_done_callback(lambda _written: self.update_status())
        return written

    def _write(self, data: bytes) -> None:
        try:
            state.save_encoded(self.folder, data)
            self.unsaved = None
        except OSError as error:
            self.unsaved = f"The state cannot be saved: {error.strerror or error}."
            log.error("%s", self.unsaved)
