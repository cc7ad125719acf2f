"""The agent: the only process that deploys on a machine, one for each LAPWING_HOME.

It listens on no port. It follows the branch of the desired-state repository, hands each changed
document to its `Environment`, and keeps Envoy running. Everything that serves requests (Envoy,
replicas, databases) is a separate process that keeps running when the agent dies; a restarted agent
adopts it. The agent exits when nothing is left to run, except on a server, where systemd runs it.

Nothing here blocks the event loop for long: git, synced writes, directory scans and copies run in
threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import itertools
import logging
import os
import signal
import stat
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import msgspec

from lapwing import __version__
from lapwing.agent import cgroups, housekeeping, one_off, processes, state, watching
from lapwing.agent.autoscaler import Autoscaler
from lapwing.agent.context import Context
from lapwing.agent.desired_watcher import DesiredStateWatcher, Key
from lapwing.agent.environment import Environment
from lapwing.agent.log_shipping import Shippers
from lapwing.agent.meter import Meter
from lapwing.agent.proxy import certificates
from lapwing.agent.proxy.public_certificate import PublicCertificate
from lapwing.agent.proxy.supervisor import Envoy
from lapwing.agent.publisher import Publisher
from lapwing.agent.puller import Puller
from lapwing.agent.removed import RemovedEnvironments
from lapwing.agent.runtime import Runtimes
from lapwing.agent.state import EnvironmentState
from lapwing.build.release import ReleaseStore
from lapwing.desired.repository import DesiredRepository
from lapwing.desired.secrets import SecretStore
from lapwing.errors import LapwingError
from lapwing.observed import agent as observed
from lapwing.observed.agent import AgentRecord
from lapwing.plan.model import Document
from lapwing.settings import Settings, read
from lapwing.system import files, home

log = logging.getLogger(__name__)

TICK_INTERVAL_S = 1.0
QUIET_TICKS = 5
"""Ticks between two looks at an environment without deadlines or problems."""
LOST_TICKS = 10
"""Ticks after which an agent ends because another one has its lock."""
HOUSEKEEPING_INTERVAL_S = 86400.0
INHERITED = (
    *("PATH", "HOME", "LANG", "TMPDIR", "XDG_DATA_HOME"),
    *("DOCKER_HOST", "CONTAINER_HOST", "DOCKER_CONFIG", "XDG_RUNTIME_DIR"),
)
"""The variables that a started agent has of the command's."""
LOGS_STOP_S = 3.0
"""How long the agent waits at its end until the last logs are shipped; the next one continues."""
IDLE_EXIT_S = 3.0
"""How long nothing is running before the agent exits."""


