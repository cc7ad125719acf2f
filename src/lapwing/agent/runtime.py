"""What runs replicas: processes of this machine, or containers of its engine.

Both are identified by a process (`processes.Identity`), so what only looks at a replica needs to
know no runtime. What starts, awaits or ends one asks the runtime of its service.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from lapwing.agent import processes, termination, watching
from lapwing.agent.containers import Containers
from lapwing.agent.processes import Identity, Launch
from lapwing.plan.model import Service
from lapwing.settings import Settings


class Runtime(Protocol):
    """Runs replicas. `mark` is the mark of a replica and of all that it starts."""

    async def start(self, launch: Launch, log: Path) -> Identity:
        """Start a replica. Raises LapwingError if it cannot be started."""

    async def watch(self, identity: Identity, mark: str, log: Path) -> str:
        """Wait for the exit of a replica, and keep its log written; return how it ended."""

    async def stop(self, identity: Identity, mark: str, grace: float) -> None:
        """Stop a replica with all that it started, within `grace` seconds."""

    async def kill(self, identity: Identity, mark: str) -> None:
        """Kill what is left of a replica."""

    async def run(self, launch: Launch, log: Path, timeout: float) -> str | None:
        """Run a command to completion; return how it ended, None after `timeout` seconds."""


class Processes:
    """Runs replicas as processes."""

    async def start(self, launch: Launch, log: Path) -> Identity:
        """Start a process. Raises ReplicaError if its program cannot be run."""
        return processes.spawn(launch, log)

    async def watch(self, identity: Identity, mark: str, log: Path) -> str:
        """Wait for the exit of a process, and keep its log written; return how it ended."""
        return await watching.watch(identity, log)

    async def stop(self, identity: Identity, mark: str, grace: float) -> None:
        """Stop a process gracefully, with all that it started."""
        await termination.stop(identity, grace, mark, watched=True)

    async def kill(self, identity: Identity, mark: str) -> None:
        """Kill what an exited process has started."""
        await termination.kill(identity, mark, watched=True)

    async def run(self, launch: Launch, log: Path, timeout: float) -> str | None:
        """Run a process to completion."""
        return await termination.run(launch, log, timeout)


class Runtimes:
    """The runtimes of one agent."""

    def __init__(self, settings: Settings) -> None:
        self.processes = Processes()
        self.containers = Containers(settings)

    def of(self, service: Service) -> Runtime:
        """Return the runtime of a service."""
        return self.processes if service.container is None else self.containers
