"""`lapwing logs` on a real API server: merged, followed, and what a container said before."""

from __future__ import annotations

import queue
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cluster import objects
from tests.cluster.control_plane import wait_until
from tests.cluster.simulated import Printed, prints
from tests.cluster.stacks import Stack

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


class Followed:
    """A `lapwing logs -f` that runs; `until` waits for a line."""

    def __init__(self, stack: Stack, *words: str) -> None:
        self.process = subprocess.Popen(
            stack.command("logs", "-f", *words),
            env=stack.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._came: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._came.put(line.rstrip("\n"))

    def until(self, text: str) -> str:
        """The first line from now on that ends so."""
        while True:
            line = self._came.get(timeout=120)
            self.lines.append(line)
            if line.endswith(text):
                return line

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def followed(stack: Stack) -> Iterator[Any]:
    running: list[Followed] = []

    def begin(*words: str) -> Followed:
        running.append(Followed(stack, *words))
        return running[-1]

    yield begin
    for each in running:
        each.close()


def test_logs_of_all_replicas_are_merged_by_time(stack: Stack, tmp_path: Path) -> None:
    stack.put(objects.workload(stack.scope, "api", "shop/api:v1"))
    one, two = stack.pods()
    for pod, odd in ((one, 1), (two, 0)):
        printed = Printed(tmp_path / f"{odd}.log")
        for number in range(200):
            if number % 2 == odd:
                printed.say(f"line {number}", at=f"2026-01-01T00:{number // 60:02}:00.{number:03}Z")
        prints(stack.cluster, pod, printed.path)
    done = stack.call("logs", "-n", "40")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(" | ")[2] for line in lines] == [f"line {n}" for n in range(120, 200)]
    suffix = one["metadata"]["name"].rpartition("-")[2]
    assert lines[1].startswith(f"2026-01-01T00:02:00Z api blue-1.{suffix} api:v1 | ")
    nobody = stack.call("logs", "nobody")
    assert nobody.returncode == 2
    assert "There is no service `nobody` in " in nobody.stderr
    assert "Known services: api, edge." in nobody.stderr


def test_restarted_container_shows_its_previous_log(stack: Stack, tmp_path: Path) -> None:
    stack.put(objects.workload(stack.scope, "api", "shop/api:crash", replicas=1), ready=False)
    wait_until(lambda: bool(stack.pods() and stack.pods()[0].get("status", {}).get("podIP")), "pod")
    now, before = Printed(tmp_path / "now.log"), Printed(tmp_path / "before.log")
    before.say("KeyError: 'SESSION_KEY'")
    prints(stack.cluster, stack.pods()[0], now.path, before.path)

    def printed(*words: str) -> list[str]:
        lines = stack.call("logs", *words).stdout.splitlines()
        return [line.partition(" | ")[2] for line in lines]

    wait_until(lambda: printed() == ["KeyError: 'SESSION_KEY'"], "the last words")
    now.say("starting again")
    assert printed() == ["starting again"]
    assert printed("--previous") == ["KeyError: 'SESSION_KEY'"]


def test_follow_prints_each_line_once_and_includes_new_pods(
    stack: Stack, tmp_path: Path, followed: Any
) -> None:
    workload = objects.workload(stack.scope, "api", "shop/api:v1", replicas=1)
    stack.put(workload)
    first = Printed(tmp_path / "first.log")
    first.say("old 1", "old 2", "old 3")
    prints(stack.cluster, stack.pods()[0], first.path)
    following = followed("-n", "2")
    following.until("| old 3")
    for number in range(500):
        first.say(f"new {number}")
    following.until("| new 499")
    told = [line.partition(" | ")[2] for line in following.lines]
    assert told == ["old 2", "old 3", *(f"new {n}" for n in range(500))]
    # A new pod has nothing to print until kwok knows its file: the next look finds it.
    workload["spec"]["replicas"] = 2
    second = Printed(tmp_path / "second.log")
    second.say("I am new")
    known = {p["metadata"]["uid"] for p in stack.pods()}
    stack.put(workload)
    [new] = [p for p in stack.pods() if p["metadata"]["uid"] not in known]
    prints(stack.cluster, new, second.path)
    line = following.until("| I am new")
    assert " api blue-1." in line
    first.say("still here")
    following.until("| still here")
    following.process.send_signal(signal.SIGINT)
    assert following.process.wait(60) == 130
    assert following.process.stderr.read() == "Interrupted.\n"


def test_closed_pipe_ends_the_command_silently(stack: Stack, tmp_path: Path) -> None:
    stack.put(objects.workload(stack.scope, "api", "shop/api:v1", replicas=1))
    printed = Printed(tmp_path / "one.log")
    printed.say("first")
    prints(stack.cluster, stack.pods()[0], printed.path)
    process = subprocess.Popen(
        stack.command("logs", "-f"), env=stack.environ, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().endswith(b"first\n")
    process.stdout.close()

    def ended() -> bool:
        printed.say("more")
        return process.poll() is not None

    wait_until(ended, "it ends")
    assert process.returncode == 1
    assert process.stderr.read() == b""
    process.stderr.close()


def test_large_log_is_streamed(stack: Stack, tmp_path: Path) -> None:
    stack.put(objects.workload(stack.scope, "api", "shop/api:v1", replicas=1))
    printed = Printed(tmp_path / "large.log")
    with printed.path.open("a") as file:
        for number in range(400_000):
            file.write(f"2026-01-01T00:00:00.{number:09}Z stdout F {'x' * 200} {number}\n")
    prints(stack.cluster, stack.pods()[0], printed.path)
    process = subprocess.Popen(
        stack.command("logs", "-n", "400000"), env=stack.environ, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    count = size = most = 0
    for line in process.stdout:
        count += 1
        size += len(line)
        if count % 10_000 == 0:
            most = max(most, psutil.Process(process.pid).memory_info().rss)
    process.stdout.close()
    assert (process.wait(), count) == (0, 400_000)
    assert size > 80_000_000
    assert most < 120 * 2**20  # With Python and what it has loaded.
