"""Databases of Google Cloud: MySQL and PostgreSQL on Cloud SQL, Redis on Memorystore.

Each has a private address only. It has a standby in another zone, except on `spot`, and with
`backup` daily backups and, on Cloud SQL, the log of the last week for recovery to a point in time.
The URL is in Secret Manager, from where External Secrets copies it into the cluster.

Sources: Google Cloud, "Instance settings" of Cloud SQL (custom machine types: 1 vCPU or an even
number, 0.9 to 6.5 GiB each, in steps of 256 MiB, at least 3.75 GiB) and "Redis versions".
"""

from __future__ import annotations

from lapwing.render.addresses import DATABASES
from lapwing.render.terraform.cloud import Project, managed, secret_name
from lapwing.render.terraform.template import Body, merge, render
from lapwing.stack.cloud import managed_version
from lapwing.stack.load import LoadedStack
from lapwing.stack.model import Resource
from lapwing.stack.resource_reference import PORTS

_GIB, _MIB = 2**30, 2**20
_MIN_DISK_GIB, _MIN_MEMORY_MIB, _MEMORY_STEP_MIB = 10, 3840, 256
_LEAST_MIB_PER_CPU, _MOST_MIB_PER_CPU = 922, 6656
_LOGGED = ("log_connections", "log_disconnections", "log_lock_waits", "log_checkpoints")
_EXCEPTIONS = {
    "mysql": (
        "CKV_GCP_6:The parameter of a URL that requires TLS differs between drivers. Connections "
        "stay in the private network.",
    ),
    "postgres": (
        "CKV_GCP_6:TLS is required. Client certificates are not: External Secrets would have to "
        "copy one for each service.",
        "CKV_GCP_79:The version is that of the stack file.",
        "CKV_GCP_108:It would cause a DNS lookup per connection, and pod addresses have no names.",
        "CKV_GCP_110:pgAudit writes the statements of the application to the logs.",
        "CKV_GCP_111:Statements may contain personal data, so only errors are logged.",
        "CKV2_GCP_13:The duration of every statement would fill the logs, which are billed.",
    ),
}
_WITHOUT_BACKUP = {"mysql": ("CKV_GCP_14", "CKV2_GCP_20"), "postgres": ("CKV_GCP_14",)}
_SCHEMES = {"mysql": "mysql", "postgres": "postgresql"}


def databases(project: Project) -> Body | None:
    """Render the databases of every environment of a project that Google Cloud runs."""
    found = [(e, n, r) for e in project.environments for n, r in managed(e).items()]
    if not found:
        return None
    address, _, length = DATABASES.partition("/")
    return merge(
        render("managed", project, address=address, length=int(length)),
        *(
            (_redis if resource.kind == "redis" else _sql)(project, loaded, name, resource)
            for loaded, name, resource in found
        ),
    )


def _sql(project: Project, loaded: LoadedStack, name: str, resource: Resource) -> Body:
    is_postgres, standby = resource.kind == "postgres", not loaded.settings.spot
    # The standby of MySQL needs the binary log, and that needs backups.
    backup = resource.backup or (standby and not is_postgres)
    return render(
        "sql",
        project,
        name=f"{loaded.environment}-{name}",
        secret=secret_name(loaded, name),
        exceptions=[f"checkov:skip={check}" for check in _exceptions(resource.kind, backup)],
        version=_version(resource),
        tier=_tier(resource),
        availability="REGIONAL" if standby else "ZONAL",
        disk=max(_MIN_DISK_GIB, -(-(resource.storage or 0) // _GIB)),
        protected=loaded.environment == project.folder,
        ssl="ENCRYPTED_ONLY" if is_postgres else "ALLOW_UNENCRYPTED_AND_ENCRYPTED",
        backup=backup,
        recovery=backup if is_postgres else None,
        binlog=None if is_postgres else backup,
        flags=_flags(is_postgres),
        scheme=_SCHEMES[resource.kind],
        port=str(PORTS[resource.kind]),
        query="?sslmode=require" if is_postgres else "",
    )


def _exceptions(kind: str, backup: bool) -> tuple[str, ...]:
    if backup:
        return _EXCEPTIONS[kind]
    reason = "`backup` of the resource is not set in the stack file."
    return (*_EXCEPTIONS[kind], *(f"{check}:{reason}" for check in _WITHOUT_BACKUP[kind]))


def _flags(is_postgres: bool) -> list[Body]:
    if is_postgres:
        logged = [{"name": name, "value": "on"} for name in _LOGGED]
        return [*logged, {"name": "log_min_error_statement", "value": "error"}]
    return [{"name": "local_infile", "value": "off"}, {"name": "skip_show_database", "value": "on"}]


def _version(resource: Resource) -> str:
    version = managed_version(resource.kind, resource.version)
    assert version is not None  # Others are refused by a rule of the stack file.
    return version


def _tier(resource: Resource) -> str:
    """Return the smallest custom machine type that has the requested CPU and memory."""
    cpu = max(1, -int(-(resource.resources.cpu or 1) // 1))
    memory = -(-(resource.resources.memory or 0) // _MIB)
    cpu = max(cpu, -(-memory // _MOST_MIB_PER_CPU))
    cpu += cpu % 2 if cpu > 1 else 0
    memory = max(memory, _MIN_MEMORY_MIB, cpu * _LEAST_MIB_PER_CPU)
    return f"db-custom-{cpu}-{-(-memory // _MEMORY_STEP_MIB) * _MEMORY_STEP_MIB}"


def _redis(project: Project, loaded: LoadedStack, name: str, resource: Resource) -> Body:
    snapshots = {"persistence_mode": "RDB", "rdb_snapshot_period": "TWENTY_FOUR_HOURS"}
    return render(
        "redis",
        project,
        name=f"{loaded.environment}-{name}",
        secret=secret_name(loaded, name),
        version=_version(resource),
        tier="BASIC" if loaded.settings.spot else "STANDARD_HA",
        memory=max(1, -(-(resource.resources.memory or 0) // _GIB)),
        persistence=snapshots if resource.backup else None,
    )
