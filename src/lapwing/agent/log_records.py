"""Lines of logs as records: their source, and the severity that a line in JSON states."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import Any

import msgspec

from lapwing.system.timestamps import nanoseconds

_KEYS = ("level", "severity", "levelname", "lvl", "log.level")
"""Keys of the severity. Sources: pino, bunyan, zap, slog, structlog, python-json-logger, ECS."""


@dataclass(frozen=True, slots=True)
class Severity:
    """A severity, as syslog (RFC 5424) and OpenTelemetry (Logs Data Model) number it."""

    priority: int
    number: int


INFO = Severity(6, 9)
_NAMED = {
    "trace": Severity(7, 1),
    "debug": Severity(7, 5),
    "info": INFO,
    "notice": Severity(5, 10),
    "warn": Severity(4, 13),
    "error": Severity(3, 17),
    "critical": Severity(2, 21),
    "alert": Severity(1, 22),
    "emergency": Severity(0, 24),
}
_SYNONYMS = {
    "information": "info",
    "warning": "warn",
    "err": "error",
    "crit": "critical",
    "fatal": "critical",
    "panic": "critical",
    "emerg": "emergency",
}
_NUMBERED = {10: "trace", 20: "debug", 30: "info", 40: "warn", 50: "error", 60: "critical"}
"""The levels of pino and bunyan."""


@dataclass(frozen=True, slots=True)
class Source:
    """What wrote a log: a replica, a run of a job, a database, or Envoy for a service."""

    stack: str
    environment: str
    service: str
    release: str
    replica: str


@dataclass(frozen=True, slots=True)
class Record:
    """A line with its time in nanoseconds of Unix time; `severity` is None if it states none."""

    source: Source
    text: str
    moment: int
    severity: Severity | None
    level: str | None
    """The severity as the line states it."""


def record(source: Source, line: bytes, moment: int) -> Record:
    """Return a line as a record."""
    severity, level = _severity(line)
    return Record(source, line.decode(errors="replace"), moment, severity, level)


def _severity(line: bytes) -> tuple[Severity | None, str | None]:
    if not line.startswith(b"{"):
        return None, None
    try:
        found: Any = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError):
        return None, None
    level = next((found[key] for key in _KEYS if isinstance(found.get(key), str | int)), None)
    if level is None:
        return None, None
    name = _NUMBERED.get(level, "") if isinstance(level, int) else level.lower()
    return _NAMED.get(_SYNONYMS.get(name, name)), str(level)


class _Request(msgspec.Struct):
    time: str = ""
    cluster: str | None = None
    host: str | None = None


def request_of(line: bytes, prefix: str, hosts: frozenset[str]) -> tuple[str, int] | None:
    """Return service and time of a line of the access log; None if of another environment.

    `prefix` is that of the clusters of its services. A request that reached no service, such as a
    redirect, belongs to an environment by its host, and has the service `envoy`. The time is in
    nanoseconds; 0 if invalid.
    """
    try:
        found = msgspec.json.decode(line, type=_Request)
    except msgspec.DecodeError:
        return None
    moment = 0
    with contextlib.suppress(ValueError):
        moment = nanoseconds(found.time)
    if found.cluster:
        service = found.cluster.removeprefix(prefix).partition("/")[0]
        return (service, moment) if found.cluster.startswith(prefix) else None
    host = re.sub(r":\d+$", "", found.host or "").lower()
    return ("envoy", moment) if host in hosts else None