class Agent:
    """Runs every environment of a LAPWING_HOME."""

    def __init__(self, settings: Settings, lock: int) -> None:
        self.settings = settings
        self.repository = DesiredRepository(settings.desired)
        self.environments: dict[Key, Environment] = {}
        self.envoy = Envoy(settings, died=self._warn)
        self.secrets = SecretStore(settings.secrets)
        self.publisher = Publisher(self.envoy, self._states, self.secrets)
        self.public_certificate = PublicCertificate(
            settings,
            self._states,
            self.envoy.certificates.answer_challenges,
            self.envoy.certificates.use,
            self._check_machine,
        )
        self.meter = Meter(settings, self.envoy, self._states)
        self.autoscaler = Autoscaler(
            self.envoy, lambda: [e.maintenance.scaler for e in self.environments.values()]
        )
        self.watcher = DesiredStateWatcher(
            self.repository,
            settings.agent / "agent.log",
            running=lambda: {k: e.state.document for k, e in self.environments.items()},
            apply=self._apply,
            report=self._report_problems,
            warn=self._warn,
        )
        self.puller = Puller(settings, self._show_pull)
        self.shippers = Shippers(settings, self.secrets, self._show_logs)
        self.removed = RemovedEnvironments(
            self.environments, self.repository, self._end, settings.home
        )
        self._context: Context | None = None
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._ticks: dict[Key, asyncio.Task[None]] = {}
        self._upkeep: asyncio.Task[None] | None = None
        self._cleaned_for: dict[Key, str | None] = {}
        self._cleaned = time.monotonic()
        self._machine_problem: str | None = None
        self._ending = asyncio.Event()
        self._lock, self._lost_ticks = lock, 0
        self._record = AgentRecord(pid=os.getpid(), version=__version__, port=settings.port)

    async def run(self) -> None:
        """Start Envoy, adopt what is running, and follow the desired state.

        Returns when nothing is left to run or `end` was called.
        """
        self._write_record()
        await asyncio.to_thread(housekeeping.remove_leftovers, self.settings.home)
        await asyncio.to_thread(cgroups.remove_all_empty, self.settings.home)
        await self._check_machine()
        await asyncio.to_thread(self.repository.ensure)
        await self.envoy.start()
        self._context = Context(
            settings=self.settings,
            releases=ReleaseStore(self.settings.releases),
            repository=self.repository,
            secrets=self.secrets,
            publisher=self.publisher,
            runtimes=Runtimes(self.settings),
            states=self._states,
        )
        for memory in self._load_states():
            self._add(memory)
        background = [
            asyncio.create_task(self.watcher.run()),
            asyncio.create_task(self._tick()),
            asyncio.create_task(self.meter.run()),
            asyncio.create_task(self.autoscaler.run()),
        ]
        self._record.ready = True
        self._write_record()
        log.info("The agent is ready on port %s.", self.settings.port)
        await self._ending.wait()
        if self._upkeep is not None:
            background.append(self._upkeep)
        ending = [*background, *self._tasks.values(), *self._ticks.values()]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        for environment in self.environments.values():  # Nothing begins a change any more.
            await environment.maintenance.scaler.settle()
            environment.unwatch_all()
        with contextlib.suppress(OSError):
            self.meter.write()
        await asyncio.to_thread(self.shippers.stop, LOGS_STOP_S)
        if self._lost_ticks or any(not e.idle for e in self.environments.values()):
            await self.envoy.leave()
        else:
            await self.envoy.stop()
        self._record.ready = False
        self._write_record()

    def end(self) -> None:
        """Make `run` return; replicas, databases and Envoy keep running."""
        self._ending.set()

    # Environments

    def _load_states(self) -> list[EnvironmentState]:
        """Load the state of every environment.

        A damaged file is renamed; its copy is used, or else the desired state brings back what was
        running.
        """
        found = []
        for path in sorted((self.settings.home / "environments").glob("*/*/state.json")):
            folder = path.parent
            try:
                memory = state.load(folder)
            except (msgspec.MsgspecError, OSError) as error:
                log.error("%s is damaged (%s); it is renamed.", path, error)
                memory = state.salvage(folder) or EnvironmentState(
                    stack=folder.parent.name, environment=folder.name
                )
            if memory is not None:
                found.append(memory)
        return found

    def _add(self, memory: EnvironmentState) -> Environment:
        assert self._context is not None
        key = (memory.stack, memory.environment)
        environment = Environment(memory, self._context)
        environment.store.machine_problem = self._machine_problem
        self.environments[key] = environment
        self._tasks[key] = asyncio.create_task(self._run(environment))
        return environment

    async def _run(self, environment: Environment) -> None:
        """Run an environment; after an unexpected error, again in a second."""
        while True:
            try:
                await environment.run()
            except Exception:
                name = f"{environment.state.stack}/{environment.state.environment}"
                log.exception("%s failed; retrying in a second.", name)
                environment.unwatch_all()
                await asyncio.sleep(1)

    def _apply(self, key: Key, commit: str, document: Document) -> None:
        stack, name = key
        environment = self.environments.get(key)
        if environment is None:
            environment = self._add(EnvironmentState(stack=stack, environment=name))
        environment.desire(commit, document)

    def _report_problems(
        self, general: LapwingError | None, single: Mapping[Key, LapwingError]
    ) -> None:
        """Show in each status what is wrong with the desired state."""
        for key, environment in self.environments.items():
            store = environment.store
            text = None
            if (error := general or single.get(key)) is not None:
                text = f"{error.message} {error.hint or ''}".strip()
            if store.desired_problem != text:
                log.warning("%s", text or "The desired state can be read again.")
                store.desired_problem = text
                store.update_status()

    def _show_pull(self, key: Key, problem: str | None) -> None:
        """Show in the status of an environment why it cannot be pulled."""
        environment = self.environments.get(key)
        if environment is not None and environment.store.pull_problem != problem:
            environment.store.event("agent", problem or "The desired state can be pulled again.")
            environment.store.pull_problem = problem
            environment.store.update_status()

    def _show_logs(self, key: Key, problem: str | None) -> None:
        """Show in the status of an environment why its logs are not shipped."""
        environment = self.environments.get(key)
        if environment is not None:
            environment.store.show_log_problem(problem)

    def _warn(self, text: str) -> None:
        """Log a sentence, also to the event log of every environment."""
        log.warning("%s", text)
        for environment in self.environments.values():
            environment.store.event("agent", text)

    def _states(self) -> list[EnvironmentState]:
        return [e.state for e in self.environments.values()]

    # Housekeeping

    async def _check_machine(self) -> None:
        """Complete the reserve; report that the disk is too full for it, or a wrong clock."""
        certificates_folder = self.settings.certificates
        problem = await asyncio.to_thread(certificates.find_problem, certificates_folder)
        with contextlib.suppress(OSError):
            if not await asyncio.to_thread(files.fill_reserve, self.settings.home):
                problem = (
                    f"The disk of {self.settings.home} is full: deployments fail. Free some space;"
                    " `lapwing rollback` and `lapwing down` still work."
                )
        for environment in self.environments.values():
            environment.store.show_certificate(self.public_certificate.problem(environment.state))
        if problem == self._machine_problem:
            return
        before, self._machine_problem = self._machine_problem, problem
        self._warn(problem or f"Solved: {before}")
        for environment in self.environments.values():
            environment.store.machine_problem = problem
            environment.store.update_status()

    async def _tick(self) -> None:
        idle_since: float | None = None
        for tick in itertools.count(1):
            await asyncio.sleep(TICK_INTERVAL_S)
            every = tick % QUIET_TICKS == 0
            if not self._keep_lock():
                return
            if observed.read(self.settings.agent) != self._record:
                self._write_record()
            for key, environment in list(self.environments.items()):
                environment.schedules.tick()
                await environment.maintenance.note_log_times()
                before = self._ticks.get(key)  # One that is slow delays no other environment.
                if (before is None or before.done()) and (
                    environment.maintenance.needs_tick or every
                ):
                    self._ticks[key] = asyncio.create_task(_maintain(environment.tick))
            if every and (self._upkeep is None or self._upkeep.done()):
                self._upkeep = asyncio.create_task(self._tick_machine())
            self.puller.tick()
            self.shippers.tick({k: e.state.document for k, e in self.environments.items()})
            await _maintain(self.removed.tick)
            environments = self.environments.values()
            is_needed = self.settings.server or not self.puller.is_idle
            if is_needed or not all(e.idle and not e.state.has_containers for e in environments):
                idle_since = None
            elif idle_since is None:
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since >= IDLE_EXIT_S:
                log.info("No environment is running; the agent exits.")
                self.end()
                return

    async def _tick_machine(self) -> None:
        """Maintain what environments share; slow work delays no scheduled job."""
        for work in (
            self._check_machine,
            self.public_certificate.tick,
            self.envoy.repair,
            self.publisher.repair_certificates,
            self._stop_abandoned,
            self._clean_up,
        ):
            await _maintain(work)

    async def _stop_abandoned(self) -> None:
        if self._context is not None:
            await one_off.stop_abandoned(self.settings, self._context.runtimes.containers)

    async def _end(self, key: Key) -> None:
        """End the tasks of a stopped environment, which is then unknown."""
        environment = self.environments.pop(key)
        self.meter.forget(key)
        tasks = [self._tasks.pop(key), *filter(None, [self._ticks.pop(key, None)])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        environment.unwatch_all()
        await asyncio.to_thread(self.shippers.end, key, LOGS_STOP_S)

    def _keep_lock(self) -> bool:
        """Take the lock again if its file was removed; return whether this is still the agent.

        Another agent that was faster usually fails, because the port is claimed. Else this one
        ends.
        """
        with contextlib.suppress(OSError):
            found = observed.keep(self.settings.agent, self._lock)
            if found is not None:
                self._lock, self._lost_ticks = found, 0
                return True
        self._lost_ticks += 1
        if self._lost_ticks >= LOST_TICKS:
            log.error("%s was removed, and another agent runs.", self.settings.agent / "lock")
            self.end()
        return self._lost_ticks < LOST_TICKS

    async def _clean_up(self) -> None:
        """Remove unneeded releases, pack the repository and renew the certificate.

        This runs after each deployment and once a day. Rollouts, which it would slow down, delay
        it until it is due; paused ones do not.
        """
        states = self._states()
        deployed = {(s.stack, s.environment): s.commit for s in states}
        busy = deployed == self._cleaned_for or any(s.is_deploying for s in states)
        if busy and time.monotonic() < self._cleaned + HOUSEKEEPING_INTERVAL_S:
            return
        self._cleaned_for, self._cleaned = deployed, time.monotonic()
        await self.envoy.certificates.renew()
        running = housekeeping.releases_in_use(states)
        keep = await asyncio.to_thread(
            housekeeping.clean_up, self.settings, self.repository, running
        )
        if self._context is not None:
            await self._context.runtimes.containers.remove_images(keep)

    # The agent's record

    def _write_record(self) -> None:
        with contextlib.suppress(OSError):
            observed.write(self.settings.agent, self._record)

    def fail(self, error: LapwingError) -> None:
        """Record why this agent cannot run."""
        self._record.problem, self._record.hint = error.message, error.hint
        self._record.code, self._record.ready = error.code, False
        self._write_record()


async def _maintain(work: Callable[[], Awaitable[None]]) -> None:
    """Do periodic work. Errors are logged, and the next tick repeats the work."""
    try:
        await work()
    except (LapwingError, OSError) as error:
        log.warning("Maintenance failed: %s", error)
    except Exception:
        log.exception("Maintenance failed; retrying.")


def main() -> int:
    """Run the agent in the foreground; returns the exit status: 0, or 1 if it could not run."""
    settings = read()
    home.prepare(settings.home)
    for folder in (settings.agent, settings.logs):
        folder.mkdir(exist_ok=True)
    lock = observed.hold(settings.agent)
    if lock is None:
        print(f"An agent is already running for {settings.home}.", file=sys.stderr)
        return 0
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if stat.S_ISFIFO(os.fstat(sys.stderr.fileno()).st_mode):
        os.set_blocking(sys.stderr.fileno(), False)  # A disk that hangs costs lines only.
    _preload()
    return asyncio.run(_main(settings, lock))


def _preload() -> None:
    """Import the modules that take long to import before the event loop runs."""
    import cryptography.x509  # noqa: F401
    import httpx  # noqa: F401

    # httpx imports these for its first request.
    for module in ("anyio._backends._asyncio", "httpcore._backends.anyio"):
        with contextlib.suppress(ImportError):
            importlib.import_module(module)

    with contextlib.suppress(ImportError, RuntimeError):  # macOS has no inotify.
        import asyncinotify  # noqa: F401


async def _main(settings: Settings, lock: int) -> int:
    agent = Agent(settings, lock)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, agent.end)
    try:
        async with watching.log_kept(os.getpid(), settings.agent / "agent.log"):
            await agent.run()
    except LapwingError as error:
        log.error("%s %s\n%s", error, error.hint or "", error.detail or "")
        agent.fail(error)
        return 1
    except Exception as error:
        log.exception("The agent failed.")
        agent.fail(
            LapwingError(
                f"The agent failed: {type(error).__name__}: {error}",
                hint=f"See {settings.agent / 'agent.log'}.",
            )
        )
        return 1
    return 0


def spawn(settings: Settings, log_file: Path) -> processes.Identity:
    """Start the agent in its own session. Raises ReplicaError if it cannot be started."""
    environ = {name: settings.environ[name] for name in INHERITED if name in settings.environ}
    environ |= settings.listener_environ()
    arguments = (sys.executable, "-m", "lapwing.agent.daemon")
    return processes.spawn(processes.Launch(arguments, environ, settings.home), log_file)


if __name__ == "__main__":
    sys.exit(main())
