"""Acting on a cluster and waiting until it is so, however long: what an upgrade is made of.

A step may last for hours, so the API server may go away and come back meanwhile; that is no failure
of the step until it has lasted for `AWAY`. At every look `live_on` is called, which says that the
command lives (see `upgrade_record.py`) and raises where another has taken over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from lapwing.errors import ClusterUnreachableError, DeploymentFailed
from lapwing.kubernetes import health, wait
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.objects import Object, Reference

AWAY = 120.0
"""Seconds that the API server may not answer in the midst of a step."""
ENDS = 300.0
"""Seconds beyond its own grace that a pod may take to end."""
LONGEST = 12 * 3600.0
"""Seconds that any wait may take: a backup, a restore, a migration."""
ENDED = ("Succeeded", "Failed")
JOB_PATIENCE = 60.0
"""Seconds that a Job's pod may be in trouble: its image may have to be pulled first."""


class ResourceWaiter:
    """Acts that return when they are done. `tell` gets a line for whatever is waited for."""

    def __init__(
        self,
        api: ApiClient,
        live_on: Callable[[], None],
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.api, self.live_on, self.tell = api, live_on, tell

    def until(self, look: Callable[[], str | None], seconds: float) -> None:
        """Call `look` until it has nothing more to wait for. Raises DeploymentFailed after
        `seconds`, and whatever `look` raises."""
        began, away_since, told = time.monotonic(), None, ""
        while True:
            now = time.monotonic()
            try:
                self.live_on()
                text = look()
                away_since = None
            except ClusterUnreachableError:
                away_since = away_since or now
                if now - away_since > AWAY:
                    raise
                text = "the cluster does not answer"
            if text is None:
                return
            if text != told:
                self.tell(text)
                told = text
            if now - began > seconds:
                raise DeploymentFailed(f"It did not end within {seconds:.0f} s: {text}.")
            time.sleep(wait.LOOK)

    def ready(self, references: Sequence[Reference], *, patience: float = 20.0) -> None:
        """Wait until objects are ready. A trouble that waiting does not cure may last `patience`
        seconds. Raises DeploymentFailed with what is wrong."""
        troubled: dict[str, float] = {}

        def look() -> str | None:
            states = wait.look(self.api, references)
            failed = {r: h for r, h in states.items() if h.state == "failed" and not h.may_pass}
            if failed:
                raise wait.give_up(self.api, failed, wait.troubles(self.api, failed))
            pending = {r: h for r, h in states.items() if h.state != "ready"}
            for held in (r for r, h in pending.items() if h.state == "held"):
                # Nobody is served meanwhile, so there is nothing to hold it for.
                self.api.patch(held, {"status": {"pauseConditions": None}}, subresource="status")
            now = time.monotonic()
            found = [t for t in wait.troubles(self.api, pending) if t.final]
            for text in troubled.keys() - {t.text for t in found}:
                del troubled[text]
            lasting = [t for t in found if now - troubled.setdefault(t.text, now) >= patience]
            if lasting:
                raise wait.give_up(self.api, pending, lasting)
            return wait.progress(pending) if pending else None

        self.until(look, LONGEST)

    def done(self, job: Object) -> Object:
        """Wait for a Job; returns it. Raises DeploymentFailed with its last lines."""
        self.ready([Reference.of(job)], patience=JOB_PATIENCE)
        found = self.api.get(Reference.of(job))
        if found is None:
            raise DeploymentFailed(f"{Reference.of(job)} was removed by somebody.")
        return found

    def remove(self, reference: Reference) -> None:
        """Delete an object; returns when it, its ReplicaSets and its pods are gone."""
        uids: set[str] = set()

        def look() -> str | None:
            found = self.api.get(reference)
            if found is None:
                return self._left(reference, uids)
            uids.add(found["metadata"]["uid"])
            if not found["metadata"].get("deletionTimestamp"):
                self.api.delete(reference, uid=found["metadata"]["uid"])
            return f"{reference} goes"

        self.until(look, ENDS)

    def _left(self, reference: Reference, uids: set[str]) -> str | None:
        """What an object that is gone has left; it is found by whom it belongs to."""
        if not uids:
            return None
        sets = self.api.list("apps/v1", "ReplicaSet", reference.namespace)
        owned = [s for s in sets if owner(s) in uids]
        uids |= {s["metadata"]["uid"] for s in owned}
        pods = [p for p in self.api.list("v1", "Pod", reference.namespace) if owner(p) in uids]
        return f"pods of {reference} end" if owned or pods else None

    def scale(self, reference: Reference, count: int) -> None:
        """Give a workload that is there this many replicas."""
        live = self.api.get(reference)
        if live is not None and health.replicas_wanted(live["spec"]) != count:
            self.api.patch(reference, {"spec": {"replicas": count}})

    def no_pods(self, namespace: str, selector: str) -> None:
        """Wait until no pod with these labels runs."""

        def look() -> str | None:
            left = [
                p["metadata"]["name"]
                for p in self.api.list("v1", "Pod", namespace, selector)
                if (p.get("status") or {}).get("phase") not in ENDED
            ]
            return f"waiting for {', '.join(sorted(left)[:3])} to end" if left else None

        self.until(look, ENDS)


def owner(thing: Object) -> str:
    """The unique id of what an object belongs to. Pure."""
    owners = thing["metadata"].get("ownerReferences") or ()
    return str(owners[0]["uid"]) if owners else ""
