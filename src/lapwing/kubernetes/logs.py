"""What the containers of an environment print, merged by time, through the API server.

    pods -> sources (a container of a pod) -> lines with their moments -> merged

The kubelet puts a moment before each line. First the end of each log is read, all of them side by
side, and merged: a line of each is in memory, never a log. Then, with `follow`, a thread for each
container reads on from its last line, so nothing is lost or told twice between the two, when the
API server hangs up (it does, after hours), or when a container is started again. Pods that appear
are read from their beginning.

Source: Kubernetes API reference, "read log of the specified Pod"; `sinceTime` counts whole seconds,
so what was told already is left out here.
"""

from __future__ import annotations

import heapq
import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from lapwing.errors import ClusterError, ClusterUnreachableError
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.pods import Pod

LONGEST = 1 << 16
"""Bytes of a line; a longer one is told in pieces."""
LOOK = 1.0
"""Seconds between two looks for pods that have appeared."""
GATHER = 0.1
"""Seconds in which lines that come together are put in order."""
WAITING = 1000
"""Lines that wait to be printed before readers pause."""

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Source:
    """One container of one pod."""

    instance: Pod = field(compare=False, hash=False)
    uid: str
    container: str

    @property
    def restarts(self) -> int:
        """How often the container was started again."""
        return int(self.instance.statuses.get(self.container, {}).get("restartCount") or 0)

    @property
    def started(self) -> bool:
        """Whether it has run at all, so that there may be a log."""
        said = self.instance.statuses.get(self.container, {})
        states = (said.get("state") or {}, said.get("lastState") or {})
        return any("running" in s or "terminated" in s for s in states)


@dataclass(frozen=True, slots=True)
class Line:
    """One line. `moment` is Unix time in nanoseconds, as the kubelet says it."""

    moment: int
    text: str
    source: Source


def sources(instances: Iterable[Pod]) -> list[Source]:
    """The containers that may have printed something: all of a pod, and those before it (init
    containers) that have not ended well."""
    found = []
    for instance in instances:
        spec = instance.pod["spec"]
        names = [str(c["name"]) for c in spec.get("containers") or ()]
        for first in spec.get("initContainers") or ():
            state = instance.statuses.get(str(first["name"]), {}).get("state") or {}
            if (state.get("terminated") or {}).get("exitCode") != 0:
                names.insert(0, str(first["name"]))
        found += [Source(instance, instance.uid, name) for name in names]
    return found


def moment(text: str) -> int:
    """A moment of RFC 3339, with up to nine digits of a second, as Unix time in nanoseconds.

    Raises ValueError.
    """
    found = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", text)
    if found is None:
        raise ValueError(f"not a moment: {text[:40]!r}")
    zone = "+00:00" if found[3] == "Z" else found[3]
    seconds = int(datetime.fromisoformat(found[1] + zone).timestamp())
    return seconds * 10**9 + int((found[2] or "").ljust(9, "0"))


def split(chunks: Iterable[bytes], longest: int = LONGEST) -> Iterator[bytes]:
    """Pieces of a stream as lines, without their ends; a line that does not end is cut at
    `longest` bytes. Only a line feed ends a line: progress bars print carriage returns."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
        while len(rest) > longest:
            yield rest[:longest]
            rest = rest[longest:]
    if rest:
        yield rest


def read(
    api: ApiClient,
    source: Source,
    *,
    tail: int | None = None,
    after: int = 0,
    follow: bool = False,
    previous: bool = False,
) -> Iterator[Line]:
    """The lines of a container: the last `tail`, or all, those later than `after` only.

    Raises ClusterError where there is no log to be had (it has not started, it is gone).
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
            last = moment(stamp.decode())
        except ValueError:
            text = raw  # The rest of a line that was cut.
        if last > after:
            yield Line(last, text.decode(errors="replace").removesuffix("\r"), source)


