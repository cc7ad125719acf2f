"""Switching a backend under load: Lapwing beside the proxies that are installed.

    python -m benchmarks switching [--switches 10] [--only NAME ...] [--output json]

Each proxy listens with TLS on a port of 127.0.0.1, in front of two versions of one small service.
The load client of `lapwing.load` sends requests on new and kept connections, with bodies, and on
two WebSockets, while the traffic is switched to the other version, N times. Reported are:

- requests sent and failed;
- races: a kept connection that was closed as the client sent a request (a GET may be repeated);
- WebSockets that were closed before the client closed them;
- `window`: the time in which both versions answered;
- `delay`: from the switch command to the first request that the new version answered;
- the time of the whole command.

Then wrk measures requests per second of a path that is never switched, one proxy after the other.
A peer that is not installed is named and left out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import wrk
from benchmarks.proxies.backends import backends, certificate
from benchmarks.proxies.caddy import CADDY, CADDY_PATIENT
from benchmarks.proxies.contender import Contender, Switched
from benchmarks.proxies.haproxy import HAPROXY
from benchmarks.proxies.kamal import KAMAL
from benchmarks.proxies.lapwing import lapwing
from benchmarks.proxies.nginx import NGINX
from benchmarks.proxies.recipe import (
    BenchmarkError,
    Setting,
    answers,
    find,
    free_port,
    running,
)
from benchmarks.proxies.traefik import TRAEFIK
from lapwing.load.client import Plan
from lapwing.load.client import running as load
from lapwing.load.figures import Switch, switch
from lapwing.load.record import Ledger
from lapwing.load.worker import Traffic

RECIPES = (HAPROXY, NGINX, CADDY, CADDY_PATIENT, TRAEFIK, KAMAL)
TRAFFIC = (
    Traffic(kind="new", path="/version", workers=2, interval=0.04),
    Traffic(kind="keep-alive", path="/version", workers=4, interval=0.02),
    Traffic(kind="body", path="/echo", body='{"number": "{unique}"}', interval=0.05),
    Traffic(kind="websocket", path="/ws", seconds=3600, interval=0.1, workers=2),
)


@dataclass(frozen=True)
class Figures:
    """The switches of one proxy. Times in ms, each as median and maximum; None where no request
    shows it."""

    switches: int
    seen: int
    sent: int
    failed: int
    failures: list[str]
    raced: int
    cut: int
    window: tuple[float, float] | None
    delay: tuple[float, float] | None
    longest: tuple[float, float] | None
    spacing: float | None
    commands: dict[str, float]


def measure(contender: Contender, count: int, pause: float) -> Figures:
    """Switch a proxy under load, each time `pause` seconds after the last command."""
    done: list[Switched] = []
    with load(Plan(contender.target, TRAFFIC)) as client:
        client.wait_for_answers({t.kind for t in TRAFFIC} - {"websocket"})
        time.sleep(pause)
        for _ in range(count):
            done.append(contender.switch())
            time.sleep(pause)
        ledger = client.stop()
    return figures(ledger, done)


def figures(ledger: Ledger, done: Sequence[Switched]) -> Figures:
    """The sums over the record of the load client. Pure."""
    ends = [s.called for s in done[1:]] + [float("inf")]
    seen = [
        switch(_ended_before(ledger, end), s.old, s.new, s.began, end)
        for s, end in zip(done, ends, strict=True)
    ]
    streams = [e for e in ledger.exchanges if e.kind == "websocket"]
    failures = [e for e in ledger.failures if e.kind != "websocket"]
    verbs = sorted({s.verb for s in done})
    spacings = [s.spacing for s in seen if s.spacing is not None]
    return Figures(
        switches=len(done),
        seen=sum(s.first_new is not None for s in seen),
        sent=ledger.sent - len(streams),
        failed=len(failures),
        failures=sorted({f"{e.kind}: {e.failure}" for e in failures}),
        raced=len(ledger.races),
        cut=sum(e.failure is not None or e.ended_by == "server" for e in streams),
        window=_spread(seen, "window"),
        delay=_spread(seen, "delay"),
        longest=_spread(seen, "longest"),
        spacing=statistics.median(spacings) * 1000 if spacings else None,
        commands={v: statistics.median(s.took for s in done if s.verb == v) * 1000 for v in verbs},
    )


def _ended_before(ledger: Ledger, end: float) -> Ledger:
    """What the next switch cannot have touched. A request that was on its way when that began may
    be answered by the version that it switches to, which is the old one of this switch."""
    return Ledger(e for e in ledger.exchanges if e.ended < end)


def _spread(seen: Sequence[Switch], key: str) -> tuple[float, float] | None:
    """The median and the maximum of a figure, in ms."""
    values = [v * 1000 for s in seen if (v := getattr(s, key)) is not None]
    return (statistics.median(values), max(values)) if values else None


@contextlib.contextmanager
def contenders(folder: Path, only: Sequence[str]) -> Iterator[list[Contender]]:
    """Start every wanted proxy that is installed, and name those that are not."""
    wanted = {name.lower() for name in only}
    with contextlib.ExitStack() as stack:
        ports = stack.enter_context(backends(folder))
        pair = certificate(folder)
        ready = []
        if not wanted or "lapwing" in wanted:
            ready.append(stack.enter_context(lapwing(folder / "lapwing")))
        for number, recipe in enumerate(RECIPES):
            if wanted and recipe.name.lower() not in wanted:
                continue
            program = find(recipe.program)
            if program is None:
                print(f"{recipe.name} is not on this machine: left out.", file=sys.stderr)
                continue
            setting = Setting(folder / f"p{number}", free_port(), *pair, ports)
            ready.append(stack.enter_context(running(recipe, program, setting)))
        for contender in ready:
            _wait(contender)
        yield ready


def _wait(contender: Contender) -> None:
    """Wait until the proxy answers. Raises BenchmarkError if it does not within 60 s."""
    until = time.monotonic() + 60
    while not answers(contender, "/version"):
        if time.monotonic() > until:
            raise BenchmarkError(f"{contender.name} does not answer.")
        time.sleep(0.05)


def measure_all(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Everything, as the JSON that is printed."""
    found: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "load_before": round(os.getloadavg()[0], 1),
        "contenders": {},
    }
    with contenders(folder, given.only) as ready:
        for contender in ready:
            print(f"{contender.name}: {given.switches} switches ...", file=sys.stderr)
            got = measure(contender, given.switches, given.pause)
            found["contenders"][contender.name] = {"about": contender.about, **asdict(got)}
        program = shutil.which("wrk")
        if program is None:
            print("wrk is not on the PATH: no requests per second.", file=sys.stderr)
        elif given.rounds:
            print(f"wrk: {given.rounds} rounds of {given.seconds} s each ...", file=sys.stderr)
            path = "/fast" if all(answers(c, "/fast") for c in ready) else "/version"
            found["path"] = path
            for name, runs in wrk.rounds(program, ready, path, given.rounds, given.seconds).items():
                found["contenders"][name]["wrk"] = asdict(wrk.median(runs))
                found["contenders"][name]["runs"] = [asdict(r) for r in runs]
        for contender in ready:
            found["contenders"][contender.name]["memory"] = round(contender.memory(), 1)
    found["load_after"] = round(os.getloadavg()[0], 1)
    return found


