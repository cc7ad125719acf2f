"""Logs that leave the machine: to a collector of OTLP, and to the journal of systemd."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lapwing.agent import log_destinations, log_positions, log_shipper, logs
from lapwing.agent.log_shipper import Shipper, Wanted
from lapwing.desired.secrets import SecretStore
from lapwing.plan.model import LogShipping
from lapwing.settings import Settings
from tests.deployed import until
from tests.integration.agent.otlp import Collector
from tests.needs import require

KEY = ("shop", "production")
TOKEN = "Bearer hunter2-of-the-collector"


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    made.start()
    yield made
    made.stop()


class Machine:
    """A LAPWING_HOME with one environment, whose logs are written by real log writers."""

    def __init__(self, home: Path, wanted: LogShipping) -> None:
        self.settings = Settings(home=home)
        self.settings.environment(*KEY).mkdir(parents=True)
        self.secrets = SecretStore(self.settings.secrets)
        self.wanted = Wanted(wanted, frozenset({"shop.example"}))
        self._shippers: list[Shipper] = []

    def log(self, name: str = "api/blue-1.0.log", release: str = "r1") -> Path:
        path = logs.folder(self.settings.logs, *KEY, "").joinpath(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(path.name + ".times").write_text(f"{release}\n")
        return path

    def write(self, log: Path, text: str) -> None:
        """Write as a process does, through a pipe."""
        descriptor, writer = logs.open_writer(log)
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            for line in text.splitlines(keepends=True):
                file.write(line.encode())
        assert writer.wait(60) == 0

    def ship(self) -> Shipper:
        made = Shipper(KEY, self.wanted, self.settings, self.secrets)
        self._shippers.append(made)
        return made

    def end(self) -> None:
        for shipper in self._shippers:
            shipper.stop()
            shipper.join(30)
            assert not shipper.alive


@pytest.fixture
def machine(tmp_path: Path, collector: Collector) -> Iterator[Machine]:
    to = f"http://127.0.0.1:{collector.port}/v1/logs"
    made = Machine(tmp_path, LogShipping(to=to, headers={"Authorization": "OTLP_TOKEN"}))
    made.secrets.set(*KEY, "OTLP_TOKEN", f"{TOKEN}\n")
    yield made
    made.end()


def wait(condition: Callable[[], object], what: str) -> None:
    until(condition, what)


def numbered(first: int, count: int, size: int = 20) -> list[str]:
    return [f"line {n:06} {'x' * size}" for n in range(first, first + count)]


def text(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def test_records_have_resource_time_and_severity(machine: Machine, collector: Collector) -> None:
    """Of services, databases and requests; those of other environments are not sent."""
    access = machine.settings.logs / "access-0.log"
    machine.settings.logs.mkdir()
    access.write_text(
        '{"cluster":"shop/production/api/blue-1","path":"/old","time":"2026-01-01T08:00:00.125Z"}\n'
    )
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=125_000)
    before = time.time_ns()
    machine.ship()
    wait((machine.settings.environment(*KEY) / log_shipper.STATE).exists, "the first positions")
    lines = ["plain ü", '{"level":"WARNING","msg":"a"}', '{"level":50,"msg":"b"}', "{broken"]
    machine.write(machine.log(), text(lines))
    machine.write(machine.log("db/server.log", "-"), "ready\n")
    requests = [
        {"cluster": "shop/production/api/blue-1", "path": "/a", "time": now.isoformat()},
        {"cluster": "shop/production2/api/blue-1", "path": "/b"},
        {"cluster": None, "host": "Shop.Example:443", "path": "/c"},
        {"cluster": None, "host": "other.example", "path": "/d"},
    ]
    with access.open("a") as file:
        file.writelines(json.dumps(request) + "\n" for request in requests)
    wait(lambda: len(collector.records()) == 7, "all records")
    found = collector.records()
    services = {line["body"]["stringValue"]: resource for resource, line in found}
    api = services["plain ü"]
    assert api.pop("host.name")
    assert api == {
        "service.name": "api",
        "service.namespace": "shop",
        "service.version": "r1",
        "service.instance.id": "blue-1.0",
        "deployment.environment.name": "production",
    }
    assert (services["ready"]["service.name"], "service.version" in services["ready"]) == (
        "db",
        False,
    )
    by_path = {json.loads(t)["path"]: r for t, r in services.items() if '"path"' in t}
    assert {path: r["service.name"] for path, r in by_path.items()} == {"/a": "api", "/c": "envoy"}
    records = [record for _, record in found]
    severities = [(r.get("severityNumber"), r.get("severityText")) for r in records]
    assert sorted(severities, key=str) == [(13, "WARNING"), (17, "50"), *[(None, None)] * 5]
    moments = {r["body"]["stringValue"]: int(r["timeUnixNano"]) for r in records}
    assert moments[json.dumps(requests[0])] == round(now.timestamp() * 1000) * 10**6
    assert before - 10**9 <= moments["plain ü"] <= time.time_ns()
    assert {h["authorization"] for h in collector.headers} == {TOKEN}
    assert {h["content-type"] for h in collector.headers} == {"application/json"}


def test_no_line_is_lost_or_doubled_in_an_outage_with_rotation_and_restart(
    machine: Machine, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The collector is down while a log is rotated and the agent ends and starts again."""
    monkeypatch.setattr(logs, "MAX_LOG_BYTES", 256 * 1024)
    log, sent = machine.log(), numbered(0, 500)
    machine.write(log, text(sent))
    first = machine.ship()
    wait(lambda: collector.lines() == sent, "the first lines")
    collector.stop()
    more = numbered(500, 6000, 40)
    machine.write(log, text(more[:2000]))
    wait(lambda: first._failing_since, "a failure")
    first.stop()
    first.join(30)
    machine.write(log, text(more[2000:]))
    assert log.with_name("blue-1.0.log.1").exists(), "rotated"
    machine.ship()
    time.sleep(1.5)
    collector.start()
    wait(lambda: len(collector.lines()) >= 6500, "all lines")
    assert collector.lines() == sent + more