def recent(
    api: ApiClient, found: Sequence[Source], tail: int, *, previous: bool, tell: Tell
) -> Iterator[Line]:
    """The end of each log, merged. A container that has printed nothing since it was started again
    shows what it said before; with `previous`, each shows that. What cannot be read is told."""

    def each(source: Source) -> Iterator[Line]:
        runs = (True,) if previous else (False, True) if source.restarts else (False,)
        refused = None
        for run in runs:
            empty = True
            try:
                for line in read(api, source, tail=tail, previous=run):
                    empty = False
                    yield line
            except ClusterUnreachableError:
                raise
            except ClusterError as error:
                refused = refused or error
            if not empty:
                return
        if refused is not None and (source.started or previous):
            tell(refused.message)

    return heapq.merge(*(each(s) for s in found), key=lambda line: line.moment)


class Follower:
    """Reads on in every container, in a thread for each. `close` it in the end."""

    def __init__(self, api: ApiClient, find: Callable[[], list[Source]], tell: Tell) -> None:
        self._api, self._find, self._tell = api, find, tell
        self._lines: queue.Queue[Line] = queue.Queue(WAITING)
        self._over = threading.Event()
        self._read: dict[Source, int] = {}
        """The moment of the last line of each."""
        self._restarts: dict[Source, int] = {}
        self._threads: dict[Source, threading.Thread] = {}

    def told(self, line: Line) -> None:
        """Take note of a line that was printed before following began."""
        self._read[line.source] = max(line.moment, self._read.get(line.source, 0))

    def begin(self, found: Iterable[Source], *, skip: bool = False) -> None:
        """Read on in these, whose ends were printed; with `skip` from now on only. Pods that appear
        are read from their beginning."""
        for source in found:
            if source.started:
                self._start(source, skip=skip and source not in self._read)

    def batches(self) -> Iterator[list[Line]]:
        """Lines as they come, those that come together in order. Does not end by itself."""
        looked = time.monotonic()
        away = False
        while not self._over.is_set():
            batch = self._gather()
            if batch:
                yield batch
            if time.monotonic() - looked < LOOK:
                continue
            try:
                for source in self._find():
                    self._consider(source)
                away = False
            except ClusterUnreachableError as error:
                if not away:
                    self._tell(f"{error.message} Trying again.")
                away = True
            looked = time.monotonic()

    def close(self) -> None:
        """Stop reading."""
        self._over.set()

    def _gather(self) -> list[Line]:
        try:
            batch = [self._lines.get(timeout=LOOK / 4)]
        except queue.Empty:
            return []
        until = time.monotonic() + GATHER
        while len(batch) < WAITING and (left := until - time.monotonic()) > 0:
            try:
                batch.append(self._lines.get(timeout=left))
            except queue.Empty:
                break
        return sorted(batch, key=lambda line: line.moment)

    def _consider(self, source: Source) -> None:
        thread = self._threads.get(source)
        if not source.started or (thread is not None and thread.is_alive()):
            return
        running = "running" in (source.instance.statuses[source.container].get("state") or {})
        again = source.restarts > self._restarts.get(source, 0)
        if thread is None or running or again:
            self._start(source)

    def _start(self, source: Source, *, skip: bool = False) -> None:
        again = source.restarts > self._restarts.get(source, source.restarts)
        self._restarts[source] = source.restarts
        thread = threading.Thread(target=self._pump, args=(source, again, skip), daemon=True)
        self._threads[source] = thread
        thread.start()

    def _pump(self, source: Source, again: bool, skip: bool) -> None:
        for previous in (True, False) if again else (False,):
            tail, after = 0 if skip else None, self._read.get(source, 0)
            try:
                for line in read(
                    self._api,
                    source,
                    tail=tail,
                    after=after,
                    follow=not previous,
                    previous=previous,
                ):
                    self._read[source] = line.moment
                    if not self._put(line):
                        return
            except (ClusterError, RuntimeError):
                continue  # It is gone, or begins again: the next look tells. Or we are closed.

    def _put(self, line: Line) -> bool:
        while not self._over.is_set():
            try:
                self._lines.put(line, timeout=0.5)
            except queue.Full:
                continue
            return True
        return False
