"""The checklist of `lapwing verify` for an environment on a cluster.

What controllers say is read from the API; databases and the edge are asked themselves, through the
API server's port-forward, in their own protocols. A check that cannot be made (a right is missing,
a password cannot be read) is said to be so: `ok` is None, which is not passed.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import ssl
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lapwing.errors import ClusterError, ClusterUnreachableError, KindMissingError
from lapwing.kubernetes import actions, health, pods, port_forward, problems, protocols, wait
from lapwing.kubernetes.objects import Object, Reference
from lapwing.kubernetes.pods import Pod
from lapwing.kubernetes.tunnel import TunnelDialer, TunnelError
from lapwing.plan.names import COMPONENT, NAME
from lapwing.stack.resource_reference import PORTS

if TYPE_CHECKING:
    from lapwing.kubernetes.apply import Scope
    from lapwing.kubernetes.client import ApiClient

LAST_LINES = 8
SOON = datetime.timedelta(days=14)
"""How near the end of a certificate is a failed check: who renews them does so earlier."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check: what was asked, whether it holds (None: it could not be asked), what was seen, and
    the last lines of a log that tell more."""

    check: str
    ok: bool | None
    seen: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the stack file says to ask: paths by the name of the service, and the host of them."""

    paths: dict[str, str]
    host: str


def verify(api: ApiClient, scope: Scope, asked: Asked) -> Iterator[CheckResult]:
    """Run the checks one after another.

    Raises ClusterUnreachableError or ClusterLoginError if the API server cannot be queried at all.
    """
    yield CheckResult("the API server answers", True, api.version())
    space = api.get(Reference("v1", "Namespace", "", scope.namespace))
    phase = ((space or {}).get("status") or {}).get("phase", "is not there")
    yield CheckResult(f"namespace {scope.namespace} is there", phase == "Active", str(phase))
    if space is None:
        return
    workloads = [w for k in actions.WORKLOADS for w in _listed(api, scope, *k)]
    there = pods.of_scope(api, scope)
    yield from _workloads(api, workloads, there)
    yield from _secrets(api, scope, workloads)
    yield from _certificates(api, scope)
    yield from asyncio.run(_by_asking(api, workloads, there, asked))


def _listed(api: ApiClient, scope: Scope, version: str, kind: str) -> list[Object]:
    try:
        return api.list(version, kind, scope.namespace, scope.selector)
    except KindMissingError:
        return []


# What controllers and kubelets say


def _workloads(
    api: ApiClient, workloads: Sequence[Object], there: Sequence[Pod]
) -> Iterator[CheckResult]:
    if not workloads:
        yield CheckResult("anything of the stack is there", False, "nothing was applied")
    for workload in workloads:
        name, state = _name(workload), health.judge(workload)
        own = [i.pod for i in there if i.service == name]
        found = problems.of_pods(own)
        well = state.state in ("ready", "held")
        if workload["kind"] == "Job":
            troubles = [] if state.state == "ready" else found
            yield CheckResult(
                f"{name}: the job is done",
                state.state == "ready",
                _seen(state.text, troubles),
                _lines(api, workload, troubles),
            )
            continue
        crashing = [t for t in found if t.container]
        yield CheckResult(
            f"{name}: every pod is ready",
            well and not crashing,
            _seen(state.text or f"{state.ready} of {state.wanted} pods ready", found),
            _lines(api, workload, found),
        )


def _seen(text: str, found: Sequence[problems.Problem]) -> str:
    return "; ".join([text, *(t.text for t in found[:2])])


def _lines(api: ApiClient, workload: Object, found: Sequence[problems.Problem]) -> str:
    """The last lines of what is in trouble, where a log may tell more."""
    first = next((t for t in found if t.container), None)
    if first is None:
        return ""
    return wait.last_lines(api, workload["metadata"]["namespace"], first, LAST_LINES)


