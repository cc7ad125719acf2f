"""Releases that are not well: each is rejected with the reason, and no client meets it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lapwing.load.client import Plan, running

from .conftest import TRAFFIC, Yard

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("bad releases")]


@pytest.mark.usefixtures("unnoticed")
class TestBeforeTheSwitch:
    """What is found out before the switch."""

    @pytest.fixture(autouse=True)
    def plain(self, yard: Yard) -> None:
        yard.stack()

    def test_it_ends_at_once(self, yard: Yard) -> None:
        yard.write("ends", exit=3)
        said = yard.rejected()
        assert "app exited with status 3 while it started" in said
        assert "the moon is not made of cheese" in said, "its last lines are shown"
        assert "lapwing logs app" in said

    def test_it_never_listens(self, yard: Yard) -> None:
        yard.write("deaf", deaf=True)
        said = yard.rejected()
        assert "app did not become healthy within 4 s: nothing listens on its port yet" in said

    def test_its_health_check_answers_500(self, yard: Yard) -> None:
        yard.write("ill", health=500)
        assert "GET /health answered 500" in yard.rejected()

    def test_a_smoke_test_gets_another_status(self, yard: Yard) -> None:
        yard.stack("smoke: [{get: /, expect: 200}]")
        yard.write("broken", status=418)
        assert "Smoke test GET / answered 418, not 200" in yard.rejected()

    def test_a_smoke_test_misses_a_text(self, yard: Yard) -> None:
        yard.stack("smoke: [{get: /, contains: hello}]")
        yard.write("speechless")
        assert "without 'hello'" in yard.rejected()

    def test_a_smoke_command_fails(self, yard: Yard) -> None:
        yard.stack('smoke: [{run: "echo it is wet; exit 4"}]')
        yard.write("wet")
        said = yard.rejected()
        assert "exited with status 4" in said
        assert "it is wet" in said

    def test_a_smoke_command_does_not_end(self, yard: Yard) -> None:
        yard.stack('smoke: [{run: "sleep 600", timeout: 1s}]')
        yard.write("endless")
        assert "did not end within 1 s" in yard.rejected()

    def test_a_job_fails(self, yard: Yard) -> None:
        job = "  migrate: {kind: job, build: ./app, command: 'echo no such table; exit 5'}"
        yard.stack(more=job)
        yard.write("migrating")
        said = yard.rejected()
        assert "Job migrate exited with status 5" in said
        assert "no such table" in said
        yard.stack()
        yard.where.run("deploy")

    def test_a_program_that_is_not_there(self, yard: Yard) -> None:
        yard.stack()
        path = yard.where.folder / "lapwing.yaml"
        path.write_text(path.read_text().replace("python app.py", "pythn app.py"))
        yard.write("lost")
        said = yard.rejected()
        assert "app exited with status 127 while it started" in said
        assert "pythn: not found" in said


@pytest.mark.usefixtures("unnoticed")
class TestGoodEnough:
    """What looks bad and is not."""

    def test_one_that_listens_late_is_waited_for(self, yard: Yard) -> None:
        yard.stack()
        yard.write("late", late=2)
        yard.where.run("deploy")
        assert yard.get().text == "late"

    def test_one_that_ignores_sigterm_is_killed_when_its_time_is_over(self, yard: Yard) -> None:
        yard.stack()
        yard.write("stubborn", stubborn=True)
        yard.where.run("deploy")
        old = yard.service()["active"]["pids"]
        yard.good("after the stubborn one")
        yard.good("and one more, which takes its slot")
        yard.until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in old))


def test_one_that_is_slow_for_real_clients_is_taken_back(yard: Yard, unnoticed: None) -> None:
    yard.good("quick")
    yard.write("slow", delay=0.5)
    said = yard.rejected()
    assert "95th percentile" in said
    assert "was rolled back" in said
    assert yard.get().text == "quick"


def test_one_that_answers_500_to_real_clients_is_taken_back(yard: Yard, tmp_path: Path) -> None:
    yard.good("whole")
    yard.write("failing", status=500)
    with running(Plan(yard.target, TRAFFIC), tmp_path) as client:
        client.wait_for_answers()
        said = yard.rejected()
        ledger = client.stop()
    assert "requests failed" in said
    assert yard.get().text == "whole"
    assert {e.version for e in ledger.failures} == {"failing"}, "only its own answers"
