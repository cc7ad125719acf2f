"""The document: what one environment of one stack should run.

A stack file is what users write: short, with defaults and overlays. This document is the result for
one environment, with every default filled in and every service identified by its release. One
commit in the desired-state repository changes one such document; the agent reads nothing else to
know what to run. Programs write and read it (and people read its diffs), so it is strict: an
unknown key is an error.

msgspec rather than pydantic here: the agent and `lapwing status` read these documents and must be
small and start fast (docs/decisions/0002-msgspec-for-documents.md).

Durations are seconds, sizes are bytes, rates are fractions from 0 to 1, cpu is in cores.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable, Iterable
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from lapwing.stack import cron

ServiceKind = Literal["web", "static", "worker", "job"]
ResourceKind = Literal["mongodb", "mysql", "redis", "postgres"]
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?\Z")]
"""A name as in the stack file. It becomes the name of a folder, so a pushed one is checked, too."""
EnvironmentName = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?(_[a-z0-9]([a-z0-9-]*[a-z0-9])?)?\Z",
        max_length=40,
    ),
]
"""The name of an environment: one of the stack file, or that of a branch (stack/branches.py)."""
ReleaseName = Annotated[str, msgspec.Meta(pattern=r"^[^./\x00-\x1f][^/\x00-\x1f]*\Z")]
DeploymentKind = Literal[
    "deploy", "promote", "rollback", "abort", "revert", "down", "maintenance", "restore"
]


MAX_PAGE_BYTES = 256 * 1024
"""The maximum size of a maintenance page: the desired state and Envoy's memory contain it."""
JOB_TIMEOUT_S = 600.0
"""How long a job may take where the stack file sets no timeout."""
HeaderValue = str | tuple[str, ...] | bool
"""What to do with a response header: the value to set, values to add, or False to remove it."""


class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of every part of the document: immutable, keyword-only, without unknown keys."""


class Health(Struct, frozen=True, kw_only=True):
    """When a replica counts as healthy.

    `GET path` answers 2xx or 3xx; without a path, its route is answered with any status below 500,
    by each of its worker processes. A worker without a health check is healthy when it has run for
    `settle` seconds. `host` is the Host header of the requests.
    """

    path: str | None = None
    host: str = "localhost"
    interval: float = 5.0
    timeout: float = 2.0
    start_timeout: float = 60.0
    settle: float = 1.0


class Smoke(Struct, frozen=True, kw_only=True):
    """One smoke test: an HTTP request to the preview address, or a command (exactly one)."""

    get: str | None = None
    expect: int = 200
    contains: str | None = None
    run: str | None = None
    timeout: float = 30.0


class Analysis(Struct, frozen=True, kw_only=True):
    """The limits for Envoy's counters, for `window` seconds after the switch.

    In a window with fewer than `min_requests` requests, the agent sends health checks instead.
    """

    window: float = 10.0
    max_error_rate: float | None = 0.05
    max_p95: float | None = None
    min_requests: int = 20


class Rollout(Struct, frozen=True, kw_only=True):
    """How a new release of a service gets traffic, and how the old one is retired."""

    smoke: tuple[Smoke, ...] = ()
    analysis: Analysis | None = None
    hold: bool = False
    keep_old: float = 600.0
    """How long the old slot stays warm for an instant rollback."""
    drain: float = 3600.0
    """How long an old replica may stay for connections that clients keep open."""
    stop_grace: float = 10.0
    """How long a replica may take between SIGTERM and SIGKILL."""


class Container(Struct, frozen=True, kw_only=True):
    """How the container of a service is run on a machine.

    `port` is the port that it listens on, `user` its numeric user, `scratch` the size of `/tmp`.
    """

    port: int | None = None
    user: int
    scratch: int | None = None


class Schedule(Struct, frozen=True, kw_only=True):
    """When a job runs: a cron schedule, which is due in a time zone.

    `start_within` is how late a run may start, in seconds.
    """

    cron: str
    timezone: str = "UTC"
    start_within: float = 3600.0

    def __post_init__(self) -> None:
        """Check what a pushed document schedules. Raises ValueError."""
        cron.parse(self.cron)
        cron.time_zone(self.timezone)


class Scale(Struct, frozen=True, kw_only=True):
    """How a machine scales a service, between `Service.replicas` and `max` replicas.

    `cpu` (cores) and `requests` (in progress) are what a replica should have on average. The number
    is lowered when it was too high for `down_after` seconds.
    """

    max: int
    cpu: float
    requests: float | None = None
    down_after: float = 300.0


class SecretVersion(Struct, frozen=True, kw_only=True):
    """A value in the encrypted store: a secret and its version."""

    secret: str
    version: str


class Access(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The clients whose requests are accepted: all, or those in the networks `allow`.

    `basic_auth` is the secret with the users for basic authentication.
    """

    allow: tuple[str, ...] = ()
    basic_auth: SecretVersion | None = None

    def __post_init__(self) -> None:
        """Check the networks of a pushed document. Raises ValueError."""
        for network in self.allow:
            ipaddress.ip_network(network)


