"""Cron schedules: what is accepted, and when a job is due, also when clocks change."""

from __future__ import annotations

import datetime
from zoneinfo import ZoneInfo

import msgspec
import pytest

from lapwing.plan.model import Schedule
from lapwing.stack import cron

BERLIN = "Europe/Berlin"


def unix(text: str, zone: str = BERLIN) -> float:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def times(schedule: str, after: str, count: int) -> list[str]:
    found, moment = [], unix(after)
    for _ in range(count):
        moment = cron.next_time(schedule, BERLIN, moment)
        local = datetime.datetime.fromtimestamp(moment, ZoneInfo(BERLIN))
        found.append(local.strftime("%d %H:%M %Z"))
    return found


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("*/5 * * * *", "*/5 * * * *"),
        ("  0 6  * * MON-FRI ", "0 6 * * MON-FRI"),
        ("0 0 * JUL *", "0 0 * JUL *"),
        ("@Daily", "@daily"),
    ],
)
def test_schedule_is_accepted(given: str, kept: str) -> None:
    assert cron.parse(given) == kept


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("", "five fields"),
        ("* * * *", "five fields"),
        ("0 1 2 3 4 5", "five fields"),
        ("@reboot", "not one of @hourly, @daily"),
        ("61 * * * *", "bad minute"),
        ("0 22-2 * * *", "bad hour"),
        ("0 0 L * *", "write it as"),
        ("0 0 * * MON#1", "write it as"),
        ("0 0 ? * *", "write it as"),
        ("0 0 * * 7", "Sunday as `0`"),
        ("0 0 30 2 *", "bad day-of-month"),
    ],
)
def test_schedule_is_refused(given: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        cron.parse(given)


@pytest.mark.parametrize("given", ["Berlin", "../etc/passwd", "localtime", "posix/UTC", "", "Etc/"])
def test_unknown_time_zone_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="not a time zone"):
        cron.time_zone(given)


def test_pushed_document_with_an_invalid_schedule_is_refused() -> None:
    for data in (b'{"cron": "* *"}', b'{"cron": "@daily", "timezone": "Nowhere"}'):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(data, type=Schedule)


def test_fixed_time_that_the_clock_skips_runs_once_after_it() -> None:
    found = times("30 2 * * *", "2026-03-28 12:00", 2)
    assert found == ["29 03:00 CEST", "30 02:30 CEST"]


def test_fixed_time_that_comes_twice_runs_once() -> None:
    found = times("30 2 * * *", "2026-10-24 12:00", 2)
    assert found == ["25 02:30 CEST", "26 02:30 CET"]


def test_interval_follows_the_elapsed_time_when_clocks_change() -> None:
    found = times("*/30 * * * *", "2026-10-25 01:59", 5)
    assert found == [
        "25 02:00 CEST", "25 02:30 CEST", "25 02:00 CET", "25 02:30 CET", "25 03:00 CET"
    ]  # fmt: skip


def test_last_time_is_the_one_before_or_at_a_moment() -> None:
    noon = unix("2026-05-05 12:00")
    assert cron.last_time("0 12 * * *", BERLIN, noon) == noon
    assert cron.last_time("0 12 * * *", BERLIN, noon + 0.5) == noon
    assert cron.last_time("0 12 * * *", BERLIN, noon - 0.5) == noon - 86400


def test_runs_in_a_month_are_counted() -> None:
    assert round(cron.runs_in_a_month("*/5 * * * *")) == 8760
    assert round(cron.runs_in_a_month("@daily")) == 30
    assert round(cron.runs_in_a_month("0 6,18 * * MON")) == 9
