"""The status of a CronJob and of a database."""

from __future__ import annotations

import calendar
import time
from typing import Any

import pytest

from lapwing.kubernetes.status import EnvironmentObjects, status
from lapwing.observed.status import ScheduleStatus

NOON = calendar.timegm(time.strptime("2026-05-05 12:00", "%Y-%m-%d %H:%M"))


def schedule(**fields: Any) -> ScheduleStatus:
    job = {
        "kind": "CronJob",
        "metadata": {"name": "shop-digest", "labels": {"app.kubernetes.io/name": "digest"}},
        "spec": {"schedule": "30 12 * * *", "timeZone": "UTC", "suspend": fields.pop("off", False)},
        "status": fields,
    }
    found = status("shop", "kind", "", EnvironmentObjects(workloads=[job]), NOON)
    [service] = found.services
    assert (service.name, service.kind, service.phase) == ("digest", "job", "scheduled")
    assert service.schedule is not None
    return service.schedule


def test_scheduled_job_that_has_not_run() -> None:
    found = schedule()
    assert (found.last, found.running_since, found.next) == (None, None, NOON + 1800)
    assert schedule(off=True).next is None


@pytest.mark.parametrize(
    ("succeeded", "outcome"),
    [("2026-05-04T12:31:00Z", "succeeded"), ("2026-05-03T12:31:00Z", "failed"), (None, "failed")],
)
def test_last_run_of_a_scheduled_job(succeeded: str | None, outcome: str) -> None:
    found = schedule(lastScheduleTime="2026-05-04T12:30:00Z", lastSuccessfulTime=succeeded)
    assert found.last is not None
    assert (found.last.outcome, found.last.due) == (outcome, NOON - 86400 + 1800)


def test_run_of_a_scheduled_job_in_progress() -> None:
    found = schedule(lastScheduleTime="2026-05-05T11:59:00Z", active=[{"name": "shop-digest-1"}])
    assert (found.running_since, found.last) == (NOON - 60, None)


def test_kind_of_a_database_with_an_image_of_another_name() -> None:
    labels = {"app.kubernetes.io/name": "db", "app.kubernetes.io/component": "mysql"}
    template = {"spec": {"containers": [{"image": "registry.example/mirror/percona-server:8.4"}]}}
    database = {
        "kind": "StatefulSet",
        "metadata": {"name": "shop-db", "labels": labels, "generation": 1},
        "spec": {"replicas": 1, "template": template},
    }
    found = status("shop", "kind", "", EnvironmentObjects(workloads=[database]), NOON)
    assert [(r.name, r.kind) for r in found.resources] == [("db", "mysql")]