class Service(Struct, frozen=True, kw_only=True):
    """One service as it should run.

    `secrets` maps a name to the version of its value; the value is only in the encrypted store.
    """

    kind: ServiceKind
    release: ReleaseName
    revision: str
    image: str | None = None
    """The reference of the image of the release, or the ID of one that was built here; None for a
    process."""
    container: Container | None = None
    """On a machine, how it runs as a container; None for a process."""
    artifact: str | UnsetType = UNSET
    """Where a machine pulls the release of a process or static service: a reference by digest."""
    command: str | None = None
    route: str | None = None
    health: Health = Health()
    replicas: int = 1
    """The number of replicas, or their least number with `scale`."""
    scale: Scale | UnsetType = UNSET
    """On a machine, its autoscaling; unset for a fixed number of replicas."""
    cpu: float | None = None
    memory: int | None = None
    env: dict[str, str] = {}
    secrets: dict[str, str] = {}
    needs: dict[str, str] = {}
    """Resource name to the version of its binding (`Resource.binding`)."""
    volumes: dict[Name, str] = {}
    """Volume name to its path, absolute or relative to the source folder."""
    spa: bool = True
    timeout: float | None = None
    """The longest a request may take, in seconds; None for no limit (streams)."""
    max_body: int | None = None
    """The largest request body that Envoy buffers, in bytes; None for streamed bodies."""
    schedule: Schedule | UnsetType = UNSET
    """When a job runs; unset for one that runs once, at a deployment."""
    migrates: Name | UnsetType = UNSET
    """The service whose offline migration this job is."""
    after: tuple[Name, ...] | UnsetType = UNSET
    """The services that a job runs after, once they have the traffic; unset: before the switch."""
    rollout: Rollout = Rollout()
    headers: dict[str, HeaderValue] | UnsetType = UNSET
    """Changes of the headers of its responses; names are lower-case."""
    access: Access | UnsetType = UNSET
    """Its access limits; unset: as in `Edge`."""

    @property
    def is_page(self) -> bool:
        """Report whether it serves a page, which is its smoke test if it has no other."""
        return self.kind == "static" and self.route is not None

    @property
    def runs_once(self) -> bool:
        """Report whether it is a job that runs at a deployment, and not on a schedule."""
        return self.kind == "job" and self.schedule is UNSET

    def replica_count(self, present: int) -> int:
        """Return how many replicas it should have now: with `scale`, `present` within limits."""
        if self.scale is UNSET:
            return self.replicas
        return max(self.replicas, min(present, self.scale.max))

    def identity(self) -> str:
        """Return a digest of what a running process depends on.

        If it is unchanged, the process is not restarted. Replica counts, rollout settings and the
        routes of `web` services are not part of it.
        """
        facts = (
            self.kind,
            self.release,
            self.image,
            self.command,
            sorted(self.env.items()),
            sorted(self.secrets.items()),
            sorted(self.needs.items()),
            self.spa,
            self.health.path,
            *sorted(self.volumes.items()),
        )
        prefix = (self.route,) if self.kind == "static" and self.route not in (None, "/") else ()
        limits = () if self.container is None else (self.container, self.cpu, self.memory)
        digest = hashlib.sha256(msgspec.json.encode((*facts, *prefix, *limits)))
        return digest.hexdigest()[:16]


