"""Rules about managed databases: the versions, tiers, sizes and names that a cloud accepts.

What Google or Atlas would refuse is reported before `terraform apply`.

Sources: Google Cloud, "Instance settings" of Cloud SQL (96 vCPU, 6.5 GiB each, 65,536 GB of disk;
an instance id and its project have 98 characters) and its pricing (624 GiB); Memorystore for Redis,
"Redis tier capabilities" (300 GB) and CreateInstanceRequest (40 characters); Compute Engine, naming
of resources (63); MongoDB Atlas, "Atlas M0 (Free Cluster) Limits" and "Atlas Limits" (64).
"""

from __future__ import annotations

from collections.abc import Iterator

from lapwing.stack.cloud import (
    DEFAULT_TIER,
    FREE_TIER,
    TIERS,
    managed_version,
    managed_versions,
    project_of,
)
from lapwing.stack.environment import Environment
from lapwing.stack.environment_rules import check_region
from lapwing.stack.model import Resource, Stack
from lapwing.stack.source import KeyPath, Violation

GIB = 2**30
LIMITS = {
    "sql": ("Cloud SQL", {"cpu": 96, "memory": 624 * GIB, "storage": 65_536 * GIB}),
    "redis": ("Memorystore", {"memory": 300 * GIB}),
}
FREE_STORAGE = GIB // 2
ONLY_DEDICATED = {
    "version": "Atlas chooses its version",
    "max_tier": "it has no auto-scaling",
    "replica_region": "it has one region",
}
"""Keys that have no effect on the free tier of Atlas, and why."""


def check_atlas(stack: Stack, environment: Environment) -> Iterator[Violation]:
    """`tier`, `max_tier` and `replica_region` are for MongoDB, and valid."""
    new_region = environment.cloud is not None and environment.cloud.new_region
    for name, resource in stack.resources.items():
        at: KeyPath = ("resources", name)
        for key in ("tier", "max_tier", "replica_region"):
            given: str | None = getattr(resource, key)
            if given is None:
                continue
            if resource.kind != "mongodb":
                message = f"`{key}` is only for a managed MongoDB; `{name}` is {resource.kind}."
                hint = "Use `resources: {cpu, memory}` for a database in the cluster."
                yield Violation(message, (*at, key), hint, key=True)
            elif key != "replica_region" and given not in TIERS:
                near = next((t for t in TIERS if t.lower() == given.lower()), None)
                hint = f"Did you mean `{near}`?" if near else f"Tiers: {', '.join(TIERS)}."
                yield Violation(f"MongoDB Atlas has no tier {given!r}.", (*at, key), hint)
        if resource.replica_region is not None:
            path = (*at, "replica_region")
            yield from check_region(resource.replica_region, path, new=new_region)
        tier, most = resource.tier or DEFAULT_TIER, resource.max_tier
        if tier in TIERS and most in TIERS and TIERS.index(most) < TIERS.index(tier):
            message = f"`max_tier` ({most}) is smaller than `tier` ({tier})."
            yield Violation(message, (*at, "max_tier"))


def check_managed_sizes(stack: Stack, environment: Environment) -> Iterator[Violation]:
    """The cloud of an environment offers the version and the size of each database it runs."""
    if environment.cloud is None:
        return
    for name, resource in stack.resources.items():
        if resource.kind == "mongodb":
            yield from _check_free_tier(name, resource)
        elif resource.managed:
            if managed_version(resource.kind, resource.version) is None:
                message = f"Google Cloud does not offer {resource.kind} {resource.version}."
                offered = ", ".join(managed_versions(resource.kind))
                yield Violation(message, ("resources", name, "version"), f"Versions: {offered}.")
            yield from _check_size(name, resource)


def check_managed_names(stack: Stack, environment: Environment) -> Iterator[Violation]:
    """The names that `lapwing infra` gives to databases are not longer than the cloud accepts."""
    if environment.cloud is None:
        return
    for where in (n for n, e in stack.environments.items() if e == environment):
        for name, resource in stack.resources.items():
            instance, names = f"{where}-{name}", []
            if resource.kind == "mongodb":
                names = [
                    (f"mongodb-{instance}", 63, "private endpoint"),
                    (f"{stack.stack}-{instance}", 64, "project of MongoDB Atlas"),
                ]
            elif resource.managed and resource.kind == "redis":
                names = [(instance, 40, "instance of Memorystore")]
            elif resource.managed:
                in_project = f"{project_of(stack, where)}:{instance}"
                names = [(in_project, 98, "instance of Cloud SQL")]
            for given, most, what in names:
                if len(given) > most:
                    message = f"`{given}` ({what}) has more than {most} characters."
                    hint = "Shorten the name of the resource, the environment or the stack."
                    yield Violation(message, ("resources", name), hint, key=True)


def _check_free_tier(name: str, resource: Resource) -> Iterator[Violation]:
    """Refuse what the free tier of Atlas does not have. `backup` is ignored there."""
    if resource.tier != FREE_TIER:
        return
    hint = f"Remove it, or set `tier: {DEFAULT_TIER}`."
    for key, reason in ONLY_DEDICATED.items():
        if getattr(resource, key) is not None:
            message = f"`{key}` of `{name}` has no effect on `tier: {FREE_TIER}`: {reason}."
            yield Violation(message, ("resources", name, key), hint, key=True)
    if (resource.storage or 0) > FREE_STORAGE:
        message = f"`tier: {FREE_TIER}` of MongoDB Atlas has 512Mi of storage."
        yield Violation(message, ("resources", name, "storage"), hint)


def _check_size(name: str, resource: Resource) -> Iterator[Violation]:
    product, limits = LIMITS["redis" if resource.kind == "redis" else "sql"]
    for key, most in limits.items():
        path: KeyPath = ("storage",) if key == "storage" else ("resources", key)
        asked = getattr(resource if key == "storage" else resource.resources, key)
        if asked is not None and asked > most:
            limit = f"{most} vCPU" if key == "cpu" else f"{most // GIB}Gi"
            message = f"`{key}` of `{name}` is too large: {product} has at most {limit}."
            hint = f"Reduce `{key}`, or split the data."
            yield Violation(message, ("resources", name, *path), hint)


RULES = (check_atlas, check_managed_sizes, check_managed_names)
