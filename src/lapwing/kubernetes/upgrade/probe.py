"""Start a version once without traffic, to see whether it supports the schema of the data."""

from __future__ import annotations

from collections.abc import Callable

from lapwing.errors import DeploymentFailed
from lapwing.kubernetes import problems
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.objects import Object, Reference, condition
from lapwing.kubernetes.upgrade import objects
from lapwing.kubernetes.upgrade.plan import UpgradePlan
from lapwing.kubernetes.upgrade.states import Probe
from lapwing.kubernetes.wait import ResourceWaiter

LOG_LINES = 2000
"""Lines to read: a server warns of unknown migrations at its start, before its other output."""


def probe(
    api: ApiClient,
    plan: UpgradePlan,
    waiter: ResourceWaiter,
    report: Callable[[str], None],
    deadline: float | None = None,
) -> Probe:
    """Start a version once, without traffic, and see whether it is healthy or exits.

    It has `deadline` seconds to become healthy, by default those of its workload.
    """
    pod = objects.probe(plan)
    report(f"starting {plan.image} without traffic, to check for migrations")
    waiter.delete(Reference.of(pod))
    api.create(pod)
    found: list[Probe] = []
    default = int(plan.own["spec"]["progressDeadlineSeconds"])
    limit = default if deadline is None else deadline

    def log() -> str:
        return api.log(plan.namespace, str(pod["metadata"]["name"]), "main", lines=LOG_LINES)

    def look() -> str | None:
        found[:] = _results(api.get(Reference.of(pod)), log)
        return None if found else f"{plan.image} is starting"

    try:
        waiter.until(look, limit)
    except DeploymentFailed:
        return Probe(False, None, log() or "It did not become healthy in time.")
    finally:
        waiter.delete(Reference.of(pod))
    return found[0]


def _results(pod: Object | None, log: Callable[[], str]) -> list[Probe]:
    """Return what a pod has shown; nothing while it is starting."""
    if pod is None:
        return [Probe(False, None, "Its pod was deleted.")]
    if condition(pod, "Ready").get("status") == "True":
        return [Probe(True, None, log())]
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        ended = (status.get("state") or {}).get("terminated")
        if ended:
            output = log() or ended.get("message", "")
            return [Probe(False, int(ended.get("exitCode", 0)), output)]
    final = [p for p in problems.of_pods([pod]) if p.final]
    return [Probe(False, None, final[0].text)] if final else []
