"""`lapwing logs`: the output of replicas, with `-f` as it is written.

On a machine it is read from files, on a cluster through the Kubernetes API.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lapwing.cli.context import Context
from lapwing.cli.options import complete_services, context_option, environment_option
from lapwing.errors import UsageError
from lapwing.system.sanitize import escape_controls

if TYPE_CHECKING:
    from lapwing.kubernetes.applyset import Scope
    from lapwing.kubernetes.client import ApiClient
    from lapwing.kubernetes.logs import LogLine, LogSource
    from lapwing.targets.base import EnvironmentRef

RECENT = 4
"""Logs that are shown of each service: the newest that are not empty."""


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
@click.argument("service", required=False, shell_complete=complete_services)
@environment_option
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    help="Number of lines of each replica.",
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
    """Show the output of replicas: of all services, or of one.

    On a cluster, a database or the edge is shown when it is named.
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
    service = wanted.service
    files = _build_logs(context, ref, service) if wanted.build else _logs(context, ref, service)
    if not files:
        raise UsageError(
            f"There is no log of {service or ref} yet.",
            hint="Run `lapwing status` to see what is running.",
        )
    offsets: dict[Path, int] = {}
    for path in files:
        offsets[path] = _show_end(context, path, wanted, several=len(files) > 1)
    while wanted.follow:
        context.printer.out.flush()
        time.sleep(0.2)
        for path in _logs(context, ref, service):
            _show_new(context, path, offsets, wanted)


def _logs(context: Context, ref: EnvironmentRef, service: str | None) -> list[Path]:
    folder = context.settings.logs / "run" / ref.stack / ref.environment
    newest: dict[Path, list[Path]] = {}
    for path in sorted(folder.glob(f"{service or '*'}/*.log"), key=lambda p: p.stat().st_mtime):
        if path.stat().st_size:
            newest.setdefault(path.parent, []).append(path)
    return [p for paths in newest.values() for p in paths[-RECENT:]]


def _build_logs(context: Context, ref: EnvironmentRef, service: str | None) -> list[Path]:
    folder = context.settings.logs / "build" / ref.stack
    found = sorted(folder.glob(f"{service or '*'}/*.log"), key=lambda p: p.stat().st_mtime)
    return found[-1:]


def _show_end(context: Context, path: Path, wanted: Wanted, *, several: bool) -> int:
    from lapwing.agent.logs import tail

    if several:
        context.printer.say(f"==> {path.parent.name} {path.stem}", style="bold")
    text = wanted.clean(context, tail(path, wanted.lines))
    if text:
        context.printer.data(text)
    return path.stat().st_size


def _show_new(context: Context, path: Path, offsets: dict[Path, int], wanted: Wanted) -> None:
    size = path.stat().st_size
    begin = offsets.get(path, 0)
    if size < begin:
        begin = 0  # It was rotated.
    if size > begin:
        with path.open("rb") as file:
            file.seek(begin)
            text = file.read(size - begin).decode(errors="replace")
        for line in wanted.clean(context, text).splitlines():
            context.printer.data(f"{path.parent.name} {path.stem} | {line}")
    offsets[path] = size


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
    if not found and not wanted.follow:
        raise UsageError(
            f"There is no log of {wanted.service or scope.namespace} yet.",
            hint=f"Run `lapwing status -e {scope.environment}` to see what is running.",
        )
    several = wanted.follow or len(found) > 1
    tell = context.printer.say
    follower = logs.LogFollower(api, find, tell)
    for line in logs.recent(api, found, wanted.lines, previous=wanted.previous, tell=tell):
        context.printer.data(wanted.clean(context, _format(line, several)))
        follower.mark_printed(line)
    if not wanted.follow:
        return
    context.printer.out.flush()
    follower.begin(found, skip=wanted.lines == 0)
    try:
        for batch in follower.batches():
            text = "\n".join(_format(line, several) for line in batch)
            context.printer.data(wanted.clean(context, text))
            context.printer.out.flush()
    finally:
        follower.close()


def _format(line: LogLine, several: bool) -> str:
    instance = line.source.instance
    return f"{instance.service} {instance.label} | {line.text}" if several else line.text
