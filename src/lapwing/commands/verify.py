"""Verify: check a running stack from the outside, whether it does what its status reports.

On a machine every request goes through Envoy's port with TLS, as a client's would. On a cluster the
pods are asked through the Kubernetes API.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lapwing.agent import basic_auth, restores
from lapwing.desired.secrets import SecretStore
from lapwing.errors import ClusterLoginError, ClusterUnreachableError
from lapwing.observed.checks import CheckResult
from lapwing.observed.status import Status
from lapwing.plan.model import Document
from lapwing.settings import Settings
from lapwing.targets.base import Target, never_deployed
from lapwing.targets.machine import MachineTarget

if TYPE_CHECKING:
    from lapwing.targets.argocd import ArgoCDTarget
    from lapwing.targets.kubernetes import KubernetesTarget

REQUEST_TIMEOUT_S = 5.0


def verify(target: Target) -> list[CheckResult]:
    """Check a running stack. Raises UsageError if it was never deployed."""
    if not isinstance(target, MachineTarget):
        return _verify_cluster(target)  # type: ignore[arg-type]
    data = target.settings.data / target.ref.stack / target.ref.environment
    if restoring := restores.in_progress(data):
        seen = f"{restoring.description} is being restored; clients get status 503 until it ends"
        return [CheckResult("no restore is in progress", False, seen)]
    status = target.read_status()
    document = target.repository.read(target.ref.stack, target.ref.environment)
    if status is None or document is None:
        raise never_deployed(target.ref)
    return list(verify_machine(target.settings, status, document))


def _verify_cluster(target: ArgoCDTarget | KubernetesTarget) -> list[CheckResult]:
    from lapwing.kubernetes import verify as checks

    loaded = target.file.load(target.ref.environment, folders=False)
    services = loaded.stack.services.items()
    paths = {n: s.health.path or s.route for n, s in services if s.route}
    bare = frozenset(n for n, s in services if s.kind == "web" and s.health.path is None)
    domain = urlsplit(f"https://{loaded.settings.domain or 'localhost'}").netloc
    requests = checks.EdgeRequests(paths, domain, bare)
    results: list[CheckResult] = []
    with target.cluster.connect() as api:
        try:
            results += checks.verify(api, target.cluster.scope, requests)
        except (ClusterUnreachableError, ClusterLoginError) as error:
            results.append(checks.unreachable_result(error))
    return results


def verify_machine(settings: Settings, status: Status, document: Document) -> Iterator[CheckResult]:
    """Yield the checks of a machine one after another."""
    import httpx

    from lapwing.agent import checks
    from lapwing.observed import agent

    alive = agent.is_running(settings.agent)
    yield CheckResult("the agent is running", alive, "running" if alive else "not running")
    authority = settings.certificates / "ca.pem"
    try:
        context = ssl.create_default_context(cafile=str(authority))
    except OSError:
        yield CheckResult("the certificate authority exists", False, f"{authority} is missing")
        return
    for service in status.services:
        if service.kind == "job":
            continue
        active = service.active
        ready = f"{active.ready} of {active.replicas} replicas ready" if active else "not running"
        ok = active is not None and active.ready == active.replicas
        yield CheckResult(f"{service.name}: every replica is ready", ok, ready)
        wanted = document.services.get(service.name)
        if wanted is not None and active is not None:
            same = active.release == wanted.release
            seen = f"{active.release} is running"
            if not same:
                seen += f", {wanted.release} is desired"
            yield CheckResult(f"{service.name}: the desired release is running", same, seen)
    if document.basic_auth:
        problem = basic_auth.problem(document, SecretStore(settings.secrets))
        yield CheckResult("users of `access`: they can log in", problem is None, problem or "yes")
    host = document.domains[0] if document.domains else "localhost"
    address = settings.own_address()
    with httpx.Client(verify=context, trust_env=False, timeout=REQUEST_TIMEOUT_S) as client:
        for name, wanted in sorted(document.services.items()):
            if wanted.route is None:
                continue
            path = wanted.health.path or wanted.route
            limit = checks.status_limit(wanted)
            result = _ask(client, f"{name}: GET {path}", address, settings.port, host, path, limit)
            access = wanted.access or (document.edge and document.edge.access)
            if access and result.seen.startswith(("401", "403")):
                result = CheckResult(result.check, True, f"{result.seen}, limited by `access`")
            elif document.maintenance and result.seen.startswith("503"):
                end = f"`lapwing maintenance off -e {document.environment}`"
                seen = f"{result.seen}: maintenance is on; run {end} to end it"
                result = CheckResult(result.check, False, seen)
            yield result


def _ask(
    client: object, check: str, address: str, port: int, host: str, path: str, limit: int
) -> CheckResult:
    """Send a request; a status of `limit` or above is a failure."""
    import httpx

    assert isinstance(client, httpx.Client)
    try:
        answer = client.get(
            f"https://{address}:{port}{path}",
            headers={"host": f"{host}:{port}"},
            extensions={"sni_hostname": host},
        )
    except httpx.HTTPError as error:
        return CheckResult(check, False, f"{type(error).__name__}: {error}")
    took = answer.elapsed.total_seconds() * 1000
    return CheckResult(check, answer.status_code < limit, f"{answer.status_code} in {took:.0f} ms")
