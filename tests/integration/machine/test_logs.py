"""`lapwing logs` of a stack that runs: which replica of which release wrote a line, and when."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.deployed import PATIENCE, until
from tests.installation import LAPWING
from tests.integration.agent.otlp import Collector

from .conftest import Yard

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("logs")]
LINE = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ) (?P<service>\w+) "
    r"(?P<replica>(blue|green)-\d+\.\d+) (?P<release>\S+) \| (?P<text>.*)"
)


@contextmanager
def followed(yard: Yard) -> Iterator[queue.Queue[str]]:
    """The lines of `lapwing logs -f`."""
    process = subprocess.Popen(
        [LAPWING, "logs", "-f", "-n", "0"],
        cwd=yard.where.folder,
        env=yard.where.environ,
        stdout=subprocess.PIPE,
        text=True,
    )
    lines: queue.Queue[str] = queue.Queue()
    assert process.stdout is not None
    stdout = process.stdout
    threading.Thread(target=lambda: [lines.put(line) for line in stdout], daemon=True).start()
    try:
        yield lines
    finally:
        process.kill()
        process.wait()


def line_with(lines: queue.Queue[str], text: str) -> re.Match[str]:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        line = lines.get(timeout=PATIENCE).rstrip("\n")
        if text in line:
            found = LINE.fullmatch(line)
            assert found, line
            return found
    raise AssertionError(f"no line with {text}")


def test_lines_have_time_replica_and_release_in_order(yard: Yard) -> None:
    before = time.time()
    yard.get("/print?first-line")
    folder = yard.where.home / "logs" / "run" / yard.name / "local" / "app"
    [log] = until(
        lambda: [p for p in folder.glob("*.log") if "first-line" in p.read_text()], "the line"
    )
    note, times = f" {log.stat().st_size} ", log.with_name(f"{log.name}.times")
    until(lambda: times.exists() and note in times.read_text(), "the note of the agent")
    time.sleep(1.1)  # Times are printed in seconds.
    yard.get("/print?second-line")
    release = yard.service()["active"]["release"]
    done = yard.where.run("logs", "app")
    assert done.stderr == ""
    found = [LINE.fullmatch(line) for line in done.stdout.splitlines()]
    assert all(found), done.stdout
    lines = [m for m in found if m and m["text"] in ("first-line", "second-line")]
    assert [m["text"] for m in lines] == ["first-line", "second-line"]
    assert {m["release"] for m in lines} == {release}
    moments = [time.mktime(time.strptime(m["time"], "%Y-%m-%dT%H:%M:%SZ")) for m in lines]
    now = [time.mktime(time.gmtime(at)) for at in (before, time.time())]
    assert now[0] - 1 <= moments[0] < moments[1] <= now[1] + 1


def test_follow_continues_with_the_next_deployment(yard: Yard) -> None:
    with followed(yard) as lines:
        until(lambda: yard.get("/print?before") and not lines.empty(), "a line", pause=0.5)
        old = line_with(lines, "before")["release"]
        yard.good("next")
        yard.get("/print?after")
        found = line_with(lines, "after")
    assert found["release"] == yard.service()["active"]["release"] != old


def test_active_release_is_shown_beside_newer_ones_that_were_stopped(yard: Yard) -> None:
    yard.good("active")
    release = yard.service()["active"]["release"]
    for version in ("stopped-1", "stopped-2"):
        yard.write(version)
        yard.where.run("deploy", "--hold")
        said = yard.where.run("abort").stderr
        assert f"app keeps running {release}; app-" in said
        assert "is stopped" in said
    shown = {line.split()[3] for line in yard.where.run("logs").stdout.splitlines()}
    assert release in shown
    assert len(shown) > 1


def test_promotion_and_rollback_name_the_releases(yard: Yard) -> None:
    yard.good("one")
    one = yard.service()["active"]["release"]
    yard.write("two")
    yard.where.run("deploy", "--hold")
    said = yard.where.run("promote")
    two = yard.service()["active"]["release"]
    assert f"app now runs {two} instead of {one}." in said.stderr
    assert f"app now runs {one} instead of {two}." in yard.where.run("rollback").stderr
    yard.write("three")
    yard.where.run("deploy", "--hold")
    said = yard.where.run("rollback")
    assert f"app keeps running {one}; app-" in said.stderr
    assert "Commit: " in said.stderr


def test_logs_are_shipped_also_after_the_agent_was_killed(yard: Yard) -> None:
    """Of the service and Envoy, with a header from a secret; until a deployment
    without `logs`. A secret that is not set is refused."""
    collector, token = Collector(), "Bearer hunter2-of-the-collector"
    collector.start()
    to = (
        f"{{to: http://127.0.0.1:{collector.port}/v1/logs, headers: {{Authorization: OTLP_TOKEN}}}}"
    )
    try:
        yard.stack(more=f"environments: {{local: {{logs: {to}}}}}")
        refused = yard.where.call("deploy")
        assert refused.returncode == 1
        assert "Secret OTLP_TOKEN of `logs` is not set." in refused.stderr
        subprocess.run(
            [LAPWING, "secret", "set", "OTLP_TOKEN"],
            cwd=yard.where.folder,
            env=yard.where.environ,
            input=f"{token}\n",
            text=True,
            check=True,
        )
        yard.where.run("deploy")
        sent = [f"shipped-{n}" for n in range(30)]
        for number, line in enumerate(sent):
            yard.get(f"/print?{line}")
            if number == 15:
                record = json.loads((yard.where.home / "agent" / "agent.json").read_bytes())
                os.kill(record["pid"], signal.SIGKILL)
        yard.where.run("agent", "start")
        until(lambda: set(sent) <= set(collector.lines()), "all lines")
        until(lambda: any('"path":"/print"' in t for t in collector.lines()), "the access log")
        found = [(r, t["body"]["stringValue"]) for r, t in collector.records()]
        shipped = [(r, line) for r, line in found if line in sent]
        for replica in {r["service.instance.id"] for r, _ in shipped}:
            lines = [line for r, line in shipped if r["service.instance.id"] == replica]
            assert list(dict.fromkeys(lines)) == [line for line in sent if line in lines], (
                "in order"
            )
        assert {r["service.version"] for r, _ in shipped} == {yard.service()["active"]["release"]}
        assert collector.headers[-1]["authorization"] == token
        for folder in ("environments", "logs", "agent", "desired.git"):
            for file in (yard.where.home / folder).rglob("*"):
                assert not file.is_file() or b"hunter2" not in file.read_bytes(), file
        yard.stack()
        yard.where.run("deploy")
        until(lambda: not (yard.environment / "log-shipping.json").exists(), "the end")
        count = len(collector.lines())
        yard.get("/print?kept-here")
        time.sleep(2.5)
        assert len(collector.lines()) == count
    finally:
        collector.stop()
