"""Rules about environments: server, cloud, delivery, database tiers; and what they ignore."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lapwing.errors import did_you_mean
from lapwing.stack.cloud import PROJECT_ID, REGION, gcp_regions, is_managed, project_of, registry_of
from lapwing.stack.environment import Backup, Environment
from lapwing.stack.model import Stack
from lapwing.stack.quantities import HOST_ADDRESS, show_duration
from lapwing.stack.release_rules import registry_violations
from lapwing.stack.source import KeyPath, Violation

OTLP_HEADERS = (
    *("content-type", "content-encoding", "content-length", "host", "connection"),
    "transfer-encoding",
)
SYSTEM_DATABASES = {
    "mongodb": ("admin", "config", "local"),
    "mysql": ("mysql", "sys"),
    "postgres": ("template0", "template1"),
}
"""Databases of a server with its users and settings, among the possible names of a stack.

Dumps omit them, and a restore of one would replace users. Sources: MongoDB manual, System
Collections; MySQL Reference Manual 8.4, The mysql System Schema; PostgreSQL documentation,
Template Databases.
"""


def check_host(stack: Stack, environment: Environment) -> Iterator[Violation]:
    """`host` is the address of a server, for `target: machine`; `local` is this machine."""
    host = environment.host
    if host is None:
        return
    if environment.target != "machine":
        hint = "Set `target: machine`, or remove `host`."
        yield Violation("`host` is only for `target: machine`.", ("host",), hint, key=True)
    elif re.fullmatch(HOST_ADDRESS, host) is None:
        hint = "Write `user@server.example.com`, with `:PORT` if SSH has another port than 22."
        yield Violation(f"{host!r} is not the address of a server.", ("host",), hint)
    elif stack.environments.get("local") is environment:
        hint = "Give the environment another name, such as `production`."
        yield Violation("`local` is this machine: it has no `host`.", ("host",), hint, key=True)


def check_desired(stack: Stack, environment: Environment) -> Iterator[Violation]:
    """`desired` needs a machine other than `local`, `registry`, `signers`, no offline `migrate`."""
    desired = environment.desired
    if desired is None:
        return
    if environment.target != "machine":
        hint = "On a cluster, Argo CD reads `repository`."
        yield Violation("`desired` is only for `target: machine`.", ("desired",), hint, key=True)
    elif stack.environments.get("local") is environment:
        hint = "Give the environment another name, such as `production`."
        message = "`local` is deployed from its source: it has no `desired`."
        yield Violation(message, ("desired",), hint, key=True)
    elif stack.registry is None:
        hint = "Set `registry` of the stack: releases are pushed there, and pulled by the machine."
        yield Violation("`desired` needs a `registry`.", ("desired",), hint, key=True)
    if desired.require_signed != (desired.signers is not None):
        hint = "Set `signers` to the file of the accepted signers, and `require_signed: true`."
        message = "`require_signed: true` and `signers` of `desired` need each other."
        yield Violation(message, ("desired",), hint, key=True)
    for name, service in stack.services.items():
        if service.migrate is not None and service.migrate.mode == "offline":
            hint = (
                "Use `mode: online` if the old release also works with the new schema, or remove "
                "`desired` and run `lapwing deploy -e NAME --allow-downtime`."
            )
            message = (
                f"`{name}` has an offline migration, which needs `--allow-downtime`: an "
                "environment with `desired` cannot run it."
            )
            yield Violation(message, ("services", name, "migrate"), hint, key=True)


def check_backup(stack: Stack, environment: Environment) -> Iterator[Violation]:
    """`endpoint` and `region` are for S3; the other keys of `backup` are valid for the target."""
    backup = environment.backup
    if backup is None:
        return
    for key in ("endpoint", "region"):
        if getattr(backup, key) is not None and not backup.in_s3:
            hint = "Remove it, or set `to: s3://BUCKET/PREFIX`."
            yield Violation(f"`{key}` is only for backups in S3.", ("backup", key), hint, key=True)
    to = backup.to or ""
    if environment.target == "kubernetes":
        yield from _check_cluster_backup(stack, environment, backup)
    elif to.startswith(("gs://", "pvc://")):
        message = f"`{to.partition(':')[0]}://` is only for `target: kubernetes`."
        hint = "Set a folder, or `to: s3://BUCKET/PREFIX`; Google Cloud Storage is compatible with "
        hint += "S3: `endpoint: https://storage.googleapis.com`."
        yield Violation(message, ("backup", "to"), hint)


def _check_cluster_backup(
    stack: Stack, environment: Environment, backup: Backup
) -> Iterator[Violation]:
    to, places = backup.to or "/", "`s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or `pvc://CLAIM`"
    if to.startswith("/"):
        message = "`backup` on Kubernetes needs a bucket or a volume claim."
        at: KeyPath = ("backup", "to") if backup.to else ("backup",)
        yield Violation(message, at, f"Set `to` to {places}.", key=backup.to is None)
    if to.startswith("gs://") and environment.cloud is None:
        message = "`gs://` needs `cloud`: pods get credentials from Workload Identity of GKE."
        hint = "Set `cloud`, or `to: s3://BUCKET` with `endpoint: https://storage.googleapis.com`."
        yield Violation(message, ("backup", "to"), hint)
    if backup.encrypt is not None:
        hint = "Remove it. Use server-side encryption of the bucket, with a key that you manage."
        message = "`encrypt` is only for `target: machine`."
        yield Violation(message, ("backup", "encrypt"), hint, key=True)
    if all(is_managed(resource, environment) for resource in stack.resources.values()):
        message = "`backup` has nothing to back up: the environment has no database in the cluster."
        hint = "Remove it. Set `backup: true` of a managed database instead."
        yield Violation(message, ("backup",), hint, key=True)


def check_backup_name(stack: Stack, environment: Environment) -> Iterator[Violation]:
    """With `backup` on Kubernetes, no service, or database in the cluster, is named `backup`."""
    if environment.target != "kubernetes" or environment.backup is None:
        return
    resource = stack.resources.get("backup")
    if "backup" in stack.services or (resource and not is_managed(resource, environment)):
        message = "`backup` of an environment needs the name `backup`."
        hint = "Rename the service or resource `backup`."
        yield Violation(message, ("backup",), hint, key=True)


def check_logs(_: Stack, environment: Environment) -> Iterator[Violation]:
    """`logs` is for machines; its headers are for a collector, and are encrypted."""
    logs = environment.logs
    if logs is None:
        return
    if environment.target == "kubernetes":
        hint = (
            "Remove it: the cluster collects the logs of pods, in a cloud by its logging service."
        )
        yield Violation("`logs` is only for `target: machine`.", ("logs",), hint, key=True)
    elif logs.headers and not logs.to.startswith("http"):
        message = "`headers` of `logs` are only for a collector."
        yield Violation(message, ("logs", "headers"), "Remove them.", key=True)
    elif logs.headers and re.match(r"http://(?!localhost[:/]|127\.|\[::1\])", logs.to):
        hint = "Use `https://`, or remove `headers`."
        yield Violation("`headers` of `logs` would be sent unencrypted.", ("logs", "to"), hint)
    if len({name.lower() for name in logs.headers}) < len(logs.headers):
        message = "`headers` of `logs` has a header twice."
        yield Violation(message, ("logs", "headers"), "Remove one of them.", key=True)
    for name in logs.headers:
        if name.lower() in OTLP_HEADERS:
            hint = f"Remove `{name}`: Lapwing sets it."
            yield Violation(f"`{name}` cannot be set.", ("logs", "headers", name), hint, key=True)


def check_runtime(_: Stack, environment: Environment) -> Iterator[Violation]:
    """`runtime` is for machines: a cluster always runs containers."""
    if environment.target == "kubernetes" and "runtime" in environment.model_fields_set:
        message = "`runtime` is only for `target: machine`; a cluster runs containers."
        yield Violation(message, ("runtime",), "Remove it.", key=True)


def check_environment_names(stack: Stack, _: Environment) -> Iterator[Violation]:
    """No environment without `branches` is named `preview`: that host name is for new releases."""
    found = stack.environments.get("preview")
    if found is not None and found.branches is None:
        message = "An environment cannot be named `preview`: that host name serves new releases."
        hint = "Name it `review`, or add `branches`."
        yield Violation(message, ("environments", "preview"), hint, key=True)


def check_cloud(_: Stack, environment: Environment) -> Iterator[Violation]:
    """A `cloud` belongs to a cluster, and its region and project ids are valid."""
    cloud = environment.cloud
    if cloud is None:
        return
    if environment.target == "machine":
        hint = "Set `target: kubernetes`, or remove `cloud`."
        yield Violation("`cloud` is only for `target: kubernetes`.", ("cloud",), hint, key=True)
    yield from check_region(cloud.region, ("cloud", "region"), new=cloud.new_region)
    for key in ("project", "shared_project"):
        given: str | None = getattr(cloud, key)
        if given is None or re.fullmatch(PROJECT_ID, given):
            continue
        length = f" It has {len(given)} characters." if len(given) > 30 else ""
        hint = (
            "A project id has 6 to 30 lower-case letters, digits and hyphens, starts with a letter "
            "and does not end with a hyphen."
        )
        yield Violation(f"{given!r} is not a valid project id.{length}", ("cloud", key), hint)


def check_region(region: str, at: KeyPath, *, new: bool) -> Iterator[Violation]:
    """Check that a region is listed; `new` accepts one that is not."""
    has_form = re.fullmatch(REGION, region) is not None
    if region in gcp_regions() or (new and has_form):
        return
    newer = "If it is newer than this version of Lapwing, add `new_region: true` to `cloud`."
    hint = newer if has_form else "A region looks like `europe-west1`."
    hint = did_you_mean(region, gcp_regions()) or hint
    yield Violation(f"{region!r} is not a region of Google Cloud.", at, hint)


def check_machine_type(_: Stack, environment: Environment) -> Iterator[Violation]:
    """A `machine` belongs to an environment on a machine."""
    if environment.target == "kubernetes" and environment.machine is not None:
        hint = "Remove it, or set `target: machine`."
        yield Violation("`machine` is only for `target: machine`.", ("machine",), hint, key=True)


def check_projects(stack: Stack, _: Environment) -> Iterator[Violation]:
    """Environments with the same project have the same region, and all have one shared project."""
    regions: dict[str, tuple[str, str]] = {}
    shared: tuple[str, str] | None = None
    for name, environment in stack.environments.items():
        cloud = environment.cloud
        if cloud is None:
            continue
        at: KeyPath = ("environments", name, "cloud")
        project, common = project_of(stack, name), cloud.shared_project or f"{stack.stack}-shared"
        first, region = regions.setdefault(project, (name, cloud.region))
        if region != cloud.region:
            message = f"`{first}` has the same project, `{project}`, in another region ({region})."
            hint = "Environments with the same project share a cluster: use one region."
            yield Violation(message, (*at, "region"), hint)
        shared = shared or (name, common)
        if common != shared[1]:
            message = f"The shared project of `{shared[0]}` is `{shared[1]}`, not `{common}`."
            hint = "Use the same shared project in every environment."
            yield Violation(message, (*at, "shared_project"), hint)
        if project == common:
            message = f"`{project}` is also the shared project."
            hint = "Set `shared_project` to another project id."
            yield Violation(message, (*at, "project"), hint)


def check_delivery(_: Stack, environment: Environment) -> Iterator[Violation]:
    """`delivery: argo` needs a `cloud`, for its secret manager; only Argo CD reads `repository`."""
    if environment.target != "kubernetes":
        return
    if environment.delivery == "argo" and environment.cloud is None:
        message = "`delivery: argo` needs a `cloud`: secrets come from its secret manager."
        yield Violation(message, ("delivery",), "Add `cloud:`, or use `delivery: direct`.")
    elif (
        environment.delivery != "argo"
        and environment.repository is not None
        and (environment.cloud is None or environment.delivery == "direct")
    ):
        hint = "Remove it, or use `delivery: argo`."
        yield Violation("`repository` is only for Argo CD.", ("repository",), hint, key=True)


def check_repository(_: Stack, environment: Environment) -> Iterator[Violation]:
    """`repository` and `desired` have no login: the file is in git. An SSH user may stay."""
    hint = (
        "Remove it from the file and from git history. Argo CD reads a login from a Secret, and "
        "`lapwing` reads LAPWING_DESIRED_TOKEN."
    )
    desired = environment.desired.url if environment.desired else None
    for key, url in (("repository", environment.repository), ("desired", desired)):
        if url and re.search(r"https?://[^/?#]*@|://[^/?#@]*:[^/?#]*@|\?", url):
            message = (
                f"`{key}` of an environment contains a login, or a query, which may have a token."
            )
            yield Violation(message, ("environments",), hint, key=True)  # Its line would be quoted.


def check_environment_registry(_: Stack, environment: Environment) -> Iterator[Violation]:
    """`registry` belongs to a cluster, and is a host and a folder."""
    if environment.registry is not None and environment.target == "machine":
        hint = "Set `registry` of the stack: releases for a machine are pushed there."
        message = "`registry` of an environment is only for `target: kubernetes`."
        yield Violation(message, ("registry",), hint, key=True)
    yield from registry_violations(environment.registry)


def check_database_images(stack: Stack, _: Environment) -> Iterator[Violation]:
    """`image` of a resource has a version, and is run by Lapwing."""
    for name, resource in stack.resources.items():
        if resource.image is None:
            continue
        for key in ("version", "managed"):
            if getattr(resource, key):
                message = f"`image` and `{key}` of a resource (`{name}`) exclude each other."
                hint = f"Remove `{key}`, or `image`."
                yield Violation(message, ("resources", name, key), hint, key=True)


def check_database_names(stack: Stack, _: Environment) -> Iterator[Violation]:
    """The name of the stack, which its databases get, is not that of a system database."""
    for name, resource in stack.resources.items():
        if stack.stack in SYSTEM_DATABASES.get(resource.kind, ()):
            message = f"`{stack.stack}` is a system database of {resource.kind} servers."
            hint = f"Rename the stack: `{name}` gets a database with its name."
            yield Violation(message, ("stack",), hint)


def check_accepted_vulnerabilities(stack: Stack, _: Environment) -> Iterator[Violation]:
    """A vulnerability is accepted once, and with a reason."""
    seen: set[tuple[str, str | None]] = set()
    for index, entry in enumerate(stack.scan.accept):
        at: KeyPath = ("scan", "accept", index)
        accepted = (entry.id.upper(), entry.package)
        if accepted in seen:
            message = f"`{entry.id}` is accepted twice."
            yield Violation(message, (*at, "id"), "Keep one of the entries.")
        seen.add(accepted)
        if not entry.reason.strip():
            hint = "Write why the vulnerability is accepted."
            yield Violation("`reason` is blank.", (*at, "reason"), hint)


def ignored_settings(stack: Stack, name: str, environment: Environment) -> Iterator[str]:
    """Describe settings that have no effect in an environment, for `lapwing check`.

    Nothing in a cluster reports when the last connection of an old slot ends, so the slot is
    removed when `keep_old` is over, and `drain` has no effect there.
    """
    if environment.target != "kubernetes":
        return
    for service_name, service in stack.services.items():
        if service.replicas.requests is not None:
            yield (
                f"In `{name}`: `replicas.requests` of {service_name} has no effect on Kubernetes, "
                "which scales by CPU."
            )
        rollout = service.rollout
        is_set = "drain" in rollout.model_fields_set and service.kind in ("web", "static")
        if is_set and rollout.drain > rollout.keep_old:
            drain, keep = show_duration(rollout.drain), show_duration(rollout.keep_old)
            yield (
                f"In `{name}`: `drain: {drain}` of {service_name} has no effect on Kubernetes. "
                f"Its old pods and their connections end after `keep_old: {keep}`."
            )


def built_images(stack: Stack, name: str, environment: Environment) -> Iterator[str]:
    """Describe which images `lapwing deploy` builds for an environment, for `lapwing check`."""
    names = stack.services_without_image
    if environment.target != "kubernetes" or not names:
        return
    services, registry = ", ".join(names), registry_of(stack, environment)
    if registry is not None:
        yield f"In `{name}`: images of {services} are built from source and pushed to {registry}."
    else:
        yield (
            f"In `{name}`: images of {services} are built from source and loaded into a cluster of "
            "kind or minikube. For any other cluster, set `registry`."
        )


def check_signing(stack: Stack, _: Environment) -> Iterator[Violation]:
    """`signing` has `key` or `keyless`; a private Sigstore instance has both of its files."""
    signing = stack.signing
    if signing is None:
        return
    if (signing.key is None) == (signing.keyless is None):
        hint = "Write `signing: {key: ...}` or `signing: {keyless: {identity: ..., issuer: ...}}`."
        message = "`signing` needs either `key` or `keyless`."
        yield Violation(message, ("signing",), hint, key=True)
    keyless = signing.keyless
    if keyless and (keyless.trusted_root is None) != (keyless.signing_config is None):
        hint = "Set both for a private Sigstore instance, none for the public one."
        message = "`keyless` needs both `trusted_root` and `signing_config`, or neither."
        yield Violation(message, ("signing", "keyless"), hint, key=True)
