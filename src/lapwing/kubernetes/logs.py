"""Container logs of an environment, merged by time, through the API server.

    pods -> LogSource (a container of a pod) -> LogLine with a timestamp -> merged

The kubelet puts a timestamp before each line. First the end of each log is read and merged: one
line of each is in memory, never a whole log. Then, with `follow`, a thread for each container reads
on from its last line, so that no line is lost or repeated between the two, when the API server
closes the connection (it does, after hours), or when a container is restarted. New pods are read
from their beginning.

Source: Kubernetes API reference, "read log of the specified Pod"; `sinceTime` has a resolution of
one second, so lines that were printed already are skipped here.
"""

from __future__ import annotations

import heapq
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from lapwing.errors import ClusterError, ClusterUnreachableError
from lapwing.kubernetes import Report
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.pods import Pod
from lapwing.plan.names import release_of
from lapwing.system.timestamps import nanoseconds

MAX_LINE_BYTES = 1 << 16
"""A longer line is split."""
POD_POLL_INTERVAL_S = 1.0
BATCH_TIME_S = 0.1
"""Seconds in which lines that arrive together are sorted."""
MAX_QUEUED_LINES = 1000
"""Lines that wait to be printed before readers pause."""


@dataclass(frozen=True, slots=True)
class LogSource:
    """One container of one pod."""

    instance: Pod = field(compare=False, hash=False)
    uid: str
    container: str

    def __str__(self) -> str:
        """Return the service, the replica and the release, as they are printed."""
        spec = self.instance.pod["spec"]
        every = [*spec.get("initContainers", ()), *spec["containers"]]
        image = next(str(c["image"]) for c in every if c["name"] == self.container)
        return f"{self.instance.service} {self.instance.label} {release_of(image)}"

    @property
    def restarts(self) -> int:
        """How often the container was restarted."""
        return int(self.instance.statuses.get(self.container, {}).get("restartCount") or 0)

    @property
    def started(self) -> bool:
        """Whether it has ever run, so that there may be a log."""
        status = self.instance.statuses.get(self.container, {})
        states = (status.get("state") or {}, status.get("lastState") or {})
        return any("running" in s or "terminated" in s for s in states)


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line. `moment` is the kubelet's timestamp, in nanoseconds of Unix time."""

    moment: int
    text: str
    source: LogSource


def sources(instances: Iterable[Pod]) -> list[LogSource]:
    """Return the containers that may have a log: of init containers, those that did not succeed."""
    found = []
    for instance in instances:
        spec = instance.pod["spec"]
        names = [str(c["name"]) for c in spec.get("containers") or ()]
        for first in spec.get("initContainers") or ():
            state = instance.statuses.get(str(first["name"]), {}).get("state") or {}
            if (state.get("terminated") or {}).get("exitCode") != 0:
                names.insert(0, str(first["name"]))
        found += [LogSource(instance, instance.uid, name) for name in names]
    return found


def split(chunks: Iterable[bytes], max_bytes: int = MAX_LINE_BYTES) -> Iterator[bytes]:
    """Yield the lines of a stream without their ends; a long line is split at `max_bytes`.

    Only a line feed ends a line: progress bars print carriage returns.
    """
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
        while len(rest) > max_bytes:
            yield rest[:max_bytes]
            rest = rest[max_bytes:]
    if rest:
        yield rest


