"""The agent: the only deployer of a machine, one process for each LAPWING_HOME.

It listens on no port. It watches the branch of the desired-state repository, hands each document
that changed to its `Environment`, and sees to it that Envoy runs. Everything that serves requests
(Envoy, replicas, databases) is a process of its own that does not notice when the agent dies; an
agent that starts takes over what it finds. It ends by itself when nothing is left to run.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import signal
import sys
import time
from pathlib import Path

import msgspec

from lapwing import __version__
from lapwing.agent import housekeeping, logs, processes, state
from lapwing.agent.environment import Environment, Runtime
from lapwing.agent.meter import Meter
from lapwing.agent.proxy.supervisor import Envoy
from lapwing.agent.publisher import Publisher
from lapwing.agent.state import EnvironmentState
from lapwing.agent.watch import Watch
from lapwing.build.release import ReleaseStore
from lapwing.desired.repository import DesiredRepository
from lapwing.desired.secrets import SecretStore
from lapwing.errors import DesiredStateError, LapwingError
from lapwing.observed import agent as observed
from lapwing.observed.agent import AgentRecord
from lapwing.plan.model import Document
from lapwing.settings import Settings, read

log = logging.getLogger(__name__)

TICK = 1.0
"""Seconds between two looks at what drains or has a deadline."""
IDLE_TICKS = 5
"""So many ticks lie between two looks at an environment where there is nothing of the kind: only
health is heard from Envoy then."""
DAY = 86400.0
LINGER = 3.0
"""Seconds with nothing to run after which the agent ends."""
LOOK = 1.0
"""Seconds after which the files that hold the branch are looked at though nothing moved."""


Key = tuple[str, str]
"""A stack and an environment of it."""


class Agent:
    """Runs every environment of a LAPWING_HOME. `run` returns when there is nothing left to do or
    it was told to end."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.repository = DesiredRepository(settings.desired)
        self.environments: dict[Key, Environment] = {}
        self.envoy = Envoy(settings, died=self._envoy_died)
        self.publisher = Publisher(self.envoy, self._states)
        self.meter = Meter(settings, self.envoy, self._states)
        self._runtime: Runtime | None = None
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._seen: dict[Key, str] = {}
        self._head: str | None = None
        self._rewritten: str | None = None
        """The head whose coming was last told as a rewrite of the history."""
        self._broken: dict[Key, LapwingError] = {}
        """The environments whose document cannot be understood, or is gone."""
        self._tidied_for: dict[Key, str | None] = {}
        self._tidied = time.monotonic()
        self._ending = asyncio.Event()
        self._record = AgentRecord(pid=_own_pid(), version=__version__, port=settings.port)

    async def run(self) -> None:
        """Start Envoy, take over what runs, follow the desired state."""
        import httpx

        self._tell()
        self.repository.ensure()
        await self.envoy.start()
        async with httpx.AsyncClient(trust_env=False) as client:
            self._runtime = Runtime(
                settings=self.settings,
                store=ReleaseStore(self.settings.releases),
                repository=self.repository,
                secrets=SecretStore(self.settings.secrets),
                publisher=self.publisher,
                client=client,
                ports=self._ports,
                states=self._states,
            )
            for memory in self._remembered():
                self._add(memory)
            background = [
                asyncio.create_task(self._follow()),
                asyncio.create_task(self._tick()),
                asyncio.create_task(self.meter.run()),
            ]
            self._record.ready = True
            self._tell()
            log.info("The agent is ready on port %s.", self.settings.port)
            await self._ending.wait()
            for task in [*background, *self._tasks.values()]:
                task.cancel()
            for environment in self.environments.values():
                environment.steps.forget()
        with contextlib.suppress(OSError):
            self.meter.write()
        if any(not e.idle for e in self.environments.values()):
            await self.envoy.leave()
        else:
            await self.envoy.stop()
        self._record.ready = False
        self._tell()

    def end(self) -> None:
        """Let `run` return; what serves goes on serving."""
        self._ending.set()

    # The desired state

    async def _follow(self) -> None:
        """Look at the branch now and whenever it moves; after a failure, again in a second."""
        desired = self.settings.desired
        watch = Watch((desired, desired / "refs" / "heads"))
        seen: object = None
        try:
            while True:
                watch.arm()
                present = self.repository.traces()
                if present != seen:
                    seen = present if await self._look() else None
                await watch.moved(LOOK)
        finally:
            watch.close()

    async def _look(self) -> bool:
        """Take up what the head of the desired state says; whether it could be read."""
        try:
            head = self.repository.head()
            if head == self._head and not self._broken:
                self._problem(None)
                return True
            await asyncio.to_thread(self._check_rewrite, head)
            changes, self._broken = await asyncio.to_thread(self._changes, head)
        except LapwingError as error:
            self._problem(error)
            return False
        except OSError as error:
            self._problem(DesiredStateError(f"The desired state cannot be read: {error}."))
            return False
        except Exception:  # A repository can be broken in ways nobody thought of; never go deaf.
            log.exception("The desired state cannot be read.")
            self._problem(
                DesiredStateError(
                    "The desired state cannot be read.",
                    hint=f"{self.settings.agent / 'agent.log'} has the reason; "
                    "`lapwing doctor --repair` writes down again what runs.",
                )
            )
            return False
        self._head = head
        for (stack, name), commit, document in changes:
            environment = self.environments.get((stack, name))
            if environment is None:
                environment = self._add(EnvironmentState(stack=stack, environment=name))
            environment.desire(commit, document)
            self._seen[(stack, name)] = commit
        self._problem(None)
        return not self._broken

    def _changes(
        self, head: str | None
    ) -> tuple[list[tuple[Key, str, Document]], dict[Key, LapwingError]]:
        """What is new at a head, and the environments of which it says nothing that can be
        understood: a broken document of one stack does not keep the others from being followed."""
        found, broken = [], dict[Key, LapwingError]()
        known = self.repository.environments(head)
        for key in known:
            commit = self.repository.newest(*key)
            if commit is None or self._seen.get(key) == commit:
                continue
            try:
                document = self.repository.read(*key, commit)
            except DesiredStateError as error:
                broken[key] = error
                continue
            if document is not None and document.target == "machine":
                found.append((key, commit, document))
        for key, environment in list(self.environments.items()):
            document = environment.state.document
            if key not in known and document is not None and document.services:
                broken[key] = DesiredStateError(
                    f"The desired state says nothing of {'/'.join(key)} any more.",
                    hint="What runs goes on. `lapwing doctor --repair` writes it down again.",
                )
        return found, broken

    def _check_rewrite(self, head: str | None) -> None:
        """After a force-push: keep the old head reachable, and say so. What it says now is then
        followed as any other commit; if it says nothing, what runs goes on running."""
        before = self._head
        if before is None or head == self._rewritten:
            return
        if head is None:
            raise DesiredStateError(
                f"{self.settings.desired} has no branch `main` any more.",
                hint="What runs goes on. `lapwing doctor --repair` writes it down again.",
            )
        if not self.repository.is_descendant(head, before):
            self._rewritten = head
            with contextlib.suppress(DesiredStateError):
                self.repository.keep(before, f"rewritten/{before[:12]}")
            text = (
                f"The history of the desired state was rewritten; "
                f"the old one is kept as refs/lapwing/rewritten/{before[:12]}."
            )
            log.warning("%s", text)
            for environment in self.environments.values():
                environment.event("agent", text)

    def _problem(self, every: LapwingError | None) -> None:
        """Tell what is wrong with the desired state of every environment, or of single ones."""
        for key, environment in self.environments.items():
            text = None
            if (error := every or self._broken.get(key)) is not None:
                text = f"{error.message} {error.hint or ''}".strip()
            if environment.desired_problem != text:
                log.warning("%s", text or "The desired state can be read again.")
                environment.desired_problem = text
                environment.changed()

    # Environments

    def _remembered(self) -> list[EnvironmentState]:
        """Every environment there is a memory of. A damaged one is put aside: its copy takes its
        place, or else the desired state brings back what ran."""
        found = []
        for path in sorted((self.settings.home / "environments").glob("*/*/state.json")):
            folder = path.parent
            try:
                memory = state.load(folder)
            except (msgspec.MsgspecError, OSError) as error:
                log.error("%s is damaged (%s); it is put aside.", path, error)
                memory = state.salvage(folder) or EnvironmentState(
                    stack=folder.parent.name, environment=folder.name
                )
            if memory is not None:
                found.append(memory)
        return found

    def _add(self, memory: EnvironmentState) -> Environment:
        assert self._runtime is not None
        key = (memory.stack, memory.environment)
        environment = Environment(memory, self._runtime)
        self.environments[key] = environment
        self._tasks[key] = asyncio.create_task(self._run(environment))
        return environment

    async def _run(self, environment: Environment) -> None:
        while True:
            try:
                await environment.run()
            except Exception:
                log.exception(
                    "%s/%s failed; it is taken up again in a second.",
                    environment.state.stack,
                    environment.state.environment,
                )
                environment.steps.forget()
                await asyncio.sleep(1)

    def _states(self) -> list[EnvironmentState]:
        return [e.state for e in self.environments.values()]

    def _ports(self) -> set[int]:
        return {r.port for s in self._states() for g in s.generations for r in g.replicas}

    # Housekeeping

    async def _tick(self) -> None:
        quiet_since: float | None = None
        for second in itertools.count(1):
            await asyncio.sleep(TICK)
            for environment in list(self.environments.values()):
                if environment.needs_tick or second % IDLE_TICKS == 0:
                    await self._tick_one(environment)
            if second % IDLE_TICKS == 0:
                with contextlib.suppress(LapwingError, OSError):
                    await self.envoy.rotate_logs()
                    logs.rotate(self.settings.agent / "agent.log")
                    await self._tidy()
            if not all(e.idle for e in self.environments.values()):
                quiet_since = None
            elif quiet_since is None:
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since >= LINGER:
                log.info("Nothing is left to run; the agent ends.")
                self.end()
                return

    async def _tick_one(self, environment: Environment) -> None:
        try:
            await environment.tick()
        except (LapwingError, OSError) as error:
            log.warning("Housekeeping: %s", error)
        except Exception:
            log.exception("Housekeeping failed; it is tried again.")

    async def _tidy(self) -> None:
        """Once after each deployment, and once a day: releases nobody needs, the repository, the
        certificate. Not while a rollout is in flight, whose time it would take."""
        states = [e.state for e in self.environments.values()]
        if any(s.rollout is not None for s in states):
            return
        deployed = {(s.stack, s.environment): s.commit for s in states}
        if deployed == self._tidied_for and time.monotonic() < self._tidied + DAY:
            return
        self._tidied_for, self._tidied = deployed, time.monotonic()
        self.envoy.renew_certificate()
        running = housekeeping.needed(states)
        await asyncio.to_thread(housekeeping.tidy, self.settings, self.repository, running)

    def _envoy_died(self, how: str) -> None:
        log.warning("%s", how)
        for environment in self.environments.values():
            environment.event("agent", how)

    def _tell(self) -> None:
        with contextlib.suppress(OSError):
            observed.write(self.settings.agent, self._record)

    def fail(self, error: LapwingError) -> None:
        """Write down why this agent cannot run."""
        self._record.problem, self._record.hint = error.message, error.hint
        self._record.code, self._record.ready = error.code, False
        self._tell()