def needed_secrets(workloads: Iterable[Object]) -> dict[str, set[str]]:
    """The Secrets that pods refer to, and the keys that must be in them. Pure."""
    found: dict[str, set[str]] = {}
    for workload in workloads:
        spec = workload["spec"]["template"]["spec"]
        for container in (*(spec.get("initContainers") or ()), *spec["containers"]):
            for variable in container.get("env") or ():
                reference = (variable.get("valueFrom") or {}).get("secretKeyRef")
                if reference and not reference.get("optional"):
                    found.setdefault(reference["name"], set()).add(reference["key"])
        for volume in spec.get("volumes") or ():
            if "secret" in volume and not volume["secret"].get("optional"):
                found.setdefault(volume["secret"]["secretName"], set())
    return found


def _secrets(api: ApiClient, scope: Scope, workloads: Sequence[Object]) -> Iterator[CheckResult]:
    for name, keys in sorted(needed_secrets(workloads).items()):
        check = f"secret {name} is there"
        try:
            there = api.get(Reference("v1", "Secret", scope.namespace, name))
        except ClusterError as error:
            yield CheckResult(check, None, error.message)
            continue
        missing = sorted(keys - set((there or {}).get("data") or {}))
        if there is None:
            yield CheckResult(check, False, "it is missing")
        elif missing:
            yield CheckResult(check, False, f"it lacks {', '.join(missing)}")
        else:
            yield CheckResult(check, True, f"with {', '.join(sorted(keys)) or 'its files'}")


def _certificates(api: ApiClient, scope: Scope) -> Iterator[CheckResult]:
    """Certificates that others look after: cert-manager, or Google Cloud."""
    for version, kind in (
        ("cert-manager.io/v1", "Certificate"),
        ("networking.gke.io/v1", "ManagedCertificate"),
    ):
        try:
            found = api.list(version, kind, scope.namespace)
        except KindMissingError:
            continue
        for thing in found:
            said = thing.get("status") or {}
            ready = [c for c in said.get("conditions") or () if c["type"] == "Ready"]
            ok = said.get("certificateStatus") == "Active" or any(
                c["status"] == "True" for c in ready
            )
            seen = said.get("certificateStatus") or next((c.get("message") for c in ready), "")
            yield CheckResult(
                f"{Reference.of(thing)} is issued", ok, str(seen or "not seen by its controller")
            )


# What servers say themselves


async def _by_asking(
    api: ApiClient, workloads: Sequence[Object], there: Sequence[Pod], asked: Asked
) -> list[CheckResult]:
    dialer = TunnelDialer(api)
    made: list[CheckResult] = []
    for workload in workloads:
        kind = str((workload["metadata"].get("labels") or {}).get(COMPONENT, ""))
        if kind in pods.RESOURCES:
            made += await _database(api, dialer, workload, kind, there)
    if any(i.component == pods.EDGE for i in there):
        made += await _edge(dialer, there, asked)
    return made


async def _database(
    api: ApiClient, dialer: TunnelDialer, workload: Object, kind: str, there: Sequence[Pod]
) -> list[CheckResult]:
    name = _name(workload)
    found = port_forward.candidates(list(there), name)
    if not found:
        return [CheckResult(f"{name}: {kind} answers", False, "no pod of it is ready")]
    pod, port = found[0], port_forward.port_of(found[0]) or PORTS[kind]
    if kind == "redis":
        return await _cache(api, dialer, workload, pod, port)

    async def talk() -> str:
        stream = await dialer.open(pod.namespace, pod.name, port)
        try:
            if kind == "mysql":
                return f"version {await protocols.mysql(stream)}"
            if kind == "mongodb":
                return (
                    "it takes writes" if await protocols.mongodb(stream) else "it takes no writes"
                )
            await protocols.postgres(stream)
            return "it answers"
        finally:
            await stream.close()

    finding = await _made(f"{name}: {kind} answers", talk)
    return [finding] if finding.seen != "it takes no writes" else [_but_not(finding)]


def _but_not(finding: CheckResult) -> CheckResult:
    return CheckResult(finding.check, False, finding.seen)


