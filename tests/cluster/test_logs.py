"""`lapwing logs` on a real API server: merged, followed, and what a container said before."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lapwing.runtime.cluster import apply, wait
from lapwing.runtime.cluster.api import Api
from lapwing.runtime.cluster.apply import Scope
from lapwing.runtime.cluster.reference import Reference
from lapwing.runtime.cluster.wait import Limits
from tests.cluster import objects
from tests.cluster.control_plane import Cluster, wait_until
from tests.cluster.simulated import Printed, prints
from tests.installation import LAPWING

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


class Stack:
    """A stack in the cluster, and the command in its folder."""

    def __init__(self, api: Api, cluster: Cluster, scope: Scope, folder: Path) -> None:
        self.api, self.cluster, self.folder = api, cluster, folder
        self.scope = Scope(scope.stack, "staging", f"{scope.stack}-staging")
        (folder / "lapwing.yaml").write_text(
            f"stack: {scope.stack}\n"
            "services: {api: {image: 'shop/api:v1', route: /}}\n"
            "environments: {staging: {target: kubernetes, domain: shop.example}}\n"
        )

    def put(self, *things: dict[str, Any], ready: bool = True) -> None:
        def until(references: Sequence[Reference]) -> None:
            if ready:
                wait.until_ready(self.api, references, limits=Limits(180.0, 2.0))

        everything = [objects.namespace(self.scope), *things]
        apply.run(self.api, self.scope, everything, commit="c1", wait=until)

    def pods(self, name: str = "api") -> list[dict[str, Any]]:
        label = f"app.kubernetes.io/name={name}"
        return [dict(p) for p in self.api.list("v1", "Pod", self.scope.namespace, label)]

    def command(self, *words: str) -> list[str]:
        return [str(LAPWING), "-C", str(self.folder), *words, "-e", "staging"]

    @property
    def environ(self) -> dict[str, str]:
        return {
            "PATH": "/usr/bin:/bin",
            "LAPWING_HOME": str(self.folder / "home"),
            "KUBECONFIG": str(self.cluster.kubeconfig),
        }

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words), env=self.environ, capture_output=True, text=True, check=False
        )


@pytest.fixture
def stack(api: Api, cluster: Cluster, scope: Scope, tmp_path: Path) -> Stack:
    return Stack(api, cluster, scope, tmp_path)


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
    assert lines[1].startswith(f"api blue-1.{suffix} | ")
    nobody = stack.call("logs", "nobody")
    assert nobody.returncode == 2
    assert "There is no log of nobody yet." in nobody.stderr


def test_a_container_that_crashed_shows_what_it_said_before(stack: Stack, tmp_path: Path) -> None:
    stack.put(objects.workload(stack.scope, "api", "shop/api:crash", replicas=1), ready=False)
    wait_until(lambda: bool(stack.pods() and stack.pods()[0].get("status", {}).get("podIP")), "pod")
    now, before = Printed(tmp_path / "now.log"), Printed(tmp_path / "before.log")
    before.say("KeyError: 'SESSION_KEY'")
    prints(stack.cluster, stack.pods()[0], now.path, before.path)
    wait_until(lambda: stack.call("logs").stdout == "KeyError: 'SESSION_KEY'\n", "the last words")
    now.say("starting again")
    assert stack.call("logs").stdout == "starting again\n"
    assert stack.call("logs", "--previous").stdout == "KeyError: 'SESSION_KEY'\n"


def test_following_tells_each_line_once_and_takes_in_new_pods(
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
    assert line.startswith("api blue-1.")
    first.say("still here")
    following.until("| still here")
    following.process.send_signal(signal.SIGINT)
    assert following.process.wait(60) == 130
    assert following.process.stderr.read() == "Interrupted.\n"


def test_a_reader_that_goes_away_ends_it_quietly(stack: Stack, tmp_path: Path) -> None:
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


def test_a_log_is_never_whole_in_memory(stack: Stack, tmp_path: Path) -> None:
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
    count = size = 0
    for line in process.stdout:
        count += 1
        size += len(line)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    assert (status, count) == (0, 400_000)
    assert size > 80_000_000
    assert usage.ru_maxrss < 150_000  # KiB, with Python and what it has loaded.
    process.stdout.close()