def test_saved_position_before_a_crash_repeats_one_batch_only(
    machine: Machine, collector: Collector
) -> None:
    """As after kill -9 between the answer of the collector and the write of the state."""
    log, lines = machine.log(), numbered(0, 9000, 60)
    first = machine.ship()
    state = machine.settings.environment(*KEY) / log_shipper.STATE
    wait(state.exists, "the first positions")
    machine.write(log, text(lines[:100]))
    wait(lambda: collector.lines() == lines[:100], "the first lines")
    wait(lambda: b"api" in state.read_bytes(), "the position after them")
    before = state.read_bytes()
    machine.write(log, text(lines[100:200]))
    wait(lambda: len(collector.lines()) == 200, "the next lines")
    first.stop()
    first.join(30)
    state.write_bytes(before)
    machine.write(log, text(lines[200:]))
    machine.ship()
    wait(lambda: collector.lines()[-1] == lines[-1], "the last line")
    assert set(collector.lines()) == set(lines)
    assert len(collector.lines()) == len(lines) + 100


def test_retryable_status_is_repeated_after_the_stated_time(
    machine: Machine, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_shipper, "PROBLEM_AFTER_S", 0.0)
    collector.answers = [
        (429, {"Retry-After": "1"}, b"slow down"),
        (503, {"Retry-After": "Mon, 30 Nov 2020 08:00:00 GMT"}, b""),
        (401, {}, f"unknown token {TOKEN}".encode()),
    ]
    machine.write(machine.log(), "a\n")
    shipper = machine.ship()
    wait(lambda: "status 401" in (shipper.problem or ""), "the problem")
    wait(collector.lines, "the line")
    assert (collector.lines(), collector.refused) == (["a"], 3)
    wait(lambda: shipper.problem is None, "the end of the problem")


def test_refused_lines_do_not_block_the_next_ones(machine: Machine, collector: Collector) -> None:
    partial = json.dumps({"partialSuccess": {"rejectedLogRecords": "1", "errorMessage": "old"}})
    collector.answers = [(400, {}, b"bad"), (200, {}, partial.encode())]
    log = machine.log()
    machine.write(log, "a\nb\n")
    shipper = machine.ship()
    wait(lambda: "2 lines were refused" in (shipper.problem or ""), "the refused lines")
    machine.write(log, "c\n")
    wait(lambda: "3 lines were refused" in (shipper.problem or ""), "the rejected line")
    machine.write(log, "d\n")
    wait(lambda: "d" in collector.lines(), "the next line")