def main() -> int:
    """Run the agent in the foreground; returns the exit status: 0, or 1 if it could not run."""
    settings = read()
    for folder in (settings.home, settings.agent, settings.logs):
        folder.mkdir(parents=True, exist_ok=True)
    settings.home.chmod(0o700)
    lock = observed.hold(settings.agent)
    if lock is None:
        print(f"An agent of {settings.home} runs already.", file=sys.stderr)
        return 0
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    return asyncio.run(_main(settings))


async def _main(settings: Settings) -> int:
    agent = Agent(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, agent.end)
    try:
        await agent.run()
    except LapwingError as error:
        log.error("%s %s\n%s", error, error.hint or "", error.detail or "")
        agent.fail(error)
        return 1
    return 0


def spawn(settings: Settings, log_file: Path) -> processes.Identity:
    """Start the agent in a session of its own. Raises ReplicaError if it cannot be started."""
    environ = {
        name: settings.environ[name]
        for name in ("PATH", "HOME", "LANG", "TMPDIR", "XDG_DATA_HOME")
        if name in settings.environ
    }
    environ |= {
        "LAPWING_HOME": str(settings.home),
        "LAPWING_PORT": str(settings.port),
        "LAPWING_BIND": settings.bind,
    }
    return processes.spawn(
        [sys.executable, "-m", "lapwing.agent.daemon"],
        environ=environ,
        folder=settings.home,
        log=log_file,
    )


def _own_pid() -> int:
    import os

    return os.getpid()


if __name__ == "__main__":
    sys.exit(main())
