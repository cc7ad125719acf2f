"""Ships the logs of one environment to the journal or to a collector.

A thread reads what the log writers wrote (`logs`), so a slow destination delays neither a process
that writes nor the event loop. It keeps one batch in memory. The position in each log is saved when
a batch was accepted: after a crash, at most one batch is sent twice. While the destination accepts
nothing, lines wait in the files; those that a rotation removes meanwhile are lost, and the status
shows it.
"""

from __future__ import annotations

import datetime
import logging
import random
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from lapwing.agent import log_positions
from lapwing.agent.log_destinations import (
    Collector,
    Journal,
    Refused,
    Unavailable,
    header_values,
)
from lapwing.agent.log_positions import Position
from lapwing.agent.log_records import Record, Source, record, request_of
from lapwing.desired.secrets import SecretStore
from lapwing.observed.logs import older, release_of
from lapwing.plan.model import LogShipping
from lapwing.settings import Settings
from lapwing.system.files import write_atomic

log = logging.getLogger(__name__)

STATE = "log-shipping.json"
INTERVAL_S = 1.0
MAX_BATCH_BYTES = 512 * 1024
RECORD_BYTES = 250
"""The length of an encoded record without its text, about."""
MAX_READ_BYTES = 128 * 1024
"""How much of one log is in a batch, so that no log delays the others."""
FIRST_DELAY_S, LONGEST_DELAY_S = 1.0, 60.0
MAX_RETRY_AFTER_S = 600.0
NOTED_S = 3.0
"""The time in which the agent notes the release of a new log."""
BEGIN_S = 600
"""Lines of this time before `logs` was deployed are shipped, too, except of the access log."""
PROBLEM_AFTER_S = 30.0
"""How long a destination accepts nothing before the status shows it."""
LOSS_SHOWN_S = 86400.0

Key = tuple[str, str]
"""Stack and environment."""


