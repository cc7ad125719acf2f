"""The models of `environments`: the target, its cloud, its delivery, its cost assumptions."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, model_validator

from lapwing.stack.branches import Branches
from lapwing.stack.fields import (
    AGE_RECIPIENT,
    BACKUP_PLACE,
    ENDPOINT,
    LOG_DESTINATION,
    Access,
    ComputeResources,
    Duration,
    HeaderName,
    Headers,
    Interval,
    Money,
    NonEmpty,
    ObjectName,
    Size,
    StrictModel,
    TimeZone,
    Variable,
    short_form,
)
from lapwing.stack.pods import Pods
from lapwing.stack.source import ACCESS_KEYS


class Cloud(StrictModel):
    """The cloud that a Kubernetes environment runs in."""

    provider: Literal["gcp"] = Field(description="The cloud provider.")
    region: NonEmpty = Field(description="The region.", examples=["europe-west1"])
    new_region: bool = Field(
        False, description="Accept a region that this version of Lapwing does not list."
    )
    project: str | None = Field(
        None,
        description="The project id. Default: `<stack>-<environment>`. Environments with the same "
        "project share one cluster.",
    )
    shared_project: str | None = Field(
        None,
        description="The id of the project for what all environments share, such as the registry. "
        "Default: `<stack>-shared`.",
    )


class Machine(StrictModel):
    """The server of an environment on a machine, for `lapwing cost`."""

    provider: Literal["hetzner", "digitalocean", "gcp", "aws", "azure"] = Field(
        description="The provider it is rented from."
    )
    type: NonEmpty = Field(
        description="The provider's name of the machine type.", examples=["cx33", "s-2vcpu-4gb"]
    )
    location: NonEmpty = Field(
        description="The provider's name of the region or location.", examples=["fsn1", "fra1"]
    )


class Usage(StrictModel):
    """Assumed monthly usage for `lapwing cost`.

    The estimate leaves out what is not set, and lists it.
    """

    sent: Size | None = Field(
        None, description="Data sent by services to clients, without static files."
    )
    received: Size | None = Field(None, description="Data received from clients.")
    static: Size | None = Field(None, description="Static file data sent to clients.")
    requests: int | None = Field(None, ge=0, description="Number of requests for static files.")
    nat: Size | None = Field(
        None, description="Data exchanged between services and the internet through the NAT."
    )
    images: Size | None = Field(
        None, description="Size of the images in the registry.", examples=["5G"]
    )
    deployments: int | None = Field(None, ge=0, le=100_000, description="Number of deployments.")


GKE_CLASSES = {"gateway": "gke-l7-global-external-managed", "ingress": "gce"}
"""The classes whose load balancer GKE makes: global, external Application Load Balancers."""


class Gateway(StrictModel):
    """Ingress of a cluster that does not use the load balancer of `lapwing infra`."""

    kind: Literal["gateway", "ingress"] = Field(
        description="`gateway` for the Gateway API, `ingress` for an Ingress."
    )
    class_name: NonEmpty | None = Field(
        None,
        alias="class",
        description="The GatewayClass or IngressClass. Default: in a cloud "
        f"`{GKE_CLASSES['gateway']}` or `{GKE_CLASSES['ingress']}` of GKE, else `envoy` for a "
        "Gateway and `nginx` for an Ingress. GKE's other classes are refused: they need a "
        "proxy-only subnet.",
    )
    issuer: ObjectName | None = Field(
        None,
        description="The name of the cert-manager ClusterIssuer that issues the certificate. "
        "Default: with GKE's class a certificate of Google (for a Gateway, `lapwing infra` "
        "creates it), else the TLS Secret `<stack>-edge-tls`, which you create.",
    )


class Acme(StrictModel):
    """A public authority for certificates, by the ACME protocol (RFC 8555)."""

    email: NonEmpty = Field(
        description="The e-mail address of the ACME account. You accept its terms of service.",
        examples=["ops@example.com"],
    )
    directory: NonEmpty = Field(
        "https://acme-v02.api.letsencrypt.org/directory",
        description="The address of the authority's directory. Default: Let's Encrypt.",
        examples=["https://acme-staging-v02.api.letsencrypt.org/directory"],
    )
    ca: NonEmpty | None = Field(
        None,
        description="A PEM file, relative to the stack file, that the certificate of the directory "
        "is checked with. Default: the public authorities.",
    )


class Tls(StrictModel):
    """The certificate that clients get: of an ACME authority, or of a file and a secret."""

    acme: Annotated[Acme | None, short_form("email", NonEmpty | Acme)] = Field(
        None, description="The ACME authority; or only an e-mail address, for Let's Encrypt."
    )
    certificate: NonEmpty | None = Field(
        None,
        description="A PEM file with a certificate and its chain, relative to the stack file. "
        "Lapwing does not renew it: `status` warns 20 days before it expires.",
        examples=["tls/app.example.com.pem"],
    )
    key: Variable | None = Field(
        None,
        description="The secret with the private key of `certificate`, in PEM format: "
        "`lapwing secret set NAME < FILE`.",
        examples=["TLS_KEY"],
    )


class MaintenancePage(StrictModel):
    """What clients get during maintenance; see `lapwing maintenance`."""

    page: NonEmpty | None = Field(
        None,
        description="An HTML file, relative to the stack file. It is sent with status 503 and "
        "cannot refer to files that the stack serves. Default: a page with one sentence.",
        examples=["maintenance.html"],
    )
    retry_after: Duration = Field(
        300.0, gt=0, description="When clients may try again, as the header `Retry-After`."
    )


def _unless_local(value: object) -> object:
    return None if value == "local" else value


class Encrypt(StrictModel):
    """Encryption of backups with age, for the recipients whose identities can decrypt them."""

    recipients: list[Annotated[str, Field(pattern=AGE_RECIPIENT)]] = Field(
        min_length=1,
        description="Public keys of age, as `age-keygen` prints them. Keep the identities, the "
        "private keys, elsewhere; `lapwing restore` reads one with `--identity FILE`.",
        examples=[["age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"]],
    )


class Backup(StrictModel):
    """Scheduled backups of an environment: its databases and, on a machine, its volumes."""

    every: Interval = Field(
        "@daily",
        description="When: `hourly`, `daily`, `weekly`, `monthly`, or a cron schedule.",
        examples=["30 3 * * *"],
    )
    timezone: TimeZone = Field("UTC", description="The time zone of the schedule.")
    keep: int = Field(
        7,
        ge=1,
        le=1000,
        description="The number of scheduled backups to keep; the same number of manual backups is "
        "kept as well.",
    )
    to: Annotated[str, Field(pattern=BACKUP_PLACE)] | None = Field(
        None,
        description="Where the backups are stored: a bucket, `s3://BUCKET/PREFIX`. On a machine "
        "also a folder, preferably on another disk: an absolute path whose parent folder exists; "
        "the default is `backups` in LAPWING_HOME. On Kubernetes also `gs://BUCKET/PREFIX`, or "
        "`pvc://CLAIM`, a PersistentVolumeClaim that you create in the namespace; no default.",
        examples=["/var/backups/lapwing", "s3://backups/shop", "gs://backups/shop"],
    )
    endpoint: Annotated[str, Field(pattern=ENDPOINT)] | None = Field(
        None,
        description="The URL of a service that is compatible with S3. Default: that of AWS.",
        examples=["https://s3.eu-central-003.backblazeb2.com"],
    )
    region: NonEmpty | None = Field(
        None,
        description="The region of the bucket. Default: that of the AWS variables or profile.",
        examples=["eu-central-1"],
    )
    encrypt: Encrypt | None = Field(
        None, description="Encrypts backups with age (machine). Default: not encrypted."
    )

    @property
    def in_s3(self) -> bool:
        """Whether the backups are in a bucket of S3 or of a compatible service."""
        return self.to is not None and self.to.startswith("s3://")

    @property
    def secrets(self) -> tuple[str, ...]:
        """The names of the secrets with the credentials of the bucket."""
        return ACCESS_KEYS if self.in_s3 else ()

    @property
    def port(self) -> int | None:
        """The TCP port of the bucket's service; None without a bucket."""
        if self.to is None or not self.to.startswith(("s3://", "gs://")):
            return None
        url = urlsplit(self.endpoint or "https://")
        return url.port or (80 if url.scheme == "http" else 443)