def test_lines_that_two_rotations_removed_are_reported(
    machine: Machine, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the file system gives the new file the inode of the removed one."""
    monkeypatch.setattr(logs, "MAX_LOG_BYTES", 64 * 1024)
    log = machine.log()
    machine.write(log, text(numbered(0, 100)))
    first = machine.ship()
    wait(lambda: len(collector.lines()) == 100, "the first lines")
    first.stop()
    first.join(30)
    lines = numbered(100, 9000)
    for begin in range(0, 9000, 1000):
        machine.write(log, text(lines[begin : begin + 1000]))
    shipper = machine.ship()
    wait(lambda: lines[-1] in collector.lines(), "the last line")
    wait(lambda: "Not all logs were shipped" in (shipper.problem or ""), "the report")
    found = collector.lines()[100:]
    assert found[1:] == lines[-len(found) + 1 :], "in order, without a gap or a repetition"


def test_removed_log_with_waiting_lines_is_reported(machine: Machine, collector: Collector) -> None:
    collector.answers = [(503, {"Retry-After": "1"}, b"")] * 3
    log = machine.log("job/job-1.log")
    machine.write(machine.log(), "a\n")
    shipper = machine.ship()
    wait(lambda: collector.refused, "a failure")
    machine.write(log, "b\n")
    wait(lambda: "run/shop/production/job/job-1.log" in shipper._behind, "the waiting line")
    log.unlink()
    wait(lambda: "Not all logs were shipped" in (shipper.problem or ""), "the report")


def test_secrets_of_headers_are_in_no_message(
    machine: Machine, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing or an unusable value is a problem; a new value is used without a restart."""
    monkeypatch.setattr(log_shipper, "PROBLEM_AFTER_S", 0.0)
    machine.secrets.set(*KEY, "OTLP_TOKEN", "hunter2\nX-Injected: 1")
    machine.write(machine.log(), "a\n")
    shipper = machine.ship()
    wait(lambda: "not valid in a header" in (shipper.problem or ""), "the unusable value")
    assert "hunter2" not in str(shipper.problem)
    assert "lapwing secret set OTLP_TOKEN -e production" in str(shipper.problem)
    machine.secrets.set(*KEY, "OTLP_TOKEN", TOKEN)
    wait(lambda: collector.lines() == ["a"], "the line")
    state = (machine.settings.environment(*KEY) / log_shipper.STATE).read_text()
    assert "hunter2" not in state


def test_long_and_unfinished_lines(
    machine: Machine, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long lines are sent in parts, the end of a file without a line feed after some seconds."""
    log = machine.log()
    machine.write(log, "x" * 300_000 + "\n\nlast\nprompt> ")
    machine.ship()
    wait(lambda: "last" in collector.lines(), "the complete lines")
    assert "".join(collector.lines()[:-1]) == "x" * 300_000
    assert {len(line) for line in collector.lines()[:-1]} == {65536, 300_000 % 65536}
    old = time.time() - 2 * log_positions.SETTLED_S
    os.utime(log, (old, old))
    wait(lambda: collector.lines()[-1] == "prompt> ", "the unfinished line")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Path]:
    """A folder with `run/journal/socket` and `log/journal` of a systemd-journald."""
    program = require("journald")
    folder = tmp_path / "journald"
    for name in ("run/journal", "log"):
        (folder / name).mkdir(parents=True)
    mounts = 'mkdir -p /run/systemd /run/log && mount --bind "$1/run" /run/systemd && '
    mounts += 'mount --bind "$1/log" /run/log && exec "$2"'
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", mounts, "sh", str(folder), program],
        stderr=subprocess.DEVNULL,
    )
    try:
        wait((folder / "run/journal/socket").exists, "the journal")
        yield folder
    finally:
        process.terminate()
        process.wait()


def test_journal_has_fields_and_priority(
    journal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the real systemd-journald, also after it could not be reached."""
    socket = journal / "run/journal/socket"
    hidden = socket.with_name("hidden")
    monkeypatch.setattr(log_destinations, "JOURNAL", socket)
    machine = Machine(tmp_path / "home", LogShipping(to="journald"))
    lines = ["plain ü", '{"severity":"error","message":"a"}', "x" * 60_000, "a\tb=c"]
    try:
        socket.rename(hidden)
        machine.write(machine.log(), text(lines))
        shipper = machine.ship()
        wait(lambda: shipper._failing_since, "a failure")
        hidden.rename(socket)
        command = ["journalctl", "-D", journal / "log/journal", "-o", "json", "--all"]
        command += ["LAPWING_STACK=shop", "LAPWING_SERVICE=api"]

        def entries() -> list[dict[str, str]]:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            return [json.loads(line) for line in done.stdout.splitlines()]

        wait(lambda: len(entries()) == len(lines), "all entries")
        found = entries()
    finally:
        machine.end()
    assert [e["MESSAGE"] for e in found] == lines
    assert [e["PRIORITY"] for e in found] == ["6", "3", "6", "6"]
    fields = ("SYSLOG_IDENTIFIER", "LAPWING_ENVIRONMENT", "LAPWING_RELEASE", "LAPWING_REPLICA")
    assert [found[0][name] for name in fields] == ["shop-api", "production", "r1", "blue-1.0"]
    assert found[0]["LAPWING_TIME"].endswith("+00:00")
