"""The record of an upgrade, in a ConfigMap, and who may act on it. No lock to clear by hand.

The record is saved before each act, with what ran before, so that any later command can go on or
go back. Whoever leads the upgrade says every few seconds that he lives by changing the object. A
command that finds a record watches it first: where it changes, somebody leads, and the command
leaves; where it stays the same for `LEASE`, that one is gone, and the command takes over. No clock
is compared. Every change names the version of the object that it was made from, so of two who take
over at once only one can, and one that was thought dead finds out before its next act.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from typing import Any

import msgspec

from lapwing.errors import ClusterError, ClusterUnreachableError, LapwingError
from lapwing.kubernetes.applyset import Scope
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.objects import Object, Reference
from lapwing.kubernetes.upgrade.driver import Record

LEASE = 15.0
"""Seconds without a sign of life after which another command may take over."""
NAME = "lapwing-upgrade"


class UpgradeLockedError(LapwingError):
    """Another command leads this upgrade at the moment."""

    code = "upgrade-led"
    http_status = 409


def reference(scope: Scope, service: str) -> Reference:
    """Where the record of an upgrade is."""
    return Reference("v1", "ConfigMap", scope.namespace, f"{NAME}-{service}")


def records_of(api: ApiClient, scope: Scope) -> list[str]:
    """The services whose upgrade is under way and has touched something."""
    found = api.list("v1", "ConfigMap", scope.namespace, scope.selector)
    ours = [c for c in found if str(c["metadata"]["name"]).startswith(f"{NAME}-")]
    return [c["metadata"]["name"].removeprefix(f"{NAME}-") for c in ours if c["data"].get("record")]


class Records:
    """The record of one service's upgrade. Take it before anything else, and give it back."""

    def __init__(
        self, api: ApiClient, scope: Scope, service: str, holder: str, lease: float
    ) -> None:
        self.reference = reference(scope, service)
        self.before: list[dict[str, Any]] = []
        """The objects that ran before, to apply again on the way back; saved with the record."""
        self.upgrade = secrets.token_hex(4)
        """What names of this upgrade's objects end in."""
        self._api, self._scope, self._holder, self._lease = api, scope, holder, lease
        self._record: Record | None = None
        self._live: Object | None = None
        self._said = 0.0

    def take(self, wait: Callable[[float], None] = time.sleep) -> None:
        """Become the one who leads. Raises UpgradeLockedError if somebody else does."""
        found = self._api.get(self.reference)
        if found is None:
            self._live = self._api.create(self._document())
            if self._live is not None:
                self._said = time.monotonic()
                return
            found = self._api.get(self.reference)
        if found is None:
            raise self._taken()
        if found["data"].get("holder"):
            found = self._see_still(found, wait)
        self._read(found)
        self._write()

    def _see_still(self, found: Object, wait: Callable[[float], None]) -> Object:
        """The record, once it has not changed for the time of a lease."""
        until = time.monotonic() + self._lease
        while time.monotonic() < until:
            wait(min(1.0, self._lease / 4))
            now = self._api.get(self.reference)
            if now is None or _version(now) != _version(found):
                raise self._taken(str(found["data"].get("holder", "")))
        return found

    def _read(self, found: Object) -> None:
        data = found["data"]
        self._live = found
        self.upgrade = str(data["upgrade"])
        self.before = json.loads(data["before"])
        said = data.get("record")
        self._record = msgspec.json.decode(said, type=Record) if said else None

    def load(self) -> Record | None:
        """The record as it was taken; None where no upgrade is under way."""
        return self._record

    def save(self, record: Record | None) -> None:
        """Write the record; None ends the upgrade. Raises UpgradeLockedError."""
        self._record = record
        self._write()
        if record is None:
            assert self._live is not None
            self._api.delete(self.reference, uid=str(self._live["metadata"]["uid"]))
            self._live = None

    def live_on(self) -> None:
        """Say that this command lives, if it is time to. Raises UpgradeLockedError."""
        if time.monotonic() - self._said >= self._lease / 4:
            self._write()

    def give_back(self) -> None:
        """Let the next command lead at once. Says nothing if that fails: it has only to wait."""
        if self._live is None:
            return
        try:
            if self._record is None:
                self._api.delete(self.reference, uid=str(self._live["metadata"]["uid"]))
            else:
                self._holder = ""
                self._write()
        except LapwingError:
            pass
        self._live = None

    def _write(self) -> None:
        if self._live is None:
            return
        change = self._document()
        change["metadata"] = {"resourceVersion": _version(self._live)}
        try:
            self._live = self._api.patch(self.reference, change)
        except ClusterUnreachableError:
            raise
        except ClusterError as error:
            if getattr(error, "reason", "") in ("Conflict", "NotFound"):
                raise self._taken() from error
            raise
        self._said = time.monotonic()

    def _document(self) -> dict[str, Any]:
        record = msgspec.json.encode(self._record).decode() if self._record else ""
        data = {
            "record": record,
            "before": json.dumps(self.before),
            "upgrade": self.upgrade,
            "holder": self._holder,
            "sign": secrets.token_hex(4),  # Of life: an equal document would change no version.
        }
        metadata = {"name": self.reference.name, "namespace": self.reference.namespace}
        thing = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
        return self._scope.with_labels(thing)

    def _taken(self, holder: str = "") -> UpgradeLockedError:
        by = f" by {holder}" if holder else ""
        return UpgradeLockedError(
            f"This upgrade is led{by} at the moment.",
            hint="`lapwing status` tells how it does. If that command is gone, deploy again in "
            f"{self._lease:.0f} s: it goes on where it was.",
        )


def _version(thing: Object) -> str:
    return str(thing["metadata"]["resourceVersion"])