class Logs(StrictModel):
    """Where the logs of services, databases, jobs and Envoy are shipped, besides their files."""

    to: Annotated[str, Field(pattern=LOG_DESTINATION)] = Field(
        description="`journald`, the journal of systemd on the machine, or the URL of a collector "
        "that accepts OTLP over HTTP in JSON.",
        examples=["journald", "https://otlp.example.com/v1/logs"],
    )
    headers: dict[HeaderName, Variable] = Field(
        default_factory=dict,
        description="Headers of the requests to the collector: the value is the name of a secret. "
        "A new value of the secret is used at once.",
        examples=[{"Authorization": "OTLP_AUTHORIZATION"}],
    )


class Desired(StrictModel):
    """The desired-state repository that the agent of a machine pulls; see `lapwing agent pull`."""

    url: NonEmpty = Field(
        description="Its git URL, as the agent reaches it. `lapwing ship` pushes to the same URL.",
        examples=["https://git.example.com/shop/desired.git"],
    )
    require_signed: bool = Field(
        False, description="Deploy only if every new commit has the signature of one of `signers`."
    )
    signers: NonEmpty | None = Field(
        None,
        description="The file of the accepted signers, relative to the stack file: allowed signers "
        "of SSH (see ssh-keygen(1)), or PGP public keys (ASCII-armored).",
        examples=["signers"],
    )
    interval: Duration = Field(
        30.0, ge=1, description="The time between two fetches. After failures up to 5 minutes."
    )


