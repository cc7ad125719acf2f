"""`lapwing logs`: the output of replicas, with `-f` as it is written.

On a machine it is read from files, on a cluster through the Kubernetes API.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lapwing.cli import complete
from lapwing.cli.context import Context
from lapwing.cli.options import context_option, environment_option
from lapwing.errors import StateError, UsageError, check_name
from lapwing.system.sanitize import escape_controls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lapwing.kubernetes.applyset import Scope
    from lapwing.kubernetes.client import ApiClient
    from lapwing.kubernetes.logs import LogLine, LogSource
    from lapwing.observed.logs import Line
    from lapwing.targets.base import EnvironmentRef

POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Wanted:
    """The options of `lapwing logs`."""

    service: str | None
    lines: int
    follow: bool
    build: bool
    previous: bool
    mask: bool

    def clean(self, context: Context, text: str) -> str:
        """Return text of an application as it may be shown."""
        return context.printer.mask(text) if self.mask else escape_controls(text)


@click.command("logs")
@click.argument("service", required=False, shell_complete=complete.parts)
@environment_option
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    help="Lines to show per replica.",
)
@click.option("-f", "--follow", is_flag=True, help="Follow new lines until Ctrl-C.")
@click.option("--build", is_flag=True, help="Show the newest build log instead.")
@click.option(
    "--previous", is_flag=True, help="On a cluster: the output of containers before they crashed."
)
@click.option("--mask", is_flag=True, help="Show `***` instead of the values of secrets.")
@context_option
@click.pass_obj
def command(
    context: Context, /, service: str | None, environment: str, cluster: str | None, **options: Any
) -> None:
    """Show the output of replicas, merged by time: of all services, or of one.

    Each line begins with its time (UTC), service, replica and release. On a machine, times are
    accurate to one second. On a cluster, name a database or `edge` to see its log.
    """
    wanted = Wanted(service, **options)
    place = context.cluster(environment, cluster)
    if place is not None:
        if wanted.build:
            raise UsageError(f"{environment} is on a cluster: its images are built elsewhere.")
        with place.connect() as api:
            _of_cluster(context, api, place.scope, wanted)
        return
    if wanted.previous:
        raise UsageError(f"--previous is for clusters; {environment} is on a machine.")
    _of_machine(context, context.ref(environment), wanted)


def _of_machine(context: Context, ref: EnvironmentRef, wanted: Wanted) -> None:
    """Show the end of each log, merged by time, and then new lines, also of later deployments."""
    from lapwing.agent.state import BACKUP
    from lapwing.observed import logs

    kind = f"build/{ref.stack}" if wanted.build else f"run/{ref.stack}/{ref.environment}"
    folder = context.settings.logs / kind
    if wanted.service == BACKUP and not (folder / BACKUP).is_dir():
        raise StateError(
            f"No scheduled backup of {ref} has been made yet.",
            hint=f"`lapwing status -e {ref.environment}` shows when the next one is due, if the "
            "environment has a `backup` schedule.",
        )
    _check_service(context, wanted.service, {p.name for p in folder.glob("*/")}, ref)
    if wanted.build:
        built = list(folder.glob(f"{wanted.service or '*'}/*.log"))
        newest = max(built, key=lambda p: p.stat().st_mtime, default=None)
        if newest is None:
            raise _no_log(wanted.service or ref, ref.environment)
        lines = logs.LogReader(newest).tail(wanted.lines)
        return context.printer.data(wanted.clean(context, "\n".join(n.text for n in lines)))

    def find() -> list[Path]:
        labels = _generations(context.settings.environment(ref.stack, ref.environment))
        folders = sorted(folder.glob(wanted.service or "*"))
        return [log for each in folders for log in logs.shown(each, labels)]

    readers = {log: logs.LogReader(log) for log in find()}
    if not readers and not wanted.follow:
        if not any(folder.glob(f"{wanted.service or '*'}/*.log")):
            raise _no_log(wanted.service or ref, ref.environment)
        context.printer.say(
            f"{wanted.service or ref} has printed nothing. (A static service logs only errors.)"
        )
        return None
    lines = [n for r in readers.values() for n in r.tail(wanted.lines, follow=wanted.follow)]
    while True:
        _print(context, wanted, sorted(lines, key=lambda line: line.moment))
        if not wanted.follow:
            return None
        time.sleep(POLL_S)
        for log in find():
            readers.setdefault(log, logs.LogReader(log))
        lines = [n for r in readers.values() for n in r.new()]


def _generations(folder: Path) -> set[str]:
    """Return the labels of the generations that the agent has."""
    import msgspec

    from lapwing.agent import state

    try:
        found = state.load(folder)
    except msgspec.MsgspecError:
        found = None  # Damaged: the agent repairs it.
    return {g.label for g in found.generations} if found else set()


def _check_service(context: Context, service: str | None, seen: set[str], where: object) -> None:
    """Check that a service or resource is in the stack file or was `seen` in the environment."""
    if service is not None:
        file = context.stack_file
        known = dict.fromkeys([*file.names("services"), *file.names("resources"), *sorted(seen)])
        check_name("service", service, known, where)


def _no_log(what: object, environment: str) -> StateError:
    return StateError(
        f"There is no log of {what} yet.",
        hint=f"Run `lapwing status -e {environment}` to see what is running.",
    )


def _of_cluster(context: Context, api: ApiClient, scope: Scope, wanted: Wanted) -> None:
    """Show the end of each log, merged, and then new lines."""
    from lapwing.kubernetes import logs, pods

    def find() -> list[LogSource]:
        hidden = (pods.EDGE, *pods.RESOURCES)
        return logs.sources(
            p
            for p in pods.list_pods(api, scope)
            if (p.belongs_to(wanted.service) if wanted.service else p.component not in hidden)
        )

    found = find()
    if not found:
        _check_service(context, wanted.service, {pods.EDGE}, scope.namespace)
    if not found and not wanted.follow:
        raise _no_log(wanted.service or scope.namespace, scope.environment)
    report = context.printer.say
    follower = logs.LogFollower(api, find, report)
    for line in logs.recent(api, found, wanted.lines, previous=wanted.previous, report=report):
        _print(context, wanted, [line])
        follower.mark_printed(line)
    if not wanted.follow:
        return
    context.printer.out.flush()
    follower.begin(found, skip=wanted.lines == 0)
    try:
        for batch in follower.batches():
            _print(context, wanted, batch)
    finally:
        follower.close()


def _print(context: Context, wanted: Wanted, lines: Sequence[Line | LogLine]) -> None:
    """Print lines with the time, the service, the replica and the release of each."""
    if lines:
        text = "\n".join(f"{_stamp(n.moment)} {n.source} | {n.text}" for n in lines)
        context.printer.data(wanted.clean(context, text))
        if wanted.follow:
            context.printer.out.flush()


def _stamp(moment: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment // 10**9))
