"""Databases in the cluster: one pod with a volume each, from the official image.

For local clusters, and for small production where losing a node may cost a minute. They are
StatefulSets of our own because the charts that people used for this are no longer free. The
password comes from a Secret that is generated once, and no password is an argument of a process. A
probe runs in a shell, since nothing else expands a variable.

Sources: the documentation of the official images mysql, redis, mongo, postgres.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lapwing.plan import server_images
from lapwing.plan.model import ResourceKind
from lapwing.plan.server_images import IMAGES
from lapwing.render.kubernetes import pod, pod_settings
from lapwing.render.kubernetes.objects import (
    ClusterEnvironment,
    Manifest,
    name,
    new_object,
    selector,
    service,
    service_account,
)
from lapwing.render.kubernetes.pod import DATABASE, USER, size
from lapwing.render.kubernetes.setting import MERGE, Extra, Setting, Tree
from lapwing.stack.model import Resource
from lapwing.stack.resource_reference import PORTS

FILE = "data.yaml"
WAVE = 3
DEFAULT_STORAGE_BYTES = 10 * 2**30
"""The size of a volume if the stack file does not state it."""
_SORTING = IMAGES["mysql"].sorting


@dataclass(frozen=True, slots=True)
class Server:
    """How the official image of a kind of database is run.

    `start` is a shell script. `environment` maps variables to a text or to a key of its
    Secret (`@key`). `reach` is a shell script that succeeds when the database is ready at `$HOST`,
    without a password; `ping` one that succeeds when it is ready in its pod. Without `ping`, it is
    ready when it accepts connections. `$MEMORY` is the memory limit of the container in bytes, so
    that the settings follow the limit.
    """

    environment: dict[str, str]
    reach: str
    ping: str | None = None
    start: str | None = None


SERVERS: dict[ResourceKind, Server] = {
    "mysql": Server(
        environment={
            "MYSQL_DATABASE": DATABASE,
            "MYSQL_USER": USER,
            "MYSQL_PASSWORD": "@password",
            "MYSQL_ROOT_PASSWORD": "@root-password",
        },
        ping='MYSQL_PWD="$MYSQL_PASSWORD" mysqladmin ping -h 127.0.0.1 -u "$MYSQL_USER" --silent',
        reach='mysqladmin ping -h "$HOST" --silent',
        # A connection takes some MiB at most; 151 is MySQL's default. A binary log is only for
        # replication and point-in-time recovery: 3 days. ALTER TABLE sorts a whole table in files,
        # which have to fit: on the volume.
        start="connections=$((MEMORY / 8388608))\n"
        f"mkdir -p {_SORTING}\n"
        "exec docker-entrypoint.sh mysqld"
        " --innodb-buffer-pool-size=$((MEMORY / 10 * 6))"
        " --max-connections=$((connections > 151 ? connections : 151))"
        " --binlog-expire-logs-seconds=259200"
        f" --tmpdir={_SORTING}\n",
    ),
    "redis": Server(
        environment={"REDISCLI_AUTH": "@password"},
        ping='test "$(redis-cli ping)" = PONG',
        reach='redis-cli -h "$HOST" ping',
        # A quarter of the memory is left for copies of pages that change while the append-only
        # file is rewritten. The data may be more than a cache, so keys are not evicted.
        start="umask 077\n"
        """password=$(printf %s "$REDISCLI_AUTH" | sed 's/[\\\\"]/\\\\&/g')\n"""
        "{\n"
        """  printf 'requirepass "%s"\\n' "$password"\n"""
        "  echo appendonly yes\n"
        "  echo dir /data\n"
        '  echo "maxmemory $((MEMORY / 4 * 3))"\n'
        "  echo maxmemory-policy noeviction\n"
        "} > /tmp/redis.conf\n"
        "exec redis-server /tmp/redis.conf\n",
    ),
    "mongodb": Server(
        environment={
            "MONGO_INITDB_ROOT_USERNAME": USER,
            "MONGO_INITDB_ROOT_PASSWORD": "@password",
            "MONGO_INITDB_DATABASE": DATABASE,
            "HOME": "/home/mongodb",
        },
        # Each start of its shell takes more than a second of CPU time and 100 MB of the memory of
        # the pod. mongod listens when it has recovered its data, and to other pods when it has
        # been initialized.
        reach="mongosh --quiet --host \"$HOST\" --eval 'db.adminCommand({ping: 1}).ok'",
    ),
    "postgres": Server(
        environment={
            "POSTGRES_USER": USER,
            "POSTGRES_PASSWORD": "@password",
            "POSTGRES_DB": DATABASE,
            "PGDATA": "/var/lib/postgresql/data/pgdata",
        },
        ping='pg_isready -h 127.0.0.1 -U "$POSTGRES_USER" -d "$POSTGRES_DB"',
        reach='pg_isready -h "$HOST"',
    ),
}


def image(cluster: ClusterEnvironment, part: str) -> Setting:
    """Return the image of a resource, at the version of the stack file."""
    resource = cluster.own_resources[part]
    named = server_images.reference(resource.kind, resource.image, resource.version)
    return Setting(f"resources.{part}.image", cluster.pinned(named), f"The image of {part}.")


def manifests(cluster: ClusterEnvironment) -> Iterator[Manifest]:
    """Yield the databases that run in the cluster."""
    for part, resource in cluster.own_resources.items():
        kind = resource.kind
        account = service_account(cluster, part, kind)
        port = {"name": kind, "port": PORTS[kind], "targetPort": "data"}
        headless = service(cluster, part, kind, port, headless=True)
        # There is no other pod to connect to while this one does not respond to its probe in time.
        headless["spec"]["publishNotReadyAddresses"] = True
        yield Manifest(FILE, WAVE - 1, account)
        yield Manifest(FILE, WAVE - 1, headless)
        yield Manifest(FILE, WAVE, _stateful_set(cluster, part, resource))


def _stateful_set(cluster: ClusterEnvironment, part: str, resource: Resource) -> dict[str, Tree]:
    server = IMAGES[resource.kind]
    path, default = f"resources.{part}.storage", size(resource.storage or DEFAULT_STORAGE_BYTES)
    storage = Setting(path, default, f"The size of the volume of {part}.")
    claim = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": storage}},
        MERGE: Extra(
            Setting(
                f"resources.{part}.volumeClaim", storage_class(cluster, resource),
                "Additional fields of the volume claim, such as storageClassName.",
            )
        ),
    }  # fmt: skip
    template = {
        "serviceAccountName": name(part),
        **pod.NO_TOKEN,
        "securityContext": pod.security(server.user, group=server.user, files=server.user),
        "terminationGracePeriodSeconds": 60,
        "containers": [_container(cluster, part, resource)],
        "volumes": [
            {"name": _volume(p), "emptyDir": {"sizeLimit": "256Mi"}} for p in server.scratch
        ],
        MERGE: pod_settings.extra_spec(cluster, f"resources.{part}", resource.pods),
    }
    spec = {
        "serviceName": name(part),
        "replicas": 1,
        "selector": {"matchLabels": selector(part)},
        "template": {
            "metadata": pod_settings.metadata(
                cluster, part, resource.kind, f"resources.{part}", resource.pods
            ),
            "spec": template,
        },
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim}],
    }
    return new_object(cluster, "apps/v1", "StatefulSet", part, resource.kind, spec=spec)


def storage_class(cluster: ClusterEnvironment, resource: Resource | None = None) -> dict[str, str]:
    """Return the field of a volume claim with its storage class, if the stack file sets one."""
    own = resource.storage_class if resource else None
    called = own or cluster.settings.storage_class
    return {"storageClassName": called} if called else {}


def _container(cluster: ClusterEnvironment, part: str, resource: Resource) -> dict[str, Tree]:
    server, official = SERVERS[resource.kind], IMAGES[resource.kind]
    connects: dict[str, Tree] = {"tcpSocket": {"port": "data"}}
    ping = connects
    if server.ping is not None:
        ping = {"exec": {"command": ["/bin/sh", "-c", server.ping]}, "timeoutSeconds": 5}
    scratch = [{"name": _volume(p), "mountPath": p} for p in official.scratch]
    start = {"command": ["/bin/sh", "-c", server.start]} if server.start else {}
    default = {"cpu": "250m", "memory": size(official.memory)}
    environ = variables(part, resource.kind)
    if server.start:
        limit = {"containerName": resource.kind, "resource": "limits.memory"}
        environ.append({"name": "MEMORY", "valueFrom": {"resourceFieldRef": limit}})
    return {
        "name": resource.kind,
        "image": image(cluster, part),
        **start,
        "env": environ,
        "ports": [{"name": "data", "containerPort": PORTS[resource.kind]}],
        "resources": pod.requests(resource.resources, f"resources.{part}", default),
        "securityContext": pod.CONTAINER,
        "startupProbe": ping | {"periodSeconds": 5, "failureThreshold": 60},
        "livenessProbe": connects | {"periodSeconds": 20},
        "readinessProbe": ping | {"periodSeconds": 10},
        "volumeMounts": [{"name": "data", "mountPath": official.data}, *scratch],
    }


def waiting(cluster: ClusterEnvironment, part: str) -> dict[str, Tree]:
    """Build an init container that waits until a database in the cluster is ready.

    On a first installation its volume is created and filled, which takes longer than the retries
    of a Job.
    """
    resource = cluster.own_resources[part]
    server, user = SERVERS[resource.kind], IMAGES[resource.kind].user
    script = f"until {server.reach}; do echo 'waiting for the database'; sleep 2; done"
    return {
        "name": "database",
        "image": image(cluster, part),
        "command": ["/bin/sh", "-c", script],
        "env": [{"name": "HOST", "value": name(part)}, {"name": "HOME", "value": "/tmp"}],  # noqa: S108
        "resources": {
            "requests": {"cpu": "100m", "memory": "256Mi", "ephemeral-storage": "100Mi"},
            "limits": {"memory": "256Mi", "ephemeral-storage": "1Gi"},
        },
        "securityContext": {**pod.CONTAINER, "runAsUser": user, "runAsGroup": user},
        "volumeMounts": [pod.TMP_MOUNT],
    }


def variables(part: str, kind: ResourceKind) -> list[Tree]:
    """Build the variables with the user, the password and the database of a server."""
    return [_variable(part, name_, text) for name_, text in SERVERS[kind].environment.items()]


def _variable(part: str, variable: str, text: str) -> dict[str, Tree]:
    if not text.startswith("@"):
        return {"name": variable, "value": text}
    reference = {"secretKeyRef": {"name": name(part), "key": text[1:]}}
    return {"name": variable, "valueFrom": reference}


def _volume(path: str) -> str:
    return path.strip("/").replace("/", "-")