def table(found: dict[str, Any]) -> str:
    """The figures as two tables of plain text, the fastest of each being 1.00."""
    rows = found["contenders"]
    best = max((r["wrk"]["rate"] for r in rows.values() if "wrk" in r), default=None)
    switching = [
        ["", "sent", "failed", "raced", "ws cut", "seen", "window ms", "delay ms",
         "longest ms", "command ms"]
    ]  # fmt: skip
    steady = [["", "requests/s", "of fastest", "p99 ms", "bad", "MiB"]]
    for name, r in rows.items():
        commands = ", ".join(f"{verb} {took:.0f}" for verb, took in r["commands"].items())
        switching.append(
            [name, *(str(r[key]) for key in ("sent", "failed", "raced", "cut"))]
            + [f"{r['seen']}/{r['switches']}"]
            + [_pair(r[key]) for key in ("window", "delay", "longest")]
            + [commands]
        )
        w = r.get("wrk")
        speed = ["-"] * 4
        if w and best:
            speed = [
                f"{w['rate']:.0f}",
                f"{w['rate'] / best:.2f}",
                f"{w['p99']:.1f}",
                str(w["bad"]),
            ]
        steady.append([name, *speed, f"{r['memory']:.0f}"])
    about = [f"{name}: {r['about']}" for name, r in rows.items()]
    why = [f"{name} failed: {what}" for name, r in rows.items() for what in r["failures"]]
    head = (
        f"{found['date']}, {found['machine']}; load average {found['load_before']} before, "
        f"{found['load_after']} after. Times: median (max)."
    )
    parts = [head, "\n".join(about), _columns(switching), "\n".join(why), _columns(steady)]
    return "\n\n".join(part for part in parts if part)


def _pair(value: tuple[float, float] | None) -> str:
    return "-" if value is None else f"{value[0]:.1f} ({value[1]:.1f})"


def _columns(rows: list[list[str]]) -> str:
    """Rows with each column as wide as its widest cell."""
    wide = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, wide, strict=True))
        )
        for row in rows
    )


def main() -> None:
    """Measure and print. Ends with status 1 if a program does not do what it has to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--switches", type=int, default=10)
    parser.add_argument("--pause", type=float, default=2.5, help="seconds between switches")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of wrk; 0 for none")
    parser.add_argument("--seconds", type=int, default=3, help="length of a run of wrk")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="only these")
    parser.add_argument("--output", choices=["text", "json"], default="text")
    given = parser.parse_args()
    if given.switches < 1:
        parser.error("--switches has to be 1 or more")
    try:
        with tempfile.TemporaryDirectory(prefix="switching-") as folder:
            found = measure_all(given, Path(folder))
    except BenchmarkError as error:
        sys.exit(str(error))
    print(json.dumps(found, indent=2) if given.output == "json" else table(found))


if __name__ == "__main__":
    main()