class Environment(StrictModel):
    """Where the stack runs, and the settings that differ there."""

    target: Literal["machine", "kubernetes"] = Field(
        "machine", description="`machine` (one host) or `kubernetes`."
    )
    host: NonEmpty | None = Field(
        None,
        description="The server that it runs on (machine), as `user@host` or `user@host:port`, or "
        "a name in the SSH configuration. Only `lapwing server` needs the user, who is root or "
        "may use sudo. Default: this machine.",
        examples=["deploy@203.0.113.7"],
    )
    desired: Annotated[Desired | None, short_form("url", NonEmpty | Desired)] = Field(
        None,
        description="The desired-state repository that the agent of the machine pulls, so that "
        "`lapwing ship` needs no SSH (machine). Releases come from `registry` of the stack.",
        examples=["https://git.example.com/shop/desired.git"],
    )
    runtime: Literal["process", "container"] = Field(
        "process",
        description="How its services with a `build` run on a machine: as `process` or `container` "
        "(of Docker or Podman). Static services are always served by Caddy.",
    )
    domain: str | None = Field(
        None, description="The host name that it serves: the short form of `domains` for one."
    )
    domains: list[str] = Field(
        default_factory=list,
        description="The host names that it serves (several: machine). URLs show the first one.",
        examples=[["app.example.com", "app.example.org"]],
    )
    redirects: dict[str, str] = Field(
        default_factory=dict,
        description="Host names that are redirected to one of its domains (machine): status 308, "
        "with the same path and query. They are in the certificate.",
        examples=[{"www.example.com": "app.example.com"}],
    )
    branches: Branches | None = Field(
        None,
        description="Makes this environment a template, from which each git branch gets an "
        "environment (machine): `lapwing up -e NAME --branch BRANCH`.",
        examples=[{"max": 5, "disk": "5Gi", "domain": "preview.example.com"}],
    )
    machine: Machine | None = Field(
        None, description="The server that it runs on, for the cost estimate (machine)."
    )
    tls: Annotated[
        Tls | None, BeforeValidator(_unless_local, json_schema_input_type=Tls | Literal["local"])
    ] = Field(
        None,
        description="The certificate (machine). Default: `local`, one of a local authority.",
    )
    backup: Annotated[Backup | None, short_form("every", str | Backup)] = Field(
        None,
        description="Scheduled backups: on a machine of volumes and databases, except databases at "
        "a URL; on Kubernetes of the databases in the cluster.",
        examples=[{"every": "daily", "keep": 14, "to": "/var/backups/lapwing"}],
    )
    logs: Annotated[Logs | None, short_form("to", str | Logs)] = Field(
        None,
        description="Ships logs from the machine. Default: they stay in files (`lapwing logs`).",
        examples=[
            "journald",
            {
                "to": "https://otlp.example.com/v1/logs",
                "headers": {"Authorization": "OTLP_AUTHORIZATION"},
            },
        ],
    )
    headers: Headers = Field(
        default_factory=dict,
        description="Response headers of all services: a string replaces that of a service, a list "
        "adds values, `false` removes the header. `headers` of a service override them.",
        examples=[{"X-Frame-Options": "DENY", "X-Powered-By": False}],
    )
    access: Access | None = Field(
        None,
        description="Which clients may send requests to its services (machine). `access` of a "
        "service replaces it. Default: everyone.",
    )
    maintenance: Annotated[MaintenancePage, short_form("page", NonEmpty | MaintenancePage)] = Field(
        default_factory=MaintenancePage,
        description="The page that clients get between `lapwing maintenance on` and `off` "
        "(machine).",
    )
    cloud: Cloud | None = Field(None, description="The cloud that the cluster runs in.")
    delivery: Literal["argo", "direct"] | None = Field(
        None,
        description="Who applies the manifests: `argo` is Argo CD, from the desired-state "
        "repository; `direct` is Lapwing. Default: `argo` in a cloud, else `direct`.",
    )
    rollouts: bool | None = Field(
        None,
        description="Use Argo Rollouts with the blue-green strategy instead of Deployments with "
        "rolling updates. Default: true with Argo CD, else false.",
    )
    repository: NonEmpty | None = Field(
        None,
        description="The git URL of the desired-state repository, as Argo CD reaches it.",
        examples=["https://git.example.com/shop/desired.git"],
    )
    registry: NonEmpty | None = Field(
        None,
        description="The registry and folder that images for this cluster are pushed to. Default: "
        "`registry` of the stack, or in a cloud the registry that `lapwing infra` creates; a "
        "cluster of kind or minikube gets its images without one.",
        examples=["localhost:5001/team"],
    )
    registry_mirror: NonEmpty | None = Field(
        None,
        description="A mirror or pull-through cache of Docker Hub, as registry and folder, from "
        "which a cluster pulls the images that Lapwing adds (Envoy, curl, rclone) and those of "
        "databases.",
        examples=["registry.example.com/docker-hub"],
    )
    gateway: Annotated[
        Gateway | None, short_form("kind", Literal["gateway", "ingress"] | Gateway)
    ] = Field(
        None,
        description="The Ingress or Gateway. Default: in a cloud the load balancer of `lapwing "
        "infra`, else only the edge's Service.",
    )
    spot: bool = Field(
        False, description="Run services on spot nodes (Kubernetes): cheaper, may be preempted."
    )
    pods: Pods | None = Field(
        None,
        description="Settings of all pods of the environment (Kubernetes). `pods` of a service or "
        "resource are merged over them: mappings are merged, lists replaced.",
        examples=[{"node_selector": {"pool": "apps"}}],
    )
    storage_class: ObjectName | None = Field(
        None,
        description="The storage class of all volumes (Kubernetes). Default: that of the cluster.",
        examples=["premium-rwo"],
    )
    cdn: bool = Field(True, description="Serve static services through the cloud's CDN.")
    overhead: ComputeResources = Field(
        default_factory=ComputeResources,
        description="CPU and memory of Argo CD, Argo Rollouts and External Secrets, for the cost "
        "estimate.",
    )
    usage: Usage = Field(
        default_factory=Usage, description="Assumed monthly usage for the cost estimate."
    )
    budget: Money | None = Field(
        None, description="The monthly budget in US dollars.", examples=["250"]
    )
    services: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Service settings that differ here: mappings are merged, lists replaced, "
        "`null` removes.",
    )
    resources: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Resource settings that differ here."
    )

    @model_validator(mode="before")
    @classmethod
    def _set_first_domain(cls, value: Any) -> Any:
        """Set `domain` to the first one of `domains`."""
        if isinstance(value, dict) and "domain" not in value:
            match value.get("domains"):
                case [str() as first, *_]:
                    return {**value, "domain": first}
        return value

    @property
    def host_names(self) -> tuple[str, ...]:
        """The host names that it serves, the one to show first."""
        return tuple(self.domains) or ((self.domain,) if self.domain else ())

    @property
    def uses_gke_gateway(self) -> bool:
        """Whether GKE makes the load balancer, from a Gateway or an Ingress."""
        gateway = self.gateway
        if self.cloud is None or gateway is None:
            return False
        return gateway.class_name in (None, GKE_CLASSES[gateway.kind])

    @property
    def uses_argo_cd(self) -> bool:
        """Whether Argo CD applies the manifests to the cluster."""
        in_cluster = self.target == "kubernetes"
        return in_cluster and (self.delivery or ("argo" if self.cloud else "direct")) == "argo"

    @property
    def uses_argo_rollouts(self) -> bool:
        """Whether services in the cluster are released by Argo Rollouts."""
        in_cluster = self.target == "kubernetes"
        return in_cluster and (self.uses_argo_cd if self.rollouts is None else self.rollouts)
