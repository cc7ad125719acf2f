"""Wait until the routes of a deployment are answered through the edge.

Ready pods do not prove that: the edge may not have resolved the name of a new Service yet, a
network policy may block it, or a workload may be scaled to no pods. A 502, 503 or 504 is the answer
of the edge or of a service that is not available; any other status comes from the service.
"""

from __future__ import annotations

import itertools
import time

from lapwing.errors import DeploymentFailed
from lapwing.kubernetes import Report, verify
from lapwing.kubernetes.applyset import Scope
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.verify import EdgeRequests
from lapwing.kubernetes.wait import POLL

UNAVAILABLE = ("502", "503", "504")
TIMEOUT_S = 60.0


def wait_until_answered(
    api: ApiClient,
    scope: Scope,
    requests: EdgeRequests,
    *,
    report: Report,
    say: Report,
    timeout_s: float = TIMEOUT_S,
) -> None:
    """Request each path until none is answered as unavailable; `say` gets what was not checked.

    Raises DeploymentFailed after `timeout_s`.
    """
    until = time.monotonic() + timeout_s
    for attempt in itertools.count(1):
        results = verify.probe_routes(api, scope, requests)
        failed = [f"{r.check}: {r.seen}" for r in results if r.seen in UNAVAILABLE]
        if not failed:
            break
        if time.monotonic() > until:
            raise DeploymentFailed(
                f"Every pod is ready, but routes are not available: {'; '.join(failed)}.",
                hint=f"Run `lapwing verify -e {scope.environment}` for the state of each part.",
            )
        report("; ".join(failed))
        time.sleep(POLL.delay(attempt))
    unknown = next((r for r in results if not r.ok and not r.seen.isdigit()), None)
    if unknown is not None:
        say(f"The routes were not checked: {unknown.seen}")
