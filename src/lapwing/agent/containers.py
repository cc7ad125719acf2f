"""Replicas as containers: the counterpart of `processes` for services with an image.

A container is a session of processes of this machine. So a replica has the same identity as one
that is a process, the process ID and start time of the first process of its container, and is
adopted, watched, measured and signalled by it. What only the engine can do is done through its API:
create, remove, read the exit status and the output.

What a killed agent did not record is found by the label of its owner and removed. The engine
restarts nothing (restart policy `no`).

The engine buffers the output (bounded), and the agent copies it to the log of the replica. The time
of the last copied line is the modification time of the log, where a restarted agent continues.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from lapwing.agent import container_output, logs, oom, processes, termination, watching
from lapwing.agent.container_request import (
    HOME_LABEL,
    OWNER_LABEL,
    creation,
    image_repository,
    name_of,
    network_name,
)
from lapwing.agent.engine import Engine, find_socket
from lapwing.agent.processes import MARK, Identity, Launch
from lapwing.errors import EngineError, EngineUnreachableError, ReplicaError
from lapwing.settings import Settings
from lapwing.system.control_groups import mebibytes
from lapwing.system.timestamps import nanoseconds

log = logging.getLogger(__name__)

YOUNGEST_IMAGE_S = 3600.0
"""Age from which an image that no release needs is removed."""
START_TIMEOUT_S = 60.0
"""How long a deployment in progress waits for the engine after a restart of the agent. After a boot
or a power failure, the engine may start later than the agent."""
START_POLL_S = 0.5
"""Time between two requests to an engine that does not respond."""
FLUSH_TIMEOUT_S = 2.0
"""How long the exit of a container is reported late because its last output is being read."""


class Containers:
    """Runs replicas as containers. The engine is looked for when it is first needed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connected: Engine | None = None
        self._unremoved = set[str]()

    async def wait_for_engine(self, report: Callable[[str], None]) -> None:
        """Wait until the engine responds, at most START_TIMEOUT_S; `report` gets the reason."""
        until = time.monotonic() + START_TIMEOUT_S
        reported = False
        while time.monotonic() < until:
            try:
                await self._engine().platform()
                return
            except EngineError as error:
                if not reported:
                    report(f"{error.message} Waiting up to {START_TIMEOUT_S:g} s for it.")
                reported = True
                await asyncio.sleep(START_POLL_S)

    async def start(self, launch: Launch, log: Path) -> Identity:
        """Create and start a container; it replaces one of the same replica.

        Raises EngineError or ReplicaError.
        """
        async with self.created(launch) as (engine, name):
            log.parent.mkdir(parents=True, exist_ok=True)
            await engine.start(name)
            return await self._identify(name)

    @contextlib.asynccontextmanager
    async def created(self, launch: Launch, **options: bool) -> AsyncIterator[tuple[Engine, str]]:
        """Create a container; yield the engine and its name. It is removed if its start fails.

        `options` are added to the request. Raises EngineError or ReplicaError.
        """
        assert launch.container is not None
        name, engine = name_of(launch.environ[MARK]), self._engine()
        body = creation(launch, launch.container, launch.environ[MARK]) | options
        await engine.remove(name)
        if launch.container.network is not None:
            await engine.ensure_network(launch.container.network)
        try:
            if not await engine.create(name, body):
                await self._pull(launch.container.image)
                await engine.create(name, body)
            yield engine, name
        except BaseException as error:
            with contextlib.suppress(EngineError):
                await asyncio.shield(engine.remove(name))
            if isinstance(error, EngineError) and not isinstance(error, EngineUnreachableError):
                raise ReplicaError(
                    f"A container of {launch.container.image} cannot be started.",
                    detail=error.message,
                    hint="Check `command` in the stack file: its program has to be in the image.",
                ) from error
            raise

    async def watch(self, identity: Identity, mark: str, log: Path) -> str:
        """Wait for the exit of a container, and copy its output to `log`; return how it ended."""
        killed = oom.KillCounter(identity.pid)
        copying = container_output.copy(self._engine, identity, name_of(mark), log)
        following = asyncio.create_task(copying)
        try:
            if identity.pid:
                await watching.ended(identity, killed)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(following, FLUSH_TIMEOUT_S)
            how = await self._how_it_ended(name_of(mark), killed)
        finally:
            following.cancel()
        if oom.is_described(how):
            logs.append(log, f"lapwing: the container {how}\n".encode())
        return how

    async def stop(self, identity: Identity, mark: str, grace: float) -> None:
        """Stop a container gracefully, with all its processes, and remove it.

        Raises EngineError if it is still running.
        """
        if identity.pid and not _may_signal(identity):
            await self._engine().send_signal(name_of(mark), "SIGTERM")
        await termination.stop(identity, grace, mark, watched=True)
        await self.kill(identity, mark)

    async def kill(self, identity: Identity, mark: str) -> None:
        """Kill and remove a container. Raises EngineError if it is still running.

        Without an engine, its processes are killed, and its owner is added to `_unremoved`.
        """
        try:
            await self._engine().remove(name_of(mark))
        except EngineError as error:
            await termination.kill(identity, mark, watched=True)
            if processes.alive(identity):
                raise
            log.warning("A container was not removed: %s", error)
            self._unremoved.add(mark.partition("|")[2])

    async def run(self, launch: Launch, log: Path, timeout: float) -> str | None:
        """Run a container to completion; as `termination.run`."""
        mark = launch.environ[MARK]
        identity = await self.start(launch, log)
        try:
            async with asyncio.timeout(timeout):
                return await self.watch(identity, mark, log)
        except TimeoutError:
            return None
        finally:
            await self.kill(identity, mark)

    def unremoved(self, prefix: str) -> bool:
        """Return whether a container of an owner that begins with `prefix` was not removed."""
        return any(owner.startswith(prefix) for owner in self._unremoved)

    async def remove_unknown(self, prefix: str, known: Callable[[str], bool]) -> None:
        """Remove the containers of owners that begin with `prefix` and are not `known`.

        `known` is called before each removal. Raises EngineError.
        """
        engine = self._engine()
        for container, labels in (
            await engine.labelled(HOME_LABEL, str(self._settings.home))
        ).items():
            owner = labels.get(OWNER_LABEL, "")
            if owner.startswith(prefix) and not known(owner):
                await engine.remove(container)
        await self._remove_network(prefix)
        self._unremoved = {o for o in self._unremoved if not o.startswith(prefix)}

    async def _remove_network(self, prefix: str) -> None:
        """Remove the network of an environment; the engine refuses it while a container uses it."""
        stack, environment = prefix.split("/")[:2]
        await self._engine().remove_network(network_name(self._settings, stack, environment))

    async def remove_images(self, keep: Mapping[tuple[str, str], set[str]]) -> None:
        """Remove the images that were built for this home and are no release in `keep`.

        One that was built in the last hour may be of a deployment that is not committed yet. Raises
        EngineError.
        """
        before = time.time() - YOUNGEST_IMAGE_S
        for (stack, service), releases in keep.items() if self._connected is not None else ():
            repository = image_repository(self._settings, stack, service)
            for name in await self._engine().names(repository):
                release = f"{service}@{name.rpartition(':')[2]}"
                if release not in releases and await self._tagged(name) < before:
                    await self._engine().untag(name)

    async def _tagged(self, name: str) -> float:
        """Return when an image got its newest tag; now if that is unknown."""
        image = await self._engine().image(name) or {}
        stamp = str((image.get("Metadata") or {}).get("LastTagTime") or "")
        with contextlib.suppress(ValueError):
            if (found := nanoseconds(stamp) / 10**9) > 0:
                return found
        return time.time()

    def _engine(self) -> Engine:
        if self._connected is None:
            self._connected = Engine(find_socket(self._settings.environ))
        return self._connected

    async def _pull(self, image: str) -> None:
        """Pull an image that the engine has lost. Raises ReplicaError if it is in no registry."""
        if "@" not in image:
            raise ReplicaError(
                f"Image {image} is not on this machine any more.", hint="Deploy again to build it."
            )
        login = await registry_login(self._settings, image)
        await self._engine().pull(image, login, lambda _progress: None)

    async def find(self, mark: str) -> Identity:
        """Return the first process of a container; process 0 if there is none."""
        try:
            return await self._identify(name_of(mark))
        except EngineError:
            return Identity(0, 0.0)

    async def _identify(self, name: str) -> Identity:
        """Return the first process of a container; process 0 if it has exited already."""
        state = await self._engine().state(name) or {}
        pid = int(state.get("Pid") or 0)
        since = processes.started(pid) if pid else None
        if pid and since is None and state.get("Running"):
            again = await self._engine().state(name) or {}
            if again.get("Running") and processes.started(pid) is None:
                raise ReplicaError(
                    "The processes of the container engine are not on this machine (they may be "
                    "in a virtual machine).",
                    hint="Run containers on Linux, or use `runtime: process`.",
                )
        return Identity(pid, since) if since is not None else Identity(0, 0.0)

    async def _how_it_ended(self, name: str, killed: oom.KillCounter) -> str:
        try:
            await self._engine().wait(name)
            found = await self._engine().container(name)
        except EngineError:
            return "ended while the container engine was not running"
        if found is None:
            return "was removed"
        how = _ended(int(found["State"].get("ExitCode", 0)))
        # Podman does not always report it; the container's control group is gone by now.
        sure = bool(found["State"].get("OOMKilled"))
        if not sure and killed.increased(how) is None:
            return how
        limit = int(found["HostConfig"].get("Memory") or 0)
        if not limit:
            return oom.describe(how, "it has no limit: this machine has no memory left", sure=sure)
        given = f"the limit is {mebibytes(limit)}: raise `resources: {{memory: ...}}`"
        return oom.describe(how, f"{given} of the service in the stack file", sure=sure)


def _ended(code: int) -> str:
    """Return how a container ended, by its exit status. Source: docker run, "Exit status"."""
    with contextlib.suppress(ValueError):
        if code > 128:
            return f"was killed by {signal.Signals(code - 128).name}"
    return f"exited with status {code}"


async def registry_login(settings: Settings, image: str) -> dict[str, str] | None:
    """Return the login for the registry of an image, as the engine takes it."""
    from lapwing.registry.credentials import Credentials
    from lapwing.stack.image import parse

    reference = parse(image)
    found = await Credentials(settings).login(reference.api)
    if found is None:
        return None
    return {
        "username": found.user,
        "password": found.password,
        "identitytoken": found.identity,
        "serveraddress": reference.registry,
    }


def _may_signal(identity: Identity) -> bool:
    try:
        os.kill(identity.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return True
