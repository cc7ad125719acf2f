"""What people write: the models of the stack file.

One declaration feeds validation, the JSON Schema for editors and the reference page, so each field
has its description here and nowhere else. A field that takes a short form (`health: /healthz`,
`replicas: 2`) turns it into the long one before validation; nothing after this room sees the short
form. Unknown keys are refused. Rules that need more than one field are in `rules.py`.

Durations are seconds, sizes bytes, cpu cores, rates fractions, once validated.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from lapwing.stack import parts, quantities
from lapwing.stack.delivery import Mirror, Registry, Release, Releases
from lapwing.stack.parts import Filled, Name, Part, Text
from lapwing.stack.parts import stands_for as _stands_for
from lapwing.stack.scanning import Scan

NAME = parts.NAME
VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
PATH = r"^/[^?#\s]*$"
REQUEST = r"^/[^#\s]*$"

DURATION = {"type": ["string", "number"], "pattern": r"^(\d+(\.\d+)?(ms|s|m|h|d))+$"}
SIZE = {"type": ["string", "integer"], "pattern": r"^\d+(\.\d+)?(k|M|G|T|Ki|Mi|Gi|Ti)?$"}
CPU = {"type": ["string", "number"], "pattern": r"^\d+(\.\d+)?m?$"}
MONEY = {"type": ["string", "number"], "pattern": r"^\d+(\.\d{1,2})?$"}
SHARE = {"type": ["string", "number"], "pattern": r"^\d+(\.\d+)?%?$"}

Duration = Annotated[float, BeforeValidator(quantities.duration), Field(json_schema_extra=DURATION)]
Size = Annotated[int, BeforeValidator(quantities.size), Field(json_schema_extra=SIZE)]
Cpu = Annotated[float, BeforeValidator(quantities.cpu), Field(json_schema_extra=CPU)]
Money = Annotated[float, BeforeValidator(quantities.money), Field(json_schema_extra=MONEY)]
Share = Annotated[float, BeforeValidator(quantities.fraction), Field(json_schema_extra=SHARE)]
Variable = Annotated[str, Field(pattern=VARIABLE)]
UrlPath = Annotated[str, Field(pattern=PATH)]
Request = Annotated[str, Field(pattern=REQUEST)]


class Build(Part):
    """How a service is built from source."""

    path: Filled = Field(description="The folder of the source, relative to the stack file.")
    python: Text | None = Field(
        None, description='The Python version to use, such as `"3.12"`.', examples=["3.12"]
    )
    script: Filled = Field("build", description="The npm script that builds a Node source.")
    env: dict[Variable, Text] = Field(
        default_factory=dict, description="Variables for the build only. Not for secrets."
    )
    test: Filled | None = Field(
        None,
        description="The service's own tests: a command that `lapwing ship` runs in a copy of the "
        "source, with the release's programs on the PATH. It has to exit with 0.",
        examples=["uv run pytest"],
    )
    timeout: Duration = Field(
        600.0, gt=0, description="The longest a build, or its test, may take."
    )


class Health(Part):
    """When a replica counts as healthy."""

    path: UrlPath | None = Field(
        None,
        description="Answers 2xx or 3xx when healthy. Without it, an open port is enough.",
        examples=["/healthz"],
    )
    live: UrlPath | None = Field(
        None,
        description="On a cluster, what start-up and liveness ask instead of `path`: a path that "
        "depends on nothing else, so that a database that is away restarts no replica.",
        examples=["/version"],
    )
    interval: Duration = Field(5.0, ge=0.1, description="Time between two checks.")
    timeout: Duration = Field(2.0, ge=0.1, description="The longest a check may take.")
    start_timeout: Duration = Field(
        60.0, gt=0, description="The longest a replica may take until it is healthy."
    )
    settle: Duration = Field(
        1.0, description="A worker without a path is healthy when it has run for this long."
    )


class Replicas(Part):
    """How many processes serve a service."""

    min: int = Field(1, ge=1, le=100, description="The least. One machine runs this many.")
    max: int | None = Field(None, ge=1, le=1000, description="The most, on a cluster.")
    cpu: Share | None = Field(
        None, description="On a cluster, the CPU use that more replicas are added at."
    )


class Needs(Part):
    """What a replica asks of the machine."""

    cpu: Cpu | None = Field(None, description="CPU, such as `250m` or `0.5`.", examples=["250m"])
    memory: Size | None = Field(None, description="Memory.", examples=["512Mi"])


class Smoke(Part):
    """A test of a new release before it gets traffic: a request to the preview host, or a command
    that exits with 0."""

    get: Request | None = Field(None, description="The path to request on the preview host.")
    expect: int = Field(200, ge=100, le=599, description="The status that is right.")
    contains: str | None = Field(None, description="Text that the answer has to contain.")
    run: Filled | None = Field(
        None, description="A command, run in the release with LAPWING_PREVIEW_URL set."
    )
    timeout: Duration = Field(30.0, gt=0, description="The longest the test may take.")


class Analysis(Part):
    """What live traffic has to look like after the switch; otherwise it is taken back."""

    window: Duration = Field(10.0, gt=0, description="How long to watch after the switch.")
    max_error_rate: Share | None = Field(
        0.05, description="The share of requests that may fail (5xx or no answer)."
    )
    max_p95: Duration | None = Field(
        None, description="The most that the 95th percentile of latency may be."
    )
    min_requests: int = Field(
        20, ge=1, description="Fewer requests than this are too few to judge by."
    )


def _unless_false(value: object) -> object:
    return None if value is False else value


class Rollout(Part):
    """How a new release comes to traffic, and how the old one leaves."""

    smoke: list[Smoke] = Field(default_factory=list, description="Tests before the switch.")
    analysis: Annotated[
        Analysis | None,
        BeforeValidator(_unless_false, json_schema_input_type=Analysis | Literal[False]),
    ] = Field(
        default_factory=Analysis,
        description="Watching after the switch; `false` for none.",
    )
    hold: bool = Field(False, description="Wait for `lapwing promote` before the switch.")
    keep_old: Duration = Field(
        600.0, description="How long the old slot stays warm for an instant rollback."
    )
    drain: Duration = Field(
        3600.0, description="How long an old replica may stay for connections that do not end."
    )
    stop_grace: Duration = Field(
        10.0, description="Time between asking a replica to end and killing it."
    )


class Secret(Part):
    """A secret that a service gets as a variable."""

    name: Variable = Field(description="The variable.")
    generate: int | None = Field(
        None,
        ge=16,
        le=256,
        description="Make the value up once, with this many characters, and never change it.",
    )


class Migrate(Part):
    """How a release changes the schema of its database before it serves."""

    run: Filled = Field(description="The command, run once in the new release.")
    mode: Literal["online", "offline"] = Field(
        "online",
        description="`online`: the old release works on the new schema, too. `offline`: no replica "
        "may be connected meanwhile.",
    )


def _kind_may_be_left_out(schema: dict[str, Any]) -> None:
    schema["required"] = [key for key in schema["required"] if key != "kind"]


class Service(Part):
    """Something we build and release."""

    model_config = ConfigDict(json_schema_extra=_kind_may_be_left_out)

    kind: Literal["web", "static", "worker", "job"] = Field(
        description="`web` answers HTTP, `static` is files, `worker` has no port, `job` runs once "
        "before each switch. Left out, it follows from `static` and `route`."
    )
    build: Annotated[Build | None, _stands_for("path", Filled | Build)] = Field(
        None, description="The folder of the source, or more about it."
    )
    dockerfile: Filled | None = Field(None, description="A Dockerfile to build (Kubernetes).")
    image: Filled | None = Field(None, description="A ready-made image (Kubernetes).")
    command: Filled | None = Field(
        None, description="What starts it. `$PORT` is the port to listen on."
    )
    static: Filled | None = Field(
        None, description="The folder of built files, relative to the source.", examples=["dist"]
    )
    spa: bool = Field(True, description="Answer unknown paths of a static service with index.html.")
    route: UrlPath | None = Field(
        None, description="The path prefix whose requests it gets.", examples=["/api"]
    )
    health: Annotated[Health, _stands_for("path", UrlPath | Health)] = Field(
        default_factory=Health, description="When it is healthy."
    )
    replicas: Annotated[Replicas, _stands_for("min", int | Replicas)] = Field(
        default_factory=Replicas, description="How many."
    )
    resources: Needs = Field(default_factory=Needs, description="CPU and memory.")
    needs: list[str] = Field(
        default_factory=list, description="Resources it uses; each gives it a URL variable."
    )
    after: list[str] = Field(
        default_factory=list,
        description="Of a job on a cluster: services that have to serve before it runs; it may "
        "reach each at `<SERVICE>_URL`. Without it, a job runs before the services.",
    )
    env: dict[Variable, Text] = Field(
        default_factory=dict,
        description="Variables. No secrets. `${db.host}` is a part of a resource that it needs: "
        "`host`, `port`, `user`, `password`, `database` or `url`.",
    )
    secrets: list[Annotated[Secret, _stands_for("name", Variable | Secret)]] = Field(
        default_factory=list, description="Secrets it gets as variables; see `lapwing secret`."
    )
    migrate: Migrate | None = Field(
        None, description="On a cluster, how its database is migrated before it starts."
    )
    port: int | None = Field(
        None,
        ge=1024,
        le=65535,
        description="The port that its container listens on, also told as `$PORT`. Default: 8080.",
    )
    user: int | None = Field(
        None,
        ge=1,
        le=2**31 - 1,
        description="The numeric user that its container runs as. Default: the image's own, which "
        "must be a number and not 0.",
    )
    scratch: Size | None = Field(
        None,
        gt=0,
        description="The size of `/tmp` in its container, the only folder that it can write to. "
        "Default: 256Mi.",
    )
    internet: bool = Field(
        False,
        description="On a cluster, let it open connections to the internet. A machine limits none.",
    )
    timeout: Duration | None = Field(
        None, gt=0, description="The longest a request (or a job) may take."
    )
    rollout: Rollout = Field(default_factory=Rollout, description="How it is released.")

    @property
    def secret_names(self) -> tuple[str, ...]:
        """The variables of its secrets, in the order of the file."""
        return tuple(secret.name for secret in self.secrets)

    @model_validator(mode="before")
    @classmethod
    def _infer_kind(cls, value: Any) -> Any:
        if isinstance(value, dict) and "kind" not in value:
            kind = "worker"
            if "static" in value:
                kind = "static"
            elif "route" in value:
                kind = "web"
            return {**value, "kind": kind}
        return value


class Resource(Part):
    """Something we run or bind but do not release."""

    kind: Literal["mongodb", "mysql", "redis", "postgres"] = Field(
        description="`mongodb`, `mysql`, `redis` or `postgres`."
    )
    version: Text | None = Field(None, description="The version wanted.", examples=["8"])
    storage: Size | None = Field(None, description="Disk for its data.", examples=["10Gi"])
    variable: Variable | None = Field(
        None, description="The variable that tells services its URL. Default: `<NAME>_URL`."
    )
    embedded: bool = Field(
        False,
        description="Where a machine has no server for it, give services a folder instead: "
        "`embedded:///path`. The application has to support that.",
    )
    managed: bool = Field(
        False,
        description="On a cluster, nothing is run for it: its URL is a secret that you set under "
        "the name of its variable. MongoDB in a cloud always is.",
    )
    tier: str | None = Field(
        None,
        description="In a cloud, the cluster tier of a managed MongoDB (Atlas). Default: `M10`.",
        examples=["M10"],
    )
    max_tier: str | None = Field(
        None, description="The largest tier that auto-scaling may choose.", examples=["M30"]
    )
    backup: bool = Field(
        False, description="Whether its data is backed up, by the cloud or by you."
    )
    replica_region: Filled | None = Field(
        None, description="A second region that keeps a copy of a managed MongoDB."
    )
    resources: Needs = Field(
        default_factory=Needs, description="CPU and memory, where it runs in the cluster."
    )


class Cloud(Part):
    """Where a Kubernetes environment lives."""

    provider: Literal["gcp"] = Field(description="The cloud.")
    region: Filled = Field(description="Its region.", examples=["europe-west1"])
    new_region: bool = Field(
        False, description="Take a region that this version of Lapwing does not know yet."
    )
    project: str | None = Field(
        None,
        description="The project id. Default: `<stack>-<environment>`. Environments of one project "
        "share its cluster.",
    )
    shared_project: str | None = Field(
        None,
        description="The project id of what environments share, such as the registry. Default: "
        "`<stack>-shared`.",
    )


class Usage(Part):
    """What a month is assumed to bring, for `lapwing cost`. What is not stated is not counted, and
    the estimate says so."""

    sent: Size | None = Field(
        None, description="Data that services send to clients, without static files."
    )
    received: Size | None = Field(None, description="Data that clients send.")
    static: Size | None = Field(None, description="Data of static files sent to clients.")
    requests: int | None = Field(None, ge=0, description="Requests for static files.")
    nat: Size | None = Field(
        None, description="Data that services exchange with the internet through the NAT."
    )
    images: Size | None = Field(None, description="Images kept in the registry.", examples=["5G"])
    deployments: int | None = Field(None, ge=0, le=100_000, description="Deployments.")


class Gateway(Part):
    """How requests come into a cluster that has no load balancer of `lapwing infra`."""

    kind: Literal["gateway", "ingress"] = Field(
        description="`gateway` for the Gateway API, `ingress` for a classic Ingress."
    )
    class_name: Filled | None = Field(
        None,
        alias="class",
        description="The class of it. Default: the cloud's, else `nginx` for an Ingress and "
        "`envoy` for a Gateway.",
    )
    issuer: Filled | None = Field(
        None,
        description="The ClusterIssuer of cert-manager that certificates come from. Without it, "
        "the cloud's own, else a Secret that is made once.",
    )


class Environment(Part):
    """A place where the stack runs, and what is different there."""

    target: Literal["machine", "kubernetes"] = Field("machine", description="What it runs on.")
    domain: str | None = Field(None, description="The host name it answers to.")
    cloud: Cloud | None = Field(None, description="The cloud it runs in.")
    delivery: Literal["argo", "direct"] | None = Field(
        None,
        description="Who applies it to the cluster: Argo CD, from the desired-state repository, or "
        "Lapwing itself. Default: `argo` in a cloud, else `direct`.",
    )
    rollouts: bool | None = Field(
        None,
        description="Release by Argo Rollouts, blue-green. Without it, Deployments are updated "
        "pod by pod. Default: true with Argo CD, else false.",
    )
    repository: Filled | None = Field(
        None,
        description="The git URL of the desired-state repository, as Argo CD reaches it.",
        examples=["https://git.example.com/shop/desired.git"],
    )
    gateway: Annotated[
        Gateway | None, _stands_for("kind", Literal["gateway", "ingress"] | Gateway)
    ] = Field(
        None,
        description="How requests come in. Default: the load balancer of `lapwing infra` in a "
        "cloud, else nothing but the edge's Service.",
    )
    spot: bool = Field(
        False,
        description="On a cluster, run services on spot capacity: cheaper, may be taken away.",
    )
    cdn: bool = Field(True, description="In a cloud, serve static services through its CDN.")
    overhead: Needs = Field(
        default_factory=Needs,
        description="On a cluster, CPU and memory of what runs beside the services (Argo CD, Argo "
        "Rollouts, External Secrets).",
    )
    usage: Usage = Field(default_factory=Usage, description="Assumptions of the cost estimate.")
    budget: Money | None = Field(
        None, description="The most that a month may cost, in US dollars.", examples=["250"]
    )
    services: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Settings of services that differ here: maps are merged, lists replaced, "
        "`null` removes.",
    )
    resources: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="The same for resources."
    )


class Stack(Part):
    """The whole file."""

    stack: Name = Field(description="The name of the stack.")
    services: dict[Name, Service] = Field(description="What is built and released.", min_length=1)
    resources: dict[Name, Resource] = Field(default_factory=dict, description="What services need.")
    environments: dict[Name, Environment] = Field(
        default_factory=dict, description="Where it runs. `local` is always there."
    )
    registry: Registry = None
    release: Releases = Field(default_factory=Release)
    mirror: Mirror = Field(default_factory=list)
    scan: Scan = Field(
        default_factory=Scan, description="What a scan for known vulnerabilities may find."
    )