class State(msgspec.Struct):
    """The position in each log, by its path below the folder of logs; and what was not shipped."""

    positions: dict[str, Position] = {}
    since: int = 0
    """Requests before this time, in nanoseconds of Unix time, are not shipped."""
    refused: int = 0
    """The number of lines that the destination refused since `logs` was deployed."""
    lost_at: float = 0.0
    """When lines were last refused, or removed by a rotation before they were shipped."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Records, and the positions after them; `lost` if lines before them are gone."""

    records: list[Record]
    positions: dict[str, Position]
    lost: bool


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a shipper is started with: another one replaces it when this changes."""

    logs: LogShipping
    hosts: frozenset[str]


class _Seen(NamedTuple):
    """What identifies the state of a file; `written` is its time of modification in seconds."""

    inode: int
    size: int
    written: float


def _seen(path: Path) -> _Seen | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return _Seen(found.st_ino, found.st_size, found.st_mtime)


class Shipper:
    """Ships the logs of one environment in a thread."""

    def __init__(self, key: Key, wanted: Wanted, settings: Settings, secrets: SecretStore) -> None:
        self.wanted = wanted
        self.problem: str | None = None
        self._key, self._settings, self._secrets = key, settings, secrets
        self._file = settings.environment(*key) / STATE
        self._state = State()
        self._pending: Batch | None = None
        self._behind: set[str] = set()
        """The logs with lines that waited since the first failure."""
        self._finished: dict[str, _Seen] = {}
        """The logs that were shipped completely, and are not opened until they change."""
        self._is_current = False
        """Whether everything that was written before the last pass was shipped."""
        self._turn = 0
        self._stopped = threading.Event()
        self._is_forgotten = False
        self._failing_since: float | None = None
        self._delay = FIRST_DELAY_S
        self._thread = threading.Thread(target=self._run, name=f"logs of {key[1]}", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread still runs after `stop`."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Let the thread end, after an attempt to ship what was written."""
        self._stopped.set()

    def forget(self) -> None:
        """Stop, and save nothing: the folder of the environment is removed."""
        self._is_forgotten = True
        self.stop()

    def join(self, timeout: float) -> None:
        """Wait until the thread has ended."""
        self._thread.join(timeout)

    def _run(self) -> None:
        destination: Collector | Journal | None = None
        while True:
            is_last = self._stopped.is_set()
            try:
                if destination is None:
                    self._state = self._load()
                    destination = self._destination()
                delay = self._ship(destination)
            except Exception as error:  # A full disk, for example: the next pass repeats it.
                self.problem = f"Logs are not shipped to {self.wanted.logs.to}: {error}"
                log.warning("%s", self.problem)
                delay = LONGEST_DELAY_S
            if is_last:
                break
            self._stopped.wait(delay)
        if destination is not None:
            destination.close()

    def _destination(self) -> Collector | Journal:
        logs = self.wanted.logs
        if logs.to == "journald":
            return Journal()
        return Collector(logs.to, self._headers, self._settings.environ)

    def _headers(self) -> Mapping[str, str]:
        """Return the present values of the headers. Raises SecretError."""
        return header_values(self._secrets, self._key, self.wanted.logs.headers)

    def _ship(self, destination: Collector | Journal) -> float:
        """Ship what was written since the last pass; return the seconds until the next one."""
        while True:
            batch = self._pending or self._collect()
            if batch is not None:
                self._pending = batch
                retry = self._send(destination, batch.records)
                self._is_current = False
                if retry is not None:
                    self._behind |= {n for n, p in self._logs().items() if self._is_behind(n, p)}
                    return retry
                self._pending = None
                self._state.positions |= batch.positions
                if batch.lost:
                    self._state.lost_at = time.time()
                if batch.records or batch.lost:
                    self._save(self._state)
            self._show_loss()
            if batch is None or self._stopped.is_set():
                self._is_current = batch is None
                return INTERVAL_S

    def _is_behind(self, name: str, path: Path) -> bool:
        return log_positions.unread(path, self._state.positions.get(name)) > 0

    def _send(self, destination: Collector | Journal, batch: list[Record]) -> float | None:
        """Send a batch until it is accepted; return the delay of the next attempt if it is not."""
        try:
            if batch:
                destination.send(batch)
        except Unavailable as error:
            return self._note_failure(error)
        except Refused as error:
            self._state.refused += error.count
            self._state.lost_at = time.time()
            log.warning("%d lines of logs were refused: %s", error.count, error)
        self._failing_since, self._delay = None, FIRST_DELAY_S
        return None

    def _note_failure(self, error: Unavailable) -> float:
        now = time.monotonic()
        self._failing_since = now if self._failing_since is None else self._failing_since
        if now - self._failing_since >= PROBLEM_AFTER_S or self.problem is not None:
            self.problem = (
                f"Logs are not shipped to {self.wanted.logs.to}: {error}. Lines stay in the log "
                "files until a file is rotated twice, and the agent tries again."
            )
        self._delay = min(LONGEST_DELAY_S, self._delay * 2)
        if error.retry_after is not None:
            return min(error.retry_after, MAX_RETRY_AFTER_S)
        return self._delay * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret

    def _show_loss(self) -> None:
        """Show in the status what was lost in the last day."""
        state, self.problem = self._state, None
        if time.time() - state.lost_at < LOSS_SHOWN_S:
            moment = datetime.datetime.fromtimestamp(state.lost_at, datetime.UTC)
            since = " lines were refused since `logs` was deployed."
            refused = f" {state.refused}{since}" if state.refused else ""
            self.problem = (
                f"Not all logs were shipped to {self.wanted.logs.to}: lines were last lost at "
                f"{moment.isoformat(timespec='seconds')}.{refused}"
            )

    # The logs

    def _logs(self) -> dict[str, Path]:
        """Return the logs of this environment, and the access logs of Envoy."""
        folder = self._settings.logs
        found = sorted(folder.glob("/".join(("run", *self._key, "*", "*.log"))))
        return {
            str(p.relative_to(folder)): p for p in (*found, *sorted(folder.glob("access-*.log")))
        }

    def _collect(self) -> Batch | None:
        """Return the next lines of all logs; None if there are none."""
        logs, before, positions = self._logs(), self._state.positions, dict[str, Position]()
        gone = {n for n in (before.keys() | self._behind) - logs.keys() if self._is_removed(n)}
        lost = bool(self._behind & gone)
        self._behind.clear()
        for name in gone:
            before.pop(name, None)
            self._finished.pop(name, None)
        records, room = list[Record](), MAX_BATCH_BYTES
        for name, path in self._rotated(logs):
            if room <= 0:
                break
            seen = _seen(path)
            if seen is None or self._finished.get(name) == seen:
                continue
            begin, current = before.get(name), self._is_current
            part = log_positions.read(path, begin, MAX_READ_BYTES, is_current=current)
            if part is None:
                if time.time() - seen.written > 2 * log_positions.SETTLED_S:
                    self._finished[name] = seen
                continue
            release = release_of(path)
            is_of_envoy = path.parent == self._settings.logs
            if not (release or is_of_envoy) and time.time() - part.written / 10**9 < NOTED_S:
                continue
            lost |= part.lost
            positions[name] = part.after
            found = list(self._records(path, release, part.lines))
            records += found
            room -= sum(len(r.text) + RECORD_BYTES for r in found)
        return Batch(records, positions, lost) if positions or lost else None

    def _is_removed(self, name: str) -> bool:
        """Return whether a log is gone: in a rotation only its older part exists."""
        return not older(self._settings.logs / name).exists()

    def _rotated(self, logs: dict[str, Path]) -> list[tuple[str, Path]]:
        """Return the logs in an order that begins with another one at each pass."""
        self._turn += 1
        items = list(logs.items())
        first = self._turn % max(1, len(items))
        return items[first:] + items[:first]

    def _records(
        self, path: Path, release: str, lines: list[tuple[bytes, int]]
    ) -> Iterator[Record]:
        stack, environment = self._key
        if path.parent != self._settings.logs:
            release = release.removeprefix("-")  # A database has none.
            source = Source(stack, environment, path.parent.name, release, path.stem)
            yield from (record(source, line, moment) for line, moment in lines)
            return
        for line, written in lines:
            found = request_of(line, f"{stack}/{environment}/", self.wanted.hosts)
            if found is not None and (found[1] or written) >= self._state.since:
                service, moment = found
                source = Source(stack, environment, service, "", path.stem)
                yield record(source, line, moment or written)

    # The state

    def _load(self) -> State:
        """Return the saved state; at first, the positions from which logs are shipped."""
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=State)
        except FileNotFoundError:
            state = State()
        except msgspec.MsgspecError:
            state = State(lost_at=time.time())
        state.since = time.time_ns() - BEGIN_S * 10**9
        for name, path in self._logs().items():
            if path.parent == self._settings.logs:
                continue  # Its lines have their times.
            if (position := log_positions.end(path, state.since)) is not None:
                state.positions[name] = position
        self._save(state)
        return state

    def _save(self, state: State) -> None:
        if not self._is_forgotten:
            write_atomic(self._file, msgspec.json.encode(state))
