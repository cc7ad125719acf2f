"""The models of the stack file: services and resources.

One declaration feeds validation, the JSON Schema for editors and the reference page, so each field
has its description here and nowhere else. A field with a short form (`health: /healthz`,
`replicas: 2`) turns it into the long form before validation; other modules see only the long form.
Unknown keys are refused. Rules about more than one field are in `rules.py`.

After validation durations are seconds, sizes bytes, CPU cores, percentages fractions.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from lapwing.stack.build import Build
from lapwing.stack.delivery import Mirror, Registry, Release, Releases
from lapwing.stack.environment import Environment
from lapwing.stack.fields import (
    Access,
    ComputeResources,
    CronSchedule,
    Duration,
    Files,
    Headers,
    Name,
    NonEmpty,
    ObjectName,
    Percentage,
    Size,
    StrictModel,
    Text,
    TimeZone,
    UrlPath,
    Variable,
    short_form,
)
from lapwing.stack.pods import Pods
from lapwing.stack.rollout import Health, Migrate, Rollout
from lapwing.stack.scanning import Scan
from lapwing.stack.signing import Signing


class Buffering(StrictModel):
    """How Envoy passes requests to a service."""

    requests: bool = Field(
        True,
        description="Wait until the body of a request has arrived before a replica gets the "
        "request, so that slow clients do not occupy it. `false` streams bodies: for large uploads "
        "and for replies that begin before the request ends. Websockets are never buffered.",
    )
    max_request_body: Size = Field(
        32 * 2**20,
        gt=0,
        lt=2**32,
        description="The largest body that is buffered, in memory; the reply to a larger one "
        "is 413. Over HTTP/2, Envoy then resets the stream (NO_ERROR), which some clients, such as "
        "curl 7.88, report instead of the 413. Default: 32Mi.",
        examples=["64Mi"],
    )


SCALE_UP_CPU = 0.7
"""The share of the requested CPU at which replicas are added where `replicas.cpu` is not set."""
DEFAULT_SCALE_DOWN_S = 300.0
"""How long fewer replicas have to be enough. It is the default of Kubernetes, too."""


class Replicas(StrictModel):
    """The number of replicas of a service."""

    min: int = Field(1, ge=1, le=100, description="Minimum.")
    max: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="Maximum. Above `min`, replicas are added and removed with the load. On a "
        "machine, a replica is added only if enough memory is available.",
    )
    cpu: Percentage | None = Field(
        None,
        description="The CPU that a replica should use on average, as a share of `resources.cpu`; "
        "on a machine, of one core where that is not set. Default: 70%.",
    )
    requests: float | None = Field(
        None,
        ge=0.1,
        description="The requests in progress that a replica should have on average. Only on a "
        "machine: Kubernetes scales by CPU.",
    )
    scale_down_after: Duration = Field(
        DEFAULT_SCALE_DOWN_S,
        ge=0,
        le=3600,
        description="How long fewer replicas have to be enough before some are removed.",
    )

    @property
    def is_scaled(self) -> bool:
        """Report whether the number follows the load."""
        return self.max is not None and self.max > self.min


class Schedule(StrictModel):
    """When a job runs repeatedly."""

    cron: CronSchedule = Field(
        description="The schedule: minute, hour, day of the month, month and day of the week, as "
        "for cron, or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`.",
        examples=["*/5 * * * *"],
    )
    timezone: TimeZone = Field(
        "UTC", description="The time zone of the schedule.", examples=["Europe/Berlin"]
    )
    start_within: Duration = Field(
        3600.0,
        gt=0,
        description="A run that could not start on time (the machine was off) is started within "
        "this time, once; after it, the run is recorded as missed.",
    )
    suspend: bool = Field(
        False, description="Whether the schedule is suspended: no runs start (Kubernetes)."
    )


class Secret(StrictModel):
    """A secret that a service gets as an environment variable."""

    name: Variable = Field(description="The name of the environment variable.")
    generate: int | None = Field(
        None,
        ge=16,
        le=256,
        description="Generate the value once, with this number of characters. Without it, a value "
        "must be set with `lapwing secret set`.",
    )


def _kind_may_be_left_out(schema: dict[str, Any]) -> None:
    schema["required"] = [key for key in schema["required"] if key != "kind"]


class Service(StrictModel):
    """A service: built and released by Lapwing."""

    model_config = ConfigDict(json_schema_extra=_kind_may_be_left_out)

    kind: Literal["web", "static", "worker", "job"] = Field(
        description="`web` serves HTTP, `static` serves files, `worker` has no port, `job` runs "
        "once before the switch, or once after it (`after`), or on a `schedule`. Default: `static` "
        "with `static`, `job` with `schedule`, else `web` with `route`, else `worker`."
    )
    build: Annotated[Build | None, short_form("path", NonEmpty | Build)] = Field(
        None, description="The source folder, or build settings."
    )
    dockerfile: NonEmpty | None = Field(
        None,
        description="The Dockerfile of its image (containers), relative to the folder of `build`, "
        "without `build` to the stack file. Docker or Podman builds it in its folder; the "
        "variables of `build: {env: ...}` are build arguments.",
    )
    image: NonEmpty | None = Field(None, description="A prebuilt image.")
    runtime: Literal["process", "container"] | None = Field(
        None,
        description="How it runs on a machine: as a `process`, or as a `container` of Docker or "
        "Podman, with a read-only root file system and without capabilities. Default: `container` "
        "with `image` or with only a `dockerfile`, else the environment's `runtime`.",
    )
    command: NonEmpty | None = Field(None, description="The start command. It listens on `$PORT`.")
    static: NonEmpty | None = Field(
        None,
        description="The folder of built files, relative to the source folder.",
        examples=["dist"],
    )
    spa: bool = Field(True, description="Serve index.html for unknown paths of a static service.")
    route: UrlPath | None = Field(
        None, description="The path prefix of the requests routed to it.", examples=["/api"]
    )
    health: Annotated[Health, short_form("path", UrlPath | Health)] = Field(
        default_factory=Health, description="Health checks."
    )
    buffering: Annotated[
        Buffering,
        BeforeValidator(
            lambda value: value if isinstance(value, dict | Buffering) else {"requests": value},
            json_schema_input_type=bool | Buffering,
        ),
    ] = Field(
        default_factory=Buffering,
        description="Buffering of request bodies; `false` streams them.",
    )
    replicas: Annotated[Replicas, short_form("min", int | Replicas)] = Field(
        default_factory=Replicas, description="The number of replicas."
    )
    resources: ComputeResources = Field(
        default_factory=ComputeResources, description="CPU and memory requests of a replica."
    )
    schedule: Annotated[Schedule | None, short_form("cron", str | Schedule)] = Field(
        None,
        description="When a job runs. Default: once per release. A run that is due while one is in "
        "progress is skipped.",
        examples=["0 6 * * *"],
    )
    needs: list[str] = Field(
        default_factory=list, description="Resources it uses; each sets a URL variable."
    )
    after: list[str] = Field(
        default_factory=list,
        description="Services that a job runs after; each sets `<SERVICE>_URL`. "
        "Default: the job runs before the services.",
    )
    env: dict[Variable, Text] = Field(
        default_factory=dict,
        description="Environment variables. Not for secrets. `${db.host}` inserts a part of a "
        "resource in `needs`: `host`, `port`, `user`, `password`, `database` or `url`.",
    )
    env_file: Files = Field(
        default_factory=list,
        description="Dotenv files with environment variables, relative to the stack file: "
        "`NAME=value` lines, not for secrets. Those of `env` override them, and those of later "
        "files override earlier ones. Only committed files are deployed, except to `local`.",
        examples=["config/app.env"],
    )
    volumes: dict[Name, NonEmpty] = Field(
        default_factory=dict,
        description="Folders that are kept across releases (machine), by name; services with the "
        "same name share one. A path is relative to the source folder, or absolute where the "
        "agent may create a link. One that ends in `.db`, `.sqlite` or `.sqlite3` is a file. Each "
        "sets `LAPWING_VOLUME_<NAME>` to the place on the disk.",
        examples=[{"uploads": "./uploads", "data": "db.sqlite3"}],
    )
    secrets: list[Annotated[Secret, short_form("name", Variable | Secret)]] = Field(
        default_factory=list,
        description="Secrets it gets as environment variables; see `lapwing secret`.",
    )
    migrate: Migrate | None = Field(None, description="A database migration before it starts.")
    port: int | None = Field(
        None,
        ge=1024,
        le=65535,
        description="The port in its container, also set as `$PORT`. Default: 8080.",
    )
    user: int | None = Field(
        None,
        ge=1,
        le=2**31 - 1,
        description="The numeric user id of its container. Default: the image's user, "
        "which must be numeric and not 0.",
    )
    scratch: Size | None = Field(
        None,
        gt=0,
        description="The size of `/tmp` in its container, the only writable folder beside volumes. "
        "On a machine it is in memory. Default: 256Mi.",
    )
    internet: bool | list[Annotated[int, Field(ge=1, le=65535)]] = Field(
        False,
        description="Allow egress to the internet (Kubernetes; on a machine it is always allowed): "
        "`true` or a list of TCP ports. The firewall of `lapwing infra` allows port 443 and the "
        "listed ones.",
        examples=[[443, 587]],
    )
    headers: Headers = Field(
        default_factory=dict,
        description="Its response headers: a string replaces what the service sets, a list adds "
        "values, `false` removes the header. By default `X-Content-Type-Options: nosniff` is added "
        "where it is missing and, on a machine with a public certificate or one of yours, "
        "`Strict-Transport-Security: max-age=2592000`.",
        examples=[{"X-Frame-Options": "DENY", "X-Powered-By": False}],
    )
    access: Access | None = Field(
        None,
        description="Which clients may send requests to it (machine). Default: `access` of the "
        "environment; `{}`: everyone.",
    )
    timeout: Duration | None = Field(None, gt=0, description="Timeout of a request, or of a job.")
    pods: Pods | None = Field(
        None,
        description="Settings of its pods and of those of its jobs (Kubernetes), merged over "
        "`pods` of the environment.",
    )
    rollout: Rollout = Field(
        default_factory=Rollout, description="How new releases are tested and switched to."
    )

    def runtime_in(self, environment: Environment) -> Literal["process", "container"]:
        """Return how the service runs in an environment on a machine."""
        if self.kind == "static":
            return "process"
        if self.build is None:
            return "container"
        return self.runtime or environment.runtime

    @property
    def max_body(self) -> int | None:
        """The largest request body that is buffered, in bytes; None if bodies are streamed."""
        is_buffered = self.route is not None and self.buffering.requests
        return self.buffering.max_request_body if is_buffered else None

    @property
    def secret_names(self) -> tuple[str, ...]:
        """The names of its secrets, in the order of the file."""
        return tuple(secret.name for secret in self.secrets)

    @model_validator(mode="before")
    @classmethod
    def _infer_kind(cls, value: Any) -> Any:
        if isinstance(value, dict) and "kind" not in value:
            kind = "worker"
            if "static" in value:
                kind = "static"
            elif "schedule" in value:
                kind = "job"
            elif "route" in value:
                kind = "web"
            return {**value, "kind": kind}
        return value


class Resource(StrictModel):
    """A database or cache that services use; Lapwing runs or binds it."""

    kind: Literal["mongodb", "mysql", "redis", "postgres"] = Field(
        description="`mongodb`, `mysql`, `redis` or `postgres`."
    )
    version: Text | None = Field(None, description="The version to run.", examples=["8"])
    image: NonEmpty | None = Field(
        None,
        description="The image to run instead of the official one. Its entrypoint has to accept "
        "the same arguments and variables.",
        examples=["pgvector/pgvector:pg17"],
    )
    storage: Size | None = Field(None, description="Disk size for its data.", examples=["10Gi"])
    storage_class: ObjectName | None = Field(
        None,
        description="The storage class of its volume (Kubernetes). Default: `storage_class` of the "
        "environment.",
        examples=["premium-rwo"],
    )
    variable: Variable | None = Field(
        None, description="The environment variable that holds its URL. Default: `<NAME>_URL`."
    )
    embedded: bool = Field(
        False,
        description="On a machine without an engine or a server for it, set the URL to a folder, "
        "`embedded:///path`. The application must support that.",
    )
    managed: bool = Field(
        False,
        description="Do not run it in the cluster (Kubernetes). In a cloud `lapwing infra` renders "
        "Cloud SQL or Memorystore, with its URL in Secret Manager. Elsewhere, set its URL as a "
        "secret, under the name of its variable. MongoDB in a cloud is always managed.",
    )
    tier: str | None = Field(
        None,
        description="The Atlas cluster tier of a managed MongoDB. Default: `M10`.",
        examples=["M10"],
    )
    max_tier: str | None = Field(
        None, description="The largest tier that auto-scaling may choose.", examples=["M30"]
    )
    backup: bool = Field(False, description="Its data is backed up, by the cloud or by you.")
    replica_region: NonEmpty | None = Field(
        None, description="A second region with a replica of a managed MongoDB."
    )
    resources: ComputeResources = Field(
        default_factory=ComputeResources,
        description="CPU and memory requests in the cluster. On a machine, `memory` limits its "
        "container, and settings such as the size of its cache are derived from it.",
    )
    pods: Pods | None = Field(
        None,
        description="Settings of its pod (Kubernetes), merged over `pods` of the environment.",
    )


class Stack(StrictModel):
    """The whole stack file."""

    stack: Name = Field(description="The name of the stack.")
    services: dict[Name, Service] = Field(description="The services, by name.", min_length=1)
    resources: dict[Name, Resource] = Field(
        default_factory=dict, description="The resources that services use."
    )
    environments: dict[Name, Environment] = Field(
        default_factory=dict, description="Where the stack runs. `local` always exists."
    )
    registry: Registry = None
    release: Releases = Field(default_factory=Release)
    mirror: Mirror = Field(default_factory=list)
    scan: Scan = Field(default_factory=Scan, description="Vulnerability scan settings.")
    signing: Signing | None = Field(None, description="Signatures of images.")

    @property
    def services_without_image(self) -> list[str]:
        """The services whose images are built from source for a cluster."""
        services = self.services.items()
        return [n for n, s in services if not s.image and (s.build or s.dockerfile)]
