"""The load client in a separate process, against a correct service."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import psutil
import pytest

from lapwing.load.client import Client, LoadError, Plan, running
from lapwing.load.connection import Target
from lapwing.load.worker import Traffic
from tests.integration.switching.service import run

TRAFFIC = (
    Traffic(kind="new", path="/version", workers=2, interval=0.02),
    Traffic(kind="keep-alive", path="/version", workers=2, interval=0.02),
    Traffic(kind="slow", path="/slow?seconds=0.5"),
    Traffic(kind="slow", path="/echo", body="{unique}" * 100, seconds=0.5),
    Traffic(kind="body", path="/echo", body='{"number": "{unique}"}', interval=0.05),
    Traffic(kind="events", path="/events", seconds=60),
    Traffic(kind="websocket", path="/ws", seconds=60, interval=0.05),
)


def test_all_kinds_succeed_and_streams_stay_open(tmp_path: Path) -> None:
    with run.service(tmp_path / "one", "one") as port:
        plan = Plan(Target(f"http://127.0.0.1:{port}"), TRAFFIC)
        with running(plan) as client:
            client.wait_for_answers()
            pid = client.pid
            run.until(lambda: _slow(client) >= 4)
            ledger = client.stop()
    assert not psutil.pid_exists(pid)
    assert [e.failure for e in ledger.failures] == []
    assert {t.kind for t in ledger.totals()} == plan.kinds
    assert set(ledger.versions()) == {"one"}
    streams = [e for e in ledger.exchanges if e.kind in ("events", "websocket")]
    assert [e.ended_by for e in streams] == ["client", "client"]
    assert all(e.messages > 1 for e in streams)


def _slow(client: Client) -> int:
    return sum(e.kind == "slow" for e in client.ledger().exchanges)


def test_stopped_service_closes_streams_and_then_fails_requests(
    tmp_path: Path,
) -> None:
    with run.service(tmp_path / "one", "one") as port:
        plan = Plan(Target(f"http://127.0.0.1:{port}"), TRAFFIC)
        client = Client(plan, tmp_path / "exchanges.jsonl")
        client.wait_for_answers()
    run.until(lambda: any(e.kind == "new" for e in client.ledger().failures))
    ledger = client.stop()
    first_of = {e.kind: e for e in reversed(ledger.exchanges) if e.messages}
    assert (first_of["events"].ended_by, first_of["events"].failure) == ("server", None)
    assert (first_of["websocket"].ended_by, first_of["websocket"].failure) == ("server", None)


def test_client_ends_when_caller_is_killed(tmp_path: Path) -> None:
    record = tmp_path / "exchanges.jsonl"
    script = (
        "import sys, time; from pathlib import Path; from lapwing.load.client import *;"
        "plan = Plan(Target('http://127.0.0.1:9'), (Traffic(kind='new', path='/'),));"
        f"print(Client(plan, Path({str(record)!r})).pid, flush=True); time.sleep(60)"
    )

    async def kill() -> int:
        caller = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE
        )
        assert caller.stdout is not None
        pid = int(await caller.stdout.readline())
        caller.kill()
        await caller.wait()
        return pid

    pid = asyncio.run(kill())
    run.until(lambda: not psutil.pid_exists(pid) or _zombie(pid))


def _zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_crashed_client_raises(tmp_path: Path) -> None:
    authority = str(tmp_path / "missing.pem")
    plan = Plan(Target("https://127.0.0.1:9", authority=authority), TRAFFIC)
    with (
        pytest.raises(LoadError, match="crashed"),
        running(plan) as client,
    ):
        client.wait_for_answers()


def test_missing_response_raises(tmp_path: Path) -> None:
    plan = Plan(Target("http://127.0.0.1:9"), (Traffic(kind="new", path="/"),))
    with pytest.raises(LoadError, match="No response to requests of kind new"), running(plan) as c:
        c.wait_for_answers(timeout=0.5)