def read(
    api: ApiClient,
    source: LogSource,
    *,
    tail: int | None = None,
    after: int = 0,
    follow: bool = False,
    previous: bool = False,
) -> Iterator[LogLine]:
    """Yield the lines of a container: the last `tail`, or all, and only those later than `after`.

    Raises ClusterError if there is no log (the container has not started, the pod is gone).
    """
    instance = source.instance
    params = {"container": source.container, "timestamps": "true"}
    if tail is not None:
        params["tailLines"] = str(tail)
    if after:
        whole = datetime.fromtimestamp(after // 10**9, UTC)
        params["sinceTime"] = whole.strftime("%Y-%m-%dT%H:%M:%SZ")
    if follow:
        params["follow"] = "true"
    if previous:
        params["previous"] = "true"
    path = f"/api/v1/namespaces/{instance.namespace}/pods/{instance.name}/log"
    last = after
    for raw in split(api.stream(path, params, f"the log of {instance.name}")):
        stamp, _, text = raw.partition(b" ")
        try:
            last = nanoseconds(stamp.decode())
        except ValueError:
            text = raw  # The rest of a line that was split.
        if last > after:
            yield LogLine(last, text.decode(errors="replace").removesuffix("\r"), source)


def recent(
    api: ApiClient, found: Sequence[LogSource], tail: int, *, previous: bool, report: Report
) -> Iterator[LogLine]:
    """Yield the end of each log, merged.

    A container that has printed nothing since it was restarted shows the log of its previous run;
    with `previous`, each shows that. Logs that cannot be read are reported.
    """

    def each(source: LogSource) -> Iterator[LogLine]:
        runs = (True,) if previous else (False, True) if source.restarts else (False,)
        failure = None
        for run in runs:
            empty = True
            try:
                for line in read(api, source, tail=tail, previous=run):
                    empty = False
                    yield line
            except ClusterUnreachableError:
                raise
            except ClusterError as error:
                failure = failure or error
            if not empty:
                return
        if failure is not None and (source.started or previous):
            report(failure.message)

    return heapq.merge(*(each(s) for s in found), key=lambda line: line.moment)


class LogFollower:
    """Reads on in every container, with a thread for each. Call `close` at the end."""

    def __init__(self, api: ApiClient, find: Callable[[], list[LogSource]], report: Report) -> None:
        """Follow the containers that `find` returns at each poll."""
        self._api, self._find, self._report = api, find, report
        self._lines: queue.Queue[LogLine] = queue.Queue(MAX_QUEUED_LINES)
        self._closed = threading.Event()
        self._read: dict[LogSource, int] = {}
        """The timestamp of the last line of each."""
        self._restarts: dict[LogSource, int] = {}
        self._threads: dict[LogSource, threading.Thread] = {}

    def mark_printed(self, line: LogLine) -> None:
        """Record a line that was printed before following began."""
        self._read[line.source] = max(line.moment, self._read.get(line.source, 0))

    def begin(self, found: Iterable[LogSource], *, skip: bool = False) -> None:
        """Follow these, whose ends were printed; with `skip`, only their new lines."""
        for source in found:
            if source.started:
                self._start(source, skip=skip and source not in self._read)

    def batches(self) -> Iterator[list[LogLine]]:
        """Yield lines as they arrive, sorted within a batch, until the follower is closed."""
        polled = time.monotonic()
        unreachable = False
        while not self._closed.is_set():
            batch = self._gather()
            if batch:
                yield batch
            if time.monotonic() - polled < POD_POLL_INTERVAL_S:
                continue
            try:
                for source in self._find():
                    self._consider(source)
                unreachable = False
            except ClusterUnreachableError as error:
                if not unreachable:
                    self._report(f"{error.message} Retrying.")
                unreachable = True
            polled = time.monotonic()

    def close(self) -> None:
        """Stop reading."""
        self._closed.set()

    def _gather(self) -> list[LogLine]:
        try:
            batch = [self._lines.get(timeout=POD_POLL_INTERVAL_S / 4)]
        except queue.Empty:
            return []
        until = time.monotonic() + BATCH_TIME_S
        while len(batch) < MAX_QUEUED_LINES and (left := until - time.monotonic()) > 0:
            try:
                batch.append(self._lines.get(timeout=left))
            except queue.Empty:
                break
        return sorted(batch, key=lambda line: line.moment)

    def _consider(self, source: LogSource) -> None:
        thread = self._threads.get(source)
        if not source.started or (thread is not None and thread.is_alive()):
            return
        running = "running" in (source.instance.statuses[source.container].get("state") or {})
        restarted = source.restarts > self._restarts.get(source, 0)
        if thread is None or running or restarted:
            self._start(source)

    def _start(self, source: LogSource, *, skip: bool = False) -> None:
        restarted = source.restarts > self._restarts.get(source, source.restarts)
        self._restarts[source] = source.restarts
        thread = threading.Thread(target=self._pump, args=(source, restarted, skip), daemon=True)
        self._threads[source] = thread
        thread.start()

    def _pump(self, source: LogSource, restarted: bool, skip: bool) -> None:
        for previous in (True, False) if restarted else (False,):
            lines = read(
                self._api,
                source,
                tail=0 if skip else None,
                after=self._read.get(source, 0),
                follow=not previous,
                previous=previous,
            )
            try:
                for line in lines:
                    self._read[source] = line.moment
                    if not self._put(line):
                        return
            except (ClusterError, RuntimeError):
                continue  # The pod is gone or restarting, which the next poll finds.

    def _put(self, line: LogLine) -> bool:
        while not self._closed.is_set():
            try:
                self._lines.put(line, timeout=0.5)
            except queue.Full:
                continue
            return True
        return False
