"""Cron schedules: `*/5 * * * *` or `@daily` in a time zone, and the times at which they are due.

The syntax is what cron and a CronJob of Kubernetes both accept: five fields, without the extensions
of either (`L`, `#`, `?`, seconds, 7 for Sunday), so that a job runs at the same times everywhere.

At a change of the clock, cronsim does as Debian's cron: a job at a fixed time that the change skips
runs right after it, and one whose time comes twice runs once; a job that runs every few minutes or
hours (`*` as minute or hour) follows the elapsed time.
"""

from __future__ import annotations

import datetime
import re
import zoneinfo
from collections.abc import Iterator
from datetime import UTC

ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_FIELD = re.compile(r"[0-9A-Za-z*,/-]+")
_ZONE = re.compile(r"[A-Z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*")
_SAMPLE = datetime.datetime(2025, 3, 1, tzinfo=UTC)


def parse(value: object) -> str:
    """Check a schedule and return it with single spaces. Raises ValueError."""
    text = " ".join(str(value).split())
    expression = ALIASES.get(text.lower(), text)
    fields = expression.split(" ")
    if text.startswith("@") and expression == text:
        raise ValueError(f"{text!r} is not one of {', '.join(ALIASES)}")
    if len(fields) != 5:
        raise ValueError(
            f"{text!r} does not have the five fields of a cron schedule: minute, hour, day of the "
            "month, month, day of the week"
        )
    if not all(map(_FIELD.fullmatch, fields)) or re.search(r"(^|[,\d-])L", fields[2] + fields[4]):
        raise ValueError(f"{text!r} is not a cron schedule; write it as `0 6 * * *` or `@daily`")
    if re.search(r"(^|[^/])7", fields[4]):
        raise ValueError(f"{text!r}: write Sunday as `0` or `SUN`; Kubernetes does not accept 7")
    _first(expression, text)
    return text.lower() if text.startswith("@") else text


def parse_interval(value: object) -> str:
    """Check a cron schedule or a word such as `daily`; return the schedule. Raises ValueError."""
    alias = f"@{str(value).strip().lower()}"
    return parse(alias if alias in ALIASES else value)


def time_zone(value: object) -> str:
    """Check the name of a time zone. Raises ValueError."""
    text = str(value)
    try:
        if not _ZONE.fullmatch(text):
            raise ValueError(text)
        zoneinfo.ZoneInfo(text)
    except (OSError, KeyError, ValueError):
        message = f"{text!r} is not a time zone; write it as `Europe/Berlin` or `UTC`"
        raise ValueError(message) from None
    return text


def next_time(schedule: str, zone: str, after: float) -> float:
    """Return the next time (Unix time) of a schedule after a moment."""
    return next(_times(schedule, zone, after))


def last_time(schedule: str, zone: str, until: float) -> float:
    """Return the last time of a schedule before a moment, or at it."""
    return next(_times(schedule, zone, until + 1, reverse=True))


def runs_in_a_month(schedule: str) -> float:
    """Return how often a schedule is due in a month, on the average of a year."""
    from cronsim import CronSim

    found = CronSim(ALIASES.get(schedule, schedule), _SAMPLE)
    year = (_SAMPLE.date() + datetime.timedelta(days=n) for n in range(365))
    days = sum(d.month in found.months and found.match_day(d) for d in year)
    return len(found.minutes) * len(found.hours) * days / 12


def _times(schedule: str, zone: str, begin: float, *, reverse: bool = False) -> Iterator[float]:
    from cronsim import CronSim

    moment = datetime.datetime.fromtimestamp(int(begin), zoneinfo.ZoneInfo(zone))
    expression = ALIASES.get(schedule, schedule)
    return (found.timestamp() for found in CronSim(expression, moment, reverse=reverse))


def _first(expression: str, text: str) -> None:
    from cronsim import CronSim, CronSimError

    try:
        next(CronSim(expression, _SAMPLE))
    except CronSimError as error:
        raise ValueError(f"{text!r} is not a cron schedule: {str(error).lower()}") from error
    except StopIteration:
        raise ValueError(f"{text!r} is never due: that date does not exist") from None
