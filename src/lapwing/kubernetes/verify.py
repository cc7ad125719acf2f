"""The checks of `lapwing verify` for an environment in a cluster.

Controllers report through the API; databases and the edge are probed in their own protocols,
through the API server's port-forward. A check that cannot be made (a permission is missing, a
password cannot be read) has the result None, which does not pass.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import ssl
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from lapwing.errors import ClusterError, ClusterUnreachableError
from lapwing.kubernetes import health, pods, port_forward, problems, protocols, wait
from lapwing.kubernetes.applyset import Scope
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.objects import Object, Reference, condition, label, pod_spec
from lapwing.kubernetes.pods import Pod
from lapwing.kubernetes.status import list_workloads, service_name
from lapwing.kubernetes.tunnel import Stream, TlsTunnel, TunnelDialer, TunnelError
from lapwing.observed.checks import CheckResult
from lapwing.plan.names import COMPONENT
from lapwing.stack.resource_reference import PORTS

LOG_LINES = 8
MIN_VALIDITY = datetime.timedelta(days=14)
"""A certificate that expires earlier fails its check: issuers renew them before."""
CERTIFICATE_KINDS = (
    ("cert-manager.io/v1", "Certificate"),
    ("networking.gke.io/v1", "ManagedCertificate"),
)
API_SERVER = "API server responds"
NOT_CHECKED = "not checked"
Connection = TypeVar("Connection", bound=Stream)


@dataclass(frozen=True, slots=True)
class EdgeRequests:
    """Requests to make through the edge: the path of each service, and their host.

    A service in `without_health` may respond with 4xx: 404 is normal for the route of an API.
    """

    paths: dict[str, str]
    host: str
    without_health: frozenset[str] = frozenset()


def verify(api: ApiClient, scope: Scope, requests: EdgeRequests) -> Iterator[CheckResult]:
    """Run the checks one after another.

    Raises ClusterUnreachableError or ClusterLoginError if the API server cannot be queried at all.
    """
    yield CheckResult(API_SERVER, True, api.version())
    namespace = api.get(scope.home)
    phase = str(((namespace or {}).get("status") or {}).get("phase", "missing"))
    yield CheckResult(f"namespace {scope.namespace} exists", phase == "Active", phase)
    if namespace is None:
        return
    workloads = list_workloads(api, scope)
    found = pods.list_pods(api, scope)
    yield from _check_workloads(api, workloads, found)
    yield from _check_autoscalers(api, scope)
    yield from _check_secrets(api, scope, workloads)
    yield from _check_certificates(api, scope)
    yield from asyncio.run(_probe_servers(api, workloads, found, requests))


def unreachable_result(error: ClusterError) -> CheckResult:
    """Return the one result for an API server that cannot be queried."""
    ok = False if isinstance(error, ClusterUnreachableError) else None
    return CheckResult(API_SERVER, ok, error.message)


# What controllers and kubelets report


def _check_workloads(
    api: ApiClient, workloads: Sequence[Object], found: Sequence[Pod]
) -> Iterator[CheckResult]:
    if not workloads:
        yield CheckResult("the stack is deployed", False, "no workloads")
    for workload in workloads:
        name, state = service_name(workload), health.judge(workload)
        troubles = problems.of_pods(p.pod for p in found if p.service == name)
        if workload["kind"] == "CronJob":
            continue
        if workload["kind"] == "Job":
            check, text, ok = "job completed", state.text, state.state == "ready"
            troubles = [] if ok else troubles
        else:
            check, text = "every pod is ready", state.text
            text = text or f"{state.ready} of {state.wanted} pods ready"
            ok = state.state in ("ready", "held") and not any(p.container for p in troubles)
        seen = "; ".join([text, *(p.text for p in troubles[:2])])
        logged = next((p for p in troubles if p.container), None)
        namespace = workload["metadata"]["namespace"]
        detail = wait.last_lines(api, namespace, logged, LOG_LINES) if logged else ""
        yield CheckResult(f"{name}: {check}", ok, seen, detail)


def _check_autoscalers(api: ApiClient, scope: Scope) -> Iterator[CheckResult]:
    """Check the minimum of pods, which an autoscaler requests and its workload does not specify."""
    kind = "HorizontalPodAutoscaler"
    try:
        scalers = api.list("autoscaling/v2", kind, scope.namespace, scope.selector)
    except ClusterError as error:
        yield CheckResult("autoscalers request the minimum of pods", None, error.message)
        return
    for scaler in scalers:
        state = health.judge_autoscaler(scaler, api.get(Reference.of_scale_target(scaler)))
        least = scaler["spec"].get("minReplicas", 1)
        check = f"{service_name(scaler)}: the minimum of pods is requested"
        yield CheckResult(check, state.state == "ready", state.text or f"at least {least}")


def needed_secrets(workloads: Iterable[Object]) -> dict[str, set[str]]:
    """Return the Secrets that pods need, with the keys that they must have."""
    found: dict[str, set[str]] = {}
    for workload in workloads:
        spec = pod_spec(workload)
        for container in (*(spec.get("initContainers") or ()), *spec["containers"]):
            for variable in container.get("env") or ():
                reference = (variable.get("valueFrom") or {}).get("secretKeyRef")
                if reference and not reference.get("optional"):
                    found.setdefault(reference["name"], set()).add(reference["key"])
        for volume in spec.get("volumes") or ():
            if "secret" in volume and not volume["secret"].get("optional"):
                found.setdefault(volume["secret"]["secretName"], set())
    return found


def _check_secrets(
    api: ApiClient, scope: Scope, workloads: Sequence[Object]
) -> Iterator[CheckResult]:
    for name, keys in sorted(needed_secrets(workloads).items()):
        check = f"secret {name} exists"
        try:
            found = api.get(Reference("v1", "Secret", scope.namespace, name))
        except ClusterError as error:
            yield CheckResult(check, None, error.message)
            continue
        missing = sorted(keys - set((found or {}).get("data") or {}))
        if found is None:
            yield CheckResult(check, False, "missing")
        elif missing:
            yield CheckResult(check, False, f"without key {', '.join(missing)}")
        else:
            yield CheckResult(check, True, f"with {', '.join(sorted(keys)) or 'its files'}")


def _check_certificates(api: ApiClient, scope: Scope) -> Iterator[CheckResult]:
    """Check certificates that cert-manager or Google Cloud issue."""
    for version, kind in CERTIFICATE_KINDS:
        for thing in api.list(version, kind, scope.namespace, missing_kind_ok=True):
            state = (thing.get("status") or {}).get("certificateStatus")
            ready = condition(thing, "Ready")
            ok = state == "Active" or ready.get("status") == "True"
            seen = state or ready.get("message") or "not seen by its controller"
            yield CheckResult(f"{Reference.of(thing)} is issued", ok, str(seen))


# What servers answer themselves


async def _probe_servers(
    api: ApiClient, workloads: Sequence[Object], found: Sequence[Pod], requests: EdgeRequests
) -> list[CheckResult]:
    dialer = TunnelDialer(api)
    results: list[CheckResult] = []
    for workload in workloads:
        kind = label(workload, COMPONENT)
        if kind in pods.RESOURCES:
            results += await _probe_database(api, dialer, workload, kind, found)
    if any(p.component == pods.EDGE for p in found):
        results += await _probe_edge(dialer, found, requests)
    return results


async def _probe_database(
    api: ApiClient, dialer: TunnelDialer, workload: Object, kind: str, found: Sequence[Pod]
) -> list[CheckResult]:
    name = service_name(workload)
    responds = f"{name}: {kind} responds"
    ready = port_forward.candidates(list(found), name)
    if not ready:
        return [CheckResult(responds, False, "no ready pod")]
    pod, port = ready[0], port_forward.port_of(ready[0]) or PORTS[kind]

    async def connect() -> Stream:
        return await dialer.open(pod.namespace, pod.name, port)

    if kind == "redis":
        return await _probe_redis(api, workload, connect)

    async def probe(stream: Stream) -> str:
        if kind == "mysql":
            return f"version {await protocols.mysql(stream)}"
        if kind == "mongodb":
            return "writable" if await protocols.mongodb(stream) else "read-only"
        await protocols.postgres(stream)
        return "speaks PostgreSQL's protocol"

    result = await _probe(responds, connect, probe)
    return [result if result.seen != "read-only" else msgspec.structs.replace(result, ok=False)]


async def _probe_redis(
    api: ApiClient, workload: Object, connect: Callable[[], Awaitable[Stream]]
) -> list[CheckResult]:
    name = service_name(workload)
    responds, is_used = f"{name}: redis responds", f"{name}: redis is used"
    try:
        password = await asyncio.to_thread(_password, api, workload)
    except ClusterError as error:
        return [
            CheckResult(responds, None, error.message),
            CheckResult(is_used, None, NOT_CHECKED),
        ]
    found: list[protocols.RedisInfo] = []

    async def probe(stream: Stream) -> str:
        found.append(await protocols.redis(stream, password))
        return f"version {found[0].version}"

    result = await _probe(responds, connect, probe)
    if not found:
        return [result, CheckResult(is_used, None, NOT_CHECKED)]
    info = found[0]
    seen = f"{info.clients} clients, {info.keys} keys, {info.hits} hits, {info.misses} misses"
    return [result, CheckResult(is_used, info.used, seen)]


def _password(api: ApiClient, workload: Object) -> str | None:
    """Return the password of a database from the Secret of its pod; None if it has none.

    Raises ClusterError.
    """
    for variable in pod_spec(workload)["containers"][0].get("env") or ():
        reference = (variable.get("valueFrom") or {}).get("secretKeyRef")
        if reference and reference["key"] == "password":
            namespace = workload["metadata"]["namespace"]
            secret = api.get(Reference("v1", "Secret", namespace, reference["name"]))
            value = ((secret or {}).get("data") or {}).get("password")
            if value is None:
                raise ClusterError(f"secret {reference['name']} has no password")
            return base64.b64decode(value).decode()
    return None


def probe_routes(api: ApiClient, scope: Scope, requests: EdgeRequests) -> list[CheckResult]:
    """Make the requests through the edge."""
    found = pods.list_pods(api, scope)
    return asyncio.run(_probe_edge(TunnelDialer(api), found, requests, certificate=False))


async def _probe_edge(
    dialer: TunnelDialer, found: Sequence[Pod], requests: EdgeRequests, *, certificate: bool = True
) -> list[CheckResult]:
    responds = "edge responds"
    ready = port_forward.candidates(list(found), pods.EDGE)
    port = port_forward.port_of(ready[0]) if ready else None
    if port is None:
        return [CheckResult(responds, False, "no ready pod")]
    pod = ready[0]
    try:
        tls = await port_forward.speaks_tls(dialer, ready, port)
    except ClusterError as error:
        return [_failed(responds, error)]

    async def connect() -> Stream:
        dial = dialer.open_tls if tls else dialer.open
        return await dial(pod.namespace, pod.name, port)

    results = [await _probe_certificate(dialer, pod, port)] if tls and certificate else []
    for name, path in sorted(requests.paths.items()):

        async def probe(stream: Stream, path: str = path) -> str:
            return str(await protocols.http(stream, requests.host, path))

        result = await _probe(f"{name}: GET {path} through the edge", connect, probe)
        limit = 500 if name in requests.without_health else 400
        is_refused = result.ok and int(result.seen) >= limit
        results.append(msgspec.structs.replace(result, ok=False) if is_refused else result)
    return results


async def _probe_certificate(dialer: TunnelDialer, pod: Pod, port: int) -> CheckResult:
    from cryptography import x509

    expiry: list[datetime.datetime] = []

    async def connect() -> TlsTunnel:
        return await dialer.open_tls(pod.namespace, pod.name, port)

    async def probe(stream: TlsTunnel) -> str:
        assert stream.certificate is not None
        expiry.append(x509.load_der_x509_certificate(stream.certificate).not_valid_after_utc)
        return f"until {expiry[0]:%Y-%m-%d}"

    result = await _probe("the edge's certificate is valid", connect, probe)
    expires_soon = expiry and expiry[0] < datetime.datetime.now(datetime.UTC) + MIN_VALIDITY
    return msgspec.structs.replace(result, ok=False) if expires_soon else result


async def _probe(
    check: str,
    connect: Callable[[], Awaitable[Connection]],
    probe: Callable[[Connection], Awaitable[str]],
) -> CheckResult:
    """Make a check over a connection to a server."""
    try:
        async with asyncio.timeout(protocols.RESPONSE_TIMEOUT_S):
            stream = await connect()
            try:
                return CheckResult(check, True, await probe(stream))
            finally:
                await stream.close()
    except TimeoutError:
        return CheckResult(check, False, f"no response in {protocols.RESPONSE_TIMEOUT_S:.0f} s")
    except (protocols.ProtocolError, ClusterError, ssl.SSLError) as error:
        return _failed(check, error)


def _failed(check: str, error: Exception) -> CheckResult:
    """Return a failed check if the server failed, none if the cluster refuses to let us ask."""
    is_answer = isinstance(error, TunnelError) or not isinstance(error, ClusterError)
    return CheckResult(check, False if is_answer else None, str(error))
