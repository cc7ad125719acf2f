"""`lapwing logs`: what replicas print, from their files, with `-f` as it comes."""

from __future__ import annotations

import time
from pathlib import Path

import click

from lapwing.acts.change import Where
from lapwing.cli import target
from lapwing.cli.context import Context, complete_services, environment_option
from lapwing.errors import UsageError

RECENT = 4
"""Logs shown of each service: the newest that have something in them."""


@click.command("logs")
@click.argument("service", required=False, shell_complete=complete_services)
@environment_option
@click.option("-n", "--lines", default=50, show_default=True, help="Lines of each replica.")
@click.option("-f", "--follow", is_flag=True, help="Go on as lines come; Ctrl-C ends it.")
@click.option("--build", is_flag=True, help="Show the newest build log instead.")
@click.pass_obj
def command(
    context: Context, service: str | None, environment: str, lines: int, follow: bool, build: bool
) -> None:
    """Show what replicas print: all services, or one."""
    where = target.where(context, environment)
    files = _build_logs(context, where, service) if build else _logs(context, where, service)
    if not files:
        raise UsageError(
            f"There is no log of {service or where} yet.", hint="`lapwing status` tells what runs."
        )
    offsets: dict[Path, int] = {}
    for path in files:
        offsets[path] = _show_end(context, path, lines, several=len(files) > 1)
    while follow:
        time.sleep(0.2)
        for path in _logs(context, where, service):
            _show_new(context, path, offsets)


def _logs(context: Context, where: Where, service: str | None) -> list[Path]:
    folder = context.settings.logs / "run" / where.stack / where.environment
    newest: dict[Path, list[Path]] = {}
    for path in sorted(folder.glob(f"{service or '*'}/*.log"), key=lambda p: p.stat().st_mtime):
        if path.stat().st_size:
            newest.setdefault(path.parent, []).append(path)
    return [p for paths in newest.values() for p in paths[-RECENT:]]


def _build_logs(context: Context, where: Where, service: str | None) -> list[Path]:
    folder = context.settings.logs / "build" / where.stack
    found = sorted(folder.glob(f"{service or '*'}/*.log"), key=lambda p: p.stat().st_mtime)
    return found[-1:]


def _show_end(context: Context, path: Path, lines: int, *, several: bool) -> int:
    from lapwing.runtime.logs import tail

    if several:
        context.printer.say(f"==> {path.parent.name} {path.stem}", style="bold")
    text = tail(path, lines)
    if text:
        context.printer.data(text)
    return path.stat().st_size


def _show_new(context: Context, path: Path, offsets: dict[Path, int]) -> None:
    size = path.stat().st_size
    begin = offsets.get(path, 0)
    if size < begin:
        begin = 0  # It was rotated.
    if size > begin:
        with path.open("rb") as file:
            file.seek(begin)
            text = file.read(size - begin).decode(errors="replace")
        for line in text.splitlines():
            context.printer.data(f"{path.parent.name} {path.stem} | {line}")
    offsets[path] = size