class ResourceContainer(Struct, frozen=True, kw_only=True):
    """The container of a resource on a machine.

    `image` is that of the stack file, `digest` the reference by digest to which it resolved at its
    first deployment (the ID of an image that is in no registry), `memory` the memory limit.
    """

    image: str
    digest: str | None = None
    memory: int


class Resource(Struct, frozen=True, kw_only=True):
    """A resource and what it is bound to.

    `provider` is `url` (given by the user; the value is the secret `resource.<name>` of version
    `secret`), `binary` (a server program at `program`), `container` (one of this machine's engine),
    `embedded` (no server: the service gets a file URL under the data folder), `cluster` (a pod
    with a volume beside the services) or `machine` (what the machine that pulls has).
    """

    kind: ResourceKind
    version: str | None = None
    provider: Literal["url", "binary", "container", "embedded", "cluster", "machine"]
    program: str | None = None
    variable: str
    """The environment variable with the URL for services, such as DB_URL."""
    secret: str | None = None
    storage: int | None = None
    container: ResourceContainer | UnsetType = UNSET

    def binding(self) -> str:
        """Return a digest that changes whenever the URL may have changed."""
        facts = (self.kind, self.provider, self.variable, self.secret)
        return hashlib.sha256(msgspec.json.encode(facts)).hexdigest()[:8]


class Deployment(Struct, frozen=True, kw_only=True):
    """The kind of this deployment.

    `restores` is the commit whose document it restores, `restored` the part whose data `restore`
    has replaced: a resource or a volume.
    """

    kind: DeploymentKind = "deploy"
    actor: str
    revision: str = ""
    hold: bool = False
    restores: str | None = None
    restored: str | None = None
    reason: str | None = None

    @property
    def is_forward(self) -> bool:
        """Whether this deploys what was built, not an earlier deployment."""
        return self.kind in ("deploy", "promote")


class Backup(Struct, frozen=True, kw_only=True):
    """The backups of an environment on a machine: when, how many are kept, and where.

    `endpoint` and `region` are for a bucket; `recipients` are those of age.
    """

    schedule: Schedule = Schedule(cron="@daily")
    keep: int = 7
    to: str | None = None
    endpoint: str | None = None
    region: str | None = None
    recipients: tuple[str, ...] = ()

    @property
    def in_bucket(self) -> bool:
        """Whether the backups are in a bucket of S3, not in a folder."""
        return self.to is not None and self.to.startswith("s3://")


