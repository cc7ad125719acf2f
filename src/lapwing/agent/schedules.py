"""The scheduled jobs of one environment: when each is due, and its run in progress.

Schedules are read from the active document: a job runs the release of the last deployment that
succeeded, also while another one is in progress or paused. A job has one run at a time. The next
time is saved before a run starts, so no run starts twice, whenever the agent is killed.

A run is a process, or a container, that outlives the agent. A restarted agent adopts it. A shell
around the command of a process writes its exit status to a file, because only the parent of a
process can ask for it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from pathlib import Path

from msgspec import UNSET

from lapwing.agent import logs, processes
from lapwing.agent.context import Context
from lapwing.agent.launch import JOB_LABEL, Launcher
from lapwing.agent.processes import Identity, Launch
from lapwing.agent.state import BACKUP, JobRun, ScheduledJob, boot_id
from lapwing.agent.store import Store
from lapwing.errors import LapwingError
from lapwing.observed.status import RunOutcome, RunStatus
from lapwing.plan.model import JOB_TIMEOUT_S, Document, Service
from lapwing.stack import cron

log = logging.getLogger(__name__)

BACKUP_TIMEOUT_S = 6 * 3600.0
CLOCK_TOLERANCE_S = 3 * 3600.0
"""A next time that is this much later than it should be was computed with a wrong clock."""
NEVER = 0.0
"""The next time of a job while its environment is stopped."""
_WITH_STATUS = '"$@"; status=$?; echo "$status" > "$0"; exit "$status"'
"""Shell script that runs a command and writes its exit status to the file $0."""


class Schedules:
    """Starts the scheduled jobs of one environment when they are due. `tick` never blocks."""

    def __init__(self, context: Context, store: Store, launcher: Launcher) -> None:
        self.state = store.state
        self._context = context
        self._store = store
        self._launcher = launcher
        self._folder = store.folder / "jobs"
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._adopted = False
        self._seen = 0.0

    def adopt(self) -> None:
        """Watch the runs that outlived the agent; record those that did not as interrupted."""
        for name, run in self.state.runs.items():
            identity = _identity(run)
            known = run.boot == boot_id() and run.pid is not None
            if known and (processes.alive(identity) or self._exit_file(name).exists()):
                self._begin(name, run)
            elif known and run.spec.container is not None:
                self._begin(name, run)  # The engine reports how it ended.
            else:
                text = "it ended while no agent was running"
                self._record(name, run.due, "interrupted", text, run.began)

        self._adopted = True

    def unwatch_all(self) -> None:
        """Stop watching, and leave every run in progress."""
        self._adopted = False
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()

    def tick(self) -> None:
        """Start what is due, and stop the runs of jobs that are not in the document any more."""
        if not self._adopted:
            return
        now, document = time.time(), self.state.document
        is_clock_changed = not 0 <= now - self._seen < CLOCK_TOLERANCE_S
        self._seen = now
        wanted = _scheduled(document) if document is not None else {}
        for name in self.state.schedules.keys() - wanted.keys():
            self._remove(name)
        for name, spec in wanted.items():
            self._check(name, spec, now, is_clock_changed=is_clock_changed)

    def _check(self, name: str, spec: Service, now: float, *, is_clock_changed: bool) -> None:
        """Start the job if it is due, or record why not."""
        assert spec.schedule is not UNSET
        schedule, job = spec.schedule, self.state.schedules.get(name)
        is_changed = job is None or job.schedule != schedule or job.next == NEVER
        if job is None:
            job = self.state.schedules[name] = ScheduledJob(schedule=schedule, next=now)
        if is_changed or is_clock_changed:
            following = cron.next_time(schedule.cron, schedule.timezone, now)
            if is_changed or job.next > following + CLOCK_TOLERANCE_S:
                job.schedule, job.next = schedule, following
                self._store.save_soon()
        if now < job.next:
            return
        due = cron.last_time(schedule.cron, schedule.timezone, now)
        job.next = cron.next_time(schedule.cron, schedule.timezone, now)
        if job.run is not None:
            text = "the run before it was still in progress"
            self._record(name, due, "skipped", text)
        elif now - due > schedule.start_within:
            self._record(name, due, "missed", "it could not start in time")
        else:
            timeout = spec.timeout or JOB_TIMEOUT_S
            job.run = JobRun(
                spec=spec,
                due=due,
                began=now,
                deadline=time.monotonic() + timeout,
                boot=boot_id(),
                log=time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now)),
            )
            self._begin(name, job.run)

    def _begin(self, name: str, run: JobRun) -> None:
        self._tasks[name] = asyncio.create_task(self._carry_out(name, run))

    async def _carry_out(self, name: str, run: JobRun) -> None:
        """Start a run, or adopt it, and record how it ended. A cancelled call leaves it running."""
        try:
            if run.pid is None:
                await self._store.save()  # From here on it does not start a second time.
                await self._start(name, run)
            failure = await self._ended(name, run)
        except (LapwingError, OSError) as error:
            failure = f"{error}"
        except Exception as error:
            log.exception("Job %s failed", name)
            failure = f"{type(error).__name__}: {error}"
        self._exit_file(name).unlink(missing_ok=True)
        self._record(name, run.due, "failed" if failure else "succeeded", failure, run.began)
        self._tasks.pop(name, None)

    async def _start(self, name: str, run: JobRun) -> None:
        file = self._launcher.job_log(name, run.log)
        await asyncio.to_thread(logs.remove_old, file.parent)
        owner = self._launcher.owner(name, JOB_LABEL)
        if name == BACKUP:
            launch = self._launcher.backup(owner)
        else:
            launch = await self._launcher.launch(run.spec, owner, None)
        if launch.container is None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._exit_file(name).unlink(missing_ok=True)
            launch = _with_exit_status(launch, self._exit_file(name))
        identity = await self._context.runtimes.of(run.spec).start(launch, file)
        run.pid, run.started = identity.pid, identity.started
        await self._store.save()

    async def _ended(self, name: str, run: JobRun) -> str | None:
        """Wait for the end of a run, and stop it at its deadline; return how it failed."""
        runtime, identity = self._context.runtimes.of(run.spec), _identity(run)
        mark = self._mark(name)
        file = self._launcher.job_log(name, run.log)
        try:
            async with asyncio.timeout(max(0.0, run.deadline - time.monotonic())):
                how = await runtime.watch(identity, mark, file)
        except TimeoutError:
            await runtime.stop(identity, mark, run.spec.rollout.stop_grace)
            return f"it did not exit within {run.spec.timeout or JOB_TIMEOUT_S:g} s"
        await runtime.kill(identity, mark)
        if run.spec.container is None:
            how = _how_it_ended(self._exit_file(name)) or how
        return None if how == processes.SUCCESS else how

    def _remove(self, name: str) -> None:
        """Remove a job from the state; its run in progress is stopped first.

        Of a stopped environment, the last runs are kept.
        """
        job = self.state.schedules[name]
        run = job.run
        if run is None:
            if not self._is_stopped:
                del self.state.schedules[name]
            elif job.next == NEVER:
                return
            job.next = NEVER
            self._store.save_soon()
        elif not (task := self._tasks.get(name)) or task.get_name() != "stop":
            if task is not None:
                task.cancel()
            self._tasks[name] = asyncio.create_task(self._stop(name, run, task), name="stop")

    async def _stop(self, name: str, run: JobRun, task: asyncio.Task[None] | None) -> None:
        if task is not None:
            await asyncio.wait({task})
        grace, runtime = run.spec.rollout.stop_grace, self._context.runtimes.of(run.spec)
        await runtime.stop(_identity(run), self._mark(name), grace)
        self._exit_file(name).unlink(missing_ok=True)
        self._record(name, run.due, "interrupted", "it was stopped", run.began)
        self._tasks.pop(name, None)

    def _record(
        self,
        name: str,
        due: float,
        outcome: RunOutcome,
        reason: str | None,
        began: float | None = None,
    ) -> None:
        """Record how a run ended; one that was skipped or missed leaves the run in progress."""
        job = self.state.schedules.get(name)
        if job is None:
            return
        ended = time.time()
        job.last = RunStatus(due=due, outcome=outcome, began=began, ended=ended, reason=reason)
        if began is not None:
            job.run = None
        if reason is not None:
            at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(due))
            self._store.event("job", f"Run of {name} at {at}: {outcome}, {reason}.")
        self._store.save_soon()

    @property
    def _is_stopped(self) -> bool:
        return self.state.document is not None and not self.state.document.services

    def _mark(self, name: str) -> str:
        return self._launcher.mark(self._launcher.owner(name, JOB_LABEL))

    def _exit_file(self, name: str) -> Path:
        return self._folder / f"{name}.status"


def _scheduled(document: Document) -> dict[str, Service]:
    """Return the scheduled jobs of a document, including the one that makes backups."""
    found = {n: s for n, s in document.services.items() if s.schedule is not UNSET}
    if document.backup is not UNSET and document.services:
        found[BACKUP] = Service(
            kind="job",
            release="-",
            revision=document.deployment.revision,
            schedule=document.backup.schedule,
            timeout=BACKUP_TIMEOUT_S,
        )
    return found


def _identity(run: JobRun) -> Identity:
    return Identity(run.pid or 0, run.started)


def _with_exit_status(launch: Launch, file: Path) -> Launch:
    arguments = ("/bin/sh", "-c", _WITH_STATUS, str(file), *launch.arguments)
    return dataclasses.replace(launch, arguments=arguments)


def _how_it_ended(file: Path) -> str | None:
    """Return how the command of a process ended; None if its shell was killed."""
    try:
        return f"exited with status {int(file.read_text())}"
    except (OSError, ValueError):
        return None
