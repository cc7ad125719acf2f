"""Where logs are shipped: the journal of systemd, or a collector of OpenTelemetry.

Each destination accepts a batch of records, or raises Unavailable (the batch is sent again) or
Refused (it is not). Sources: systemd's documentation, Native Journal Protocol; OpenTelemetry, OTLP
Specification 1.9 (OTLP/HTTP, JSON) and Semantic Conventions (Resource).
"""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import gzip
import socket
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec

from lapwing import __version__
from lapwing.agent.log_records import INFO, Record, Source
from lapwing.desired.secrets import SecretStore
from lapwing.errors import LapwingError, SecretError
from lapwing.system.sanitize import escape_controls
from lapwing.system.trust import tls_context

JOURNAL = Path("/run/systemd/journal/socket")
SEND_TIMEOUT_S = 5.0
REQUEST_TIMEOUT_S = 10.0
RETRYABLE = (429, 502, 503, 504)
REFUSED = (400, 413, 415, 422)
"""The collector cannot use these records; another status may be due to its configuration."""
MAX_ANSWER = 200
"""Characters of an answer that are shown."""


class Unavailable(Exception):
    """The destination accepts nothing now; it asked for a retry after `retry_after` seconds."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class Refused(Exception):
    """The destination refuses `count` records for good; it has accepted the others."""

    def __init__(self, reason: str, count: int) -> None:
        super().__init__(reason)
        self.count = count


class Journal:
    """The journal of this machine, through its socket for datagrams."""

    def __init__(self) -> None:
        self._path = JOURNAL
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(SEND_TIMEOUT_S)

    def send(self, batch: list[Record]) -> None:
        """Send one datagram for each record, and remove it from the batch. Raises Unavailable."""
        while batch:
            try:
                self._socket.sendto(datagram(batch[0]), str(self._path))
            except OSError as error:
                raise Unavailable(f"{self._path}: {error.strerror or error}") from error
            del batch[0]

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def datagram(record: Record) -> bytes:
    """Return the entry of a record, for `journalctl -t STACK-SERVICE`."""
    source = record.source
    moment = datetime.datetime.fromtimestamp(record.moment / 10**9, datetime.UTC)
    fields = {
        "MESSAGE": record.text,
        "PRIORITY": str((record.severity or INFO).priority),
        "SYSLOG_IDENTIFIER": f"{source.stack}-{source.service}",
        "LAPWING_STACK": source.stack,
        "LAPWING_ENVIRONMENT": source.environment,
        "LAPWING_SERVICE": source.service,
        "LAPWING_RELEASE": source.release,
        "LAPWING_REPLICA": source.replica,
        "LAPWING_TIME": moment.isoformat(timespec="milliseconds"),
    }
    entry = bytearray()
    for name, text in fields.items():
        value = text.encode()
        entry += name.encode() + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"
    return bytes(entry)


class Collector:
    """An endpoint of OTLP/HTTP. `headers` returns the headers, and raises LapwingError."""

    def __init__(
        self, url: str, headers: Callable[[], Mapping[str, str]], environ: Mapping[str, str]
    ) -> None:
        import httpx

        self._url, self._headers = url, headers
        self._client = httpx.Client(
            verify=tls_context(environ), timeout=REQUEST_TIMEOUT_S, trust_env=False
        )

    def send(self, batch: list[Record]) -> None:
        """Send one request. Raises Unavailable or Refused."""
        import httpx

        headers = {
            "content-type": "application/json",
            "content-encoding": "gzip",
            "user-agent": f"lapwing/{__version__}",
        }
        try:
            headers |= self._headers()
            body = gzip.compress(msgspec.json.encode(request(batch)), 3)
            answer = self._client.post(self._url, content=body, headers=headers)
        except LapwingError as error:
            raise Unavailable(f"{error} {error.hint or ''}".strip()) from error
        except httpx.LocalProtocolError as error:  # Its text has the value of a header.
            raise Unavailable("a value of `headers` is not a valid header") from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            text = escape_controls(str(error))[:MAX_ANSWER]
            raise Unavailable(text or type(error).__name__) from error
        if answer.is_success:
            _check_partial(answer.content)
        elif answer.status_code in RETRYABLE:
            wait = _retry_after(answer.headers.get("retry-after"))
            raise Unavailable(_described(answer.status_code, answer.text), wait)
        elif answer.status_code in REFUSED:
            raise Refused(_described(answer.status_code, answer.text), len(batch))
        else:
            raise Unavailable(_described(answer.status_code, answer.text))

    def close(self) -> None:
        """Close all connections."""
        self._client.close()


def request(batch: Iterable[Record]) -> dict[str, Any]:
    """Return an ExportLogsServiceRequest in the JSON encoding of OTLP."""
    now, host = str(time.time_ns()), socket.gethostname()
    found = []
    for source, records in groupby(batch, lambda r: r.source):
        scope = {"name": "lapwing", "version": __version__}
        logs = {"scope": scope, "logRecords": [_log_record(r, now) for r in records]}
        found.append({"resource": {"attributes": _resource(source, host)}, "scopeLogs": [logs]})
    return {"resourceLogs": found}


def _resource(source: Source, host: str) -> list[dict[str, Any]]:
    attributes = {
        "service.name": source.service,
        "service.namespace": source.stack,
        "service.version": source.release,
        "service.instance.id": source.replica,
        "deployment.environment.name": source.environment,
        "host.name": host,
    }
    return [{"key": k, "value": {"stringValue": v}} for k, v in attributes.items() if v]


def _log_record(record: Record, now: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "timeUnixNano": str(record.moment),
        "observedTimeUnixNano": now,
        "body": {"stringValue": record.text},
    }
    if record.level is not None:
        found["severityText"] = record.level
    if record.severity is not None:
        found["severityNumber"] = record.severity.number
    return found


def _check_partial(content: bytes) -> None:
    """Raise Refused if the collector rejected some of the records: they may not be sent again."""
    with contextlib.suppress(msgspec.DecodeError, AttributeError, ValueError, TypeError):
        partial = msgspec.json.decode(content).get("partialSuccess") or {}
        if count := int(partial.get("rejectedLogRecords") or 0):
            text = escape_controls(str(partial.get("errorMessage") or ""))[:MAX_ANSWER]
            raise Refused(text or "partial success", count)


def _described(status: int, text: str) -> str:
    return f"status {status} {escape_controls(' '.join(text.split()))[:MAX_ANSWER]}".rstrip()


def _retry_after(value: str | None) -> float | None:
    """Return the seconds of a Retry-After header, which has seconds or a date (RFC 9110)."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        with contextlib.suppress(ValueError, TypeError):
            return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return None


def header_values(
    secrets: SecretStore, key: tuple[str, str], headers: Mapping[str, str]
) -> dict[str, str]:
    """Return the present values of the secrets of an environment as headers. Raises SecretError."""
    current, found = secrets.current(*key), {}
    for header, name in headers.items():
        hint = f"Run `lapwing secret set {name} -e {key[1]}` with the value of `{header}`."
        if name not in current:
            raise SecretError(f"Secret {name} of `logs` is not set.", hint=hint)
        value = secrets.get(*key, name, current[name]).strip()
        if not value or not value.isascii() or not value.isprintable():
            raise SecretError(f"Secret {name} of `logs` is not valid in a header.", hint=hint)
        found[header] = value
    return found