class LogShipping(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where the logs of an environment on a machine are shipped: `journald`, or a URL of OTLP/HTTP.

    `headers` maps headers of the requests to the secrets with their present values.
    """

    to: str
    headers: dict[str, str] = {}


class Acme(Struct, frozen=True, kw_only=True):
    """The public authority that issues the certificate of a server (RFC 8555).

    `trusted` are the PEM certificates that the directory's own certificate is checked with.
    """

    email: str
    directory: str
    trusted: str | None = None


class Certificate(Struct, frozen=True, kw_only=True):
    """A certificate with its chain (PEM), and its private key."""

    chain: str
    key: SecretVersion


class Edge(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Settings of Envoy for an environment, besides the routes of its services.

    `redirects` maps host names to the domain that they are redirected to. `certificate` is one
    that the user provides. `headers` change the headers of all responses, `access` is that of
    services without one.
    """

    redirects: dict[str, str] = {}
    certificate: Certificate | None = None
    headers: dict[str, HeaderValue] = {}
    access: Access | None = None


class Maintenance(Struct, frozen=True, kw_only=True):
    """Maintenance mode: clients get `page` (HTML) with status 503 in place of every route.

    `actor` began it at `since` (ISO 8601, UTC). Clients may try again after `retry_after` seconds.
    With `restoring` it began with a restore, and ends when services get traffic again. With
    `has_message`, the page is that of a message and not of the stack file.
    """

    actor: str
    since: str
    page: str
    retry_after: float = 300.0
    restoring: bool = False
    has_message: bool = False


class Document(Struct, frozen=True, kw_only=True):
    """What one environment of one stack should run: the unit of a commit."""

    format: Literal[1] = 1
    stack: Name
    environment: EnvironmentName
    target: Literal["machine", "kubernetes"] = "machine"
    domains: tuple[str, ...] = ()
    deployment: Deployment
    services: dict[Name, Service] = {}
    resources: dict[Name, Resource] = {}
    acme: Acme | UnsetType = UNSET
    edge: Edge | UnsetType = UNSET
    backup: Backup | UnsetType = UNSET
    logs: LogShipping | UnsetType = UNSET
    maintenance: Maintenance | UnsetType = UNSET
    """Set during maintenance, which deployments neither begin nor end."""
    folder: str | UnsetType = UNSET
    """The folder of the stack file, if the document was committed from one on this machine."""

    @property
    def uses_containers(self) -> bool:
        """Report whether a service or a resource runs in a container of this machine."""
        return any(s.container is not None for s in self.services.values()) or any(
            r.provider == "container" for r in self.resources.values()
        )

    @property
    def lasting_maintenance(self) -> Maintenance | UnsetType:
        """The maintenance that the next deployment keeps: not that of a restore."""
        found = self.maintenance
        return UNSET if found and found.restoring else found

    @property
    def basic_auth(self) -> list[SecretVersion]:
        """The secrets with users of basic authentication."""
        given = [
            self.edge.access if self.edge else None,
            *(s.access for s in self.services.values()),
        ]
        return [access.basic_auth for access in given if access and access.basic_auth]

    def replace_users(self, find: Callable[[SecretVersion], SecretVersion]) -> Document:
        """Return this document with what `find` returns for each secret of `basic_auth`."""

        def found(access: Access) -> Access:
            given = access.basic_auth
            return access if given is None else replace(access, basic_auth=find(given))

        edge = self.edge
        if edge and edge.access:
            edge = replace(edge, access=found(edge.access))
        services = {
            name: replace(service, access=found(service.access)) if service.access else service
            for name, service in self.services.items()
        }
        return replace(self, edge=edge, services=services)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The domains and the host names that are redirected to them."""
        return (*self.domains, *(self.edge.redirects if self.edge else ()))

    @property
    def public_hosts(self) -> tuple[str, ...]:
        """Its host names that a certificate of a public authority or of a user has to cover."""
        return public_hosts(self.hosts)

    @property
    def with_previews(self) -> tuple[str, ...]:
        """Its host names, and those of the previews of its domains."""
        return (*self.hosts, *map(preview_of, self.domains))


def preview_of(domain: str) -> str:
    """Return the host name of the preview of a domain."""
    return f"preview.{domain}"


def public_hosts(hosts: Iterable[str]) -> tuple[str, ...]:
    """Return the host names that a certificate has to be valid for: those that are not local."""
    return tuple(host for host in hosts if not host.endswith(".localhost"))


def encode(document: Document) -> bytes:
    """Write a document as indented JSON with sorted keys, for readable diffs."""
    return msgspec.json.format(msgspec.json.encode(document, order="sorted"), indent=2) + b"\n"


def decode(data: bytes) -> Document:
    """Read a document. Raises msgspec.ValidationError or msgspec.DecodeError with the path."""
    try:
        return msgspec.json.decode(data, type=Document)
    except RecursionError as error:
        raise msgspec.DecodeError("it is nested too deeply") from error
