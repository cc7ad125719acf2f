"""Starts and stops the shippers of logs, as the documents of the environments describe."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from lapwing.agent.log_shipper import STATE, Key, Shipper, Wanted
from lapwing.desired.secrets import SecretStore
from lapwing.plan.model import Document
from lapwing.settings import Settings


class Shippers:
    """The shippers of all environments; `show` is called with a problem of one, None for none."""

    def __init__(
        self, settings: Settings, secrets: SecretStore, show: Callable[[Key, str | None], None]
    ) -> None:
        self._settings, self._secrets, self._show = settings, secrets, show
        self._running: dict[Key, Shipper] = {}
        self._without: set[Key] = set()

    def tick(self, documents: Mapping[Key, Document | None]) -> None:
        """Start and stop shippers as the documents describe, and show their problems."""
        for key, document in documents.items():
            try:
                self._tick(key, wanted_by(document))
            except (OSError, RuntimeError) as error:  # No thread can be started, for example.
                self._show(key, f"Logs are not shipped: {error}. The agent tries again.")

    def _tick(self, key: Key, wanted: Wanted | None) -> None:
        shipper = self._running.get(key)
        if shipper is None:
            if wanted is not None:
                self._running[key] = Shipper(key, wanted, self._settings, self._secrets)
            elif key not in self._without:  # What is written now is not shipped later.
                self._without.add(key)
                (self._settings.environment(*key) / STATE).unlink(missing_ok=True)
            return
        self._without.discard(key)
        if shipper.wanted != wanted:
            shipper.stop()
            if not shipper.alive:
                del self._running[key]
        self._show(key, shipper.problem if wanted is not None else None)

    def end(self, key: Key, timeout: float) -> None:
        """Stop the shipper of an environment that is removed; wait as `stop` does."""
        self._without.discard(key)
        shipper = self._running.pop(key, None)
        if shipper is not None:
            shipper.forget()
            shipper.join(timeout)

    def stop(self, timeout: float) -> None:
        """Stop all, and wait until their last attempts have ended, or for `timeout` seconds."""
        until = time.monotonic() + timeout
        for shipper in self._running.values():
            shipper.stop()
        for shipper in self._running.values():
            shipper.join(max(0.0, until - time.monotonic()))


def wanted_by(document: Document | None) -> Wanted | None:
    """Return what a document describes; None without `logs`."""
    if document is None or not document.logs:
        return None
    return Wanted(document.logs, frozenset(document.with_previews))
