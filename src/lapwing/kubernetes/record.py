"""The record of a long change of a cluster, in a ConfigMap, and which command may act on it.

The record is saved before each act, with the objects that ran before, so that any later command can
continue or roll back. The command that makes the change writes the ConfigMap every few seconds as
its heartbeat. A command that finds a record watches it first: if it changes, another command is
running, and this one stops; if it does not change for the duration of a lease, that one has ended,
and this one takes over. No clocks are compared. Every change names the resource version that it was
made from, so of two commands that take over at the same time only one succeeds, and one whose lease
has expired notices before its next act. There is no lock to clear by hand.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from lapwing.errors import ClusterError, LapwingError
from lapwing.kubernetes.applyset import Scope
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.objects import Object, Reference

LEASE_S = 15.0
"""Seconds without a heartbeat after which another command may take over."""
Record = TypeVar("Record", bound=msgspec.Struct)


class Records(Generic[Record]):
    """The record of one change. Acquire it before anything else, and release it."""

    def __init__(
        self,
        api: ApiClient,
        scope: Scope,
        name: str,
        kind: type[Record],
        *,
        holder: str,
        lease: float,
        locked: Callable[[str], LapwingError],
    ) -> None:
        """Prepare a record of this name and type.

        `holder` names this command to others; `lease` is in seconds; `locked` builds the error for
        a record of another command from its holder, which may be empty.
        """
        self.reference = Reference("v1", "ConfigMap", scope.namespace, name)
        self.before: list[dict[str, Any]] = []
        """The objects that ran before, to start again; saved with the record."""
        self.id = secrets.token_hex(4)
        """The suffix of the names of objects of this change."""
        self._api, self._scope, self._holder, self._lease = api, scope, holder, lease
        self._kind, self._locked = kind, locked
        self._record: Record | None = None
        self._live: Object | None = None
        self._written = 0.0

    def acquire(self, wait: Callable[[float], None] = time.sleep) -> None:
        """Take the record over. Raises the error of `locked` if another command has it."""
        self._live = self._api.create(self._document())
        if self._live is not None:
            self._written = time.monotonic()
            return
        found = self._api.get(self.reference)
        if found is None:
            raise self._locked("")
        if found["data"].get("holder"):
            self._watch(found, wait)
        data = found["data"]
        self._live = found
        # An upgrade that was begun before restores had records has the key `upgrade`.
        self.id = str(data["id"] if "id" in data else data["upgrade"])
        self.before = json.loads(data["before"])
        record = data.get("record")
        self._record = msgspec.json.decode(record, type=self._kind) if record else None
        self._write()

    def _watch(self, found: Object, wait: Callable[[float], None]) -> None:
        """Return once a record has not changed for the time of a lease."""
        until = time.monotonic() + self._lease
        while time.monotonic() < until:
            wait(min(1.0, self._lease / 4))
            now = self._api.get(self.reference)
            if now is None or _version(now) != _version(found):
                raise self._locked(str(found["data"].get("holder", "")))

    def load(self) -> Record | None:
        """Return the record as it was acquired; None if no change is in progress."""
        return self._record

    def save(self, record: Record | None) -> None:
        """Write the record; None ends the change. Raises the error of `locked`."""
        self._record = record
        self._write()
        if record is None:
            self._delete()
            self._live = None

    def heartbeat(self) -> None:
        """Write the record if a quarter of the lease has passed. Raises the error of `locked`."""
        if time.monotonic() - self._written >= self._lease / 4:
            self._write()

    def release(self) -> None:
        """Let the next command continue at once; if that fails, it waits for the lease to end."""
        if self._live is None:
            return
        try:
            if self._record is None:
                self._delete()
            else:
                self._holder = ""
                self._write()
        except LapwingError:
            pass
        self._live = None

    def _delete(self) -> None:
        assert self._live is not None
        self._api.delete(self.reference, uid=str(self._live["metadata"]["uid"]))

    def _write(self) -> None:
        if self._live is None:
            return
        change = self._document()
        change["metadata"] = {"resourceVersion": _version(self._live)}
        try:
            self._live = self._api.patch(self.reference, change)
        except ClusterError as error:
            if error.reason in ("Conflict", "NotFound"):
                raise self._locked("") from error
            raise
        self._written = time.monotonic()

    def _document(self) -> dict[str, Any]:
        data = {
            "record": msgspec.json.encode(self._record).decode() if self._record else "",
            "before": json.dumps(self.before),
            "id": self.id,
            "holder": self._holder,
            "sign": secrets.token_hex(4),  # The heartbeat: an equal document changes no version.
        }
        metadata = {"name": self.reference.name, "namespace": self.reference.namespace}
        thing = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
        return self._scope.with_labels(thing)


def _version(thing: Object) -> str:
    return str(thing["metadata"]["resourceVersion"])