async def _cache(
    api: ApiClient, dialer: TunnelDialer, workload: Object, pod: Pod, port: int
) -> list[CheckResult]:
    name = _name(workload)
    answers, used = f"{name}: redis answers", f"{name}: redis is used"
    try:
        password = await asyncio.to_thread(_password, api, workload)
    except ClusterError as error:
        return [
            CheckResult(answers, None, error.message),
            CheckResult(used, None, "it was not asked"),
        ]
    seen: list[protocols.Cache] = []

    async def talk() -> str:
        stream = await dialer.open(pod.namespace, pod.name, port)
        try:
            seen.append(await protocols.redis(stream, password))
        finally:
            await stream.close()
        return f"version {seen[0].version}"

    first = await _made(answers, talk)
    if not seen:
        return [first, CheckResult(used, None, "it was not asked")]
    c = seen[0]
    told = f"{c.clients} clients, {c.keys} keys, {c.hits} hits, {c.misses} misses"
    return [first, CheckResult(used, c.used, told)]


def _password(api: ApiClient, workload: Object) -> str | None:
    """The password of a database, from the Secret that its own pod takes it from; None if it has
    none. Raises ClusterError."""
    containers = workload["spec"]["template"]["spec"]["containers"]
    for variable in containers[0].get("env") or ():
        reference = (variable.get("valueFrom") or {}).get("secretKeyRef")
        if reference and reference["key"] == "password":
            namespace = workload["metadata"]["namespace"]
            secret = api.get(Reference("v1", "Secret", namespace, reference["name"]))
            value = ((secret or {}).get("data") or {}).get("password")
            if value is None:
                raise ClusterError(f"secret {reference['name']} has no password")
            return base64.b64decode(value).decode()
    return None


async def _edge(dialer: TunnelDialer, there: Sequence[Pod], asked: Asked) -> list[CheckResult]:
    found = port_forward.candidates(list(there), pods.EDGE)
    port = port_forward.port_of(found[0]) if found else None
    if port is None:
        return [CheckResult("the edge answers", False, "no pod of it is ready")]
    pod = found[0]
    try:
        tls = await port_forward.speaks_tls(dialer, found, port)
    except ClusterError as error:
        return [_failed("the edge answers", error)]
    made = []
    if tls:
        made.append(await _certificate(dialer, pod, port))
    for name, path in sorted(asked.paths.items()):

        async def talk(path: str = path) -> str:
            open_ = dialer.secured if tls else dialer.open
            stream = await open_(pod.namespace, pod.name, port)
            try:
                return str(await protocols.http(stream, asked.host, path))
            finally:
                await stream.close()

        finding = await _made(f"{name}: GET {path} through the edge", talk)
        refused = finding.ok and int(finding.seen) >= 400
        made.append(_but_not(finding) if refused else finding)
    return made


async def _certificate(dialer: TunnelDialer, pod: Pod, port: int) -> CheckResult:
    ends: list[datetime.datetime] = []

    async def talk() -> str:
        from cryptography import x509

        stream = await dialer.secured(pod.namespace, pod.name, port)
        await stream.close()
        assert stream.certificate is not None
        ends.append(x509.load_der_x509_certificate(stream.certificate).not_valid_after_utc)
        return f"until {ends[0]:%Y-%m-%d}"

    finding = await _made("the edge's certificate is valid", talk)
    over = ends and ends[0] < datetime.datetime.now(datetime.UTC) + SOON
    return _but_not(finding) if over else finding


async def _made(check: str, talk: Callable[[], Awaitable[str]]) -> CheckResult:
    """A check made by talking to a server."""
    try:
        async with asyncio.timeout(protocols.LATE):
            return CheckResult(check, True, await talk())
    except TimeoutError:
        return CheckResult(check, False, f"no answer within {protocols.LATE:.0f} s")
    except (protocols.ProtocolError, ClusterError, ssl.SSLError) as error:
        return _failed(check, error)


def _failed(check: str, error: Exception) -> CheckResult:
    """A server that does not answer fails the check; a cluster that does not let us ask does not
    tell."""
    told = isinstance(error, TunnelError) or not isinstance(error, ClusterError)
    return CheckResult(check, False if told else None, str(error))


def _name(workload: Object) -> str:
    labels: dict[str, Any] = workload["metadata"].get("labels") or {}
    return str(labels.get(NAME) or workload["metadata"]["name"])


def away(error: ClusterError) -> CheckResult:
    """The one finding of a cluster that does not answer."""
    ok = False if isinstance(error, ClusterUnreachableError) else None
    return CheckResult("the API server answers", ok, error.message)
