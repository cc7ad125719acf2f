"""Databases in the cluster: one pod with a volume each, from the official image. Pure.

For trying a stack out, and for small production where losing a machine may cost a minute. They are
StatefulSets of our own because the charts that people used for this lost their free images. A
password comes from a Secret that is made up once, and no password is an argument of a process. A
probe runs in a shell, since nothing else expands a variable.

Sources: the documentation of the official images mysql, redis, mongo, postgres.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lapwing.render.kubernetes import pod
from lapwing.render.kubernetes.pod import DATABASE, USER
from lapwing.render.kubernetes.setting import Setting, Tree
from lapwing.render.kubernetes.target import Manifest, Target, labels, meta, name, selector, size
from lapwing.stack.model import Resource
from lapwing.stack.resource_reference import PORTS

FILE = "data.yaml"
WAVE = 3
STORAGE = 10 * 2**30
"""Bytes of a volume where the stack file does not say."""


@dataclass(frozen=True, slots=True)
class Server:
    """How the official image of a kind of database is run. `user` is its numeric user, `data` the
    folder of its data, `scratch` the other folders that it writes to, `start` a shell script,
    `environ` maps variables to a text or to a key of its Secret (`@key`), `ping` is a shell script
    that succeeds when it serves, `reach` one that succeeds when it serves at `$HOST`, and needs no
    password."""

    image: str
    user: int
    data: str
    scratch: tuple[str, ...]
    environ: dict[str, str]
    ping: str
    reach: str
    start: str | None = None
    arguments: tuple[str, ...] = ()
    memory: str = "512Mi"


SERVERS: dict[str, Server] = {
    "mysql": Server(
        image="mysql:8.4",
        user=999,
        data="/var/lib/mysql",
        scratch=("/tmp", "/var/run/mysqld"),  # noqa: S108
        environ={
            "MYSQL_DATABASE": DATABASE,
            "MYSQL_USER": USER,
            "MYSQL_PASSWORD": "@password",
            "MYSQL_ROOT_PASSWORD": "@root-password",
        },
        ping='MYSQL_PWD="$MYSQL_PASSWORD" mysqladmin ping -h 127.0.0.1 -u "$MYSQL_USER" --silent',
        reach='mysqladmin ping -h "$HOST" --silent',
        memory="1Gi",
    ),
    "redis": Server(
        image="redis:7",
        user=999,
        data="/data",
        scratch=("/tmp",),  # noqa: S108
        environ={"REDISCLI_AUTH": "@password"},
        ping='test "$(redis-cli ping)" = PONG',
        reach='redis-cli -h "$HOST" ping',
        start="umask 077\n"
        'printf "requirepass %s\\nappendonly yes\\ndir /data\\n" "$REDISCLI_AUTH" '
        "> /tmp/redis.conf\n"
        "exec redis-server /tmp/redis.conf\n",
        memory="256Mi",
    ),
    "mongodb": Server(
        image="mongo:8",
        user=999,
        data="/data/db",
        scratch=("/tmp", "/data/configdb", "/home/mongodb"),  # noqa: S108
        environ={
            "MONGO_INITDB_ROOT_USERNAME": USER,
            "MONGO_INITDB_ROOT_PASSWORD": "@password",
            "MONGO_INITDB_DATABASE": DATABASE,
            "HOME": "/home/mongodb",
        },
        ping="mongosh --quiet --eval 'db.adminCommand({ping: 1}).ok' | grep -q 1",
        reach="mongosh --quiet --host \"$HOST\" --eval 'db.adminCommand({ping: 1}).ok'",
        memory="1Gi",
    ),
    "postgres": Server(
        image="postgres:17",
        user=999,
        data="/var/lib/postgresql/data",
        scratch=("/tmp", "/var/run/postgresql"),  # noqa: S108
        environ={
            "POSTGRES_USER": USER,
            "POSTGRES_PASSWORD": "@password",
            "POSTGRES_DB": DATABASE,
            "PGDATA": "/var/lib/postgresql/data/pgdata",
        },
        ping='pg_isready -h 127.0.0.1 -U "$POSTGRES_USER" -d "$POSTGRES_DB"',
        reach='pg_isready -h "$HOST"',
    ),
}


def image(resource: Resource) -> str:
    """The image of a resource, at the version that the stack file wants."""
    repository, tag = SERVERS[resource.kind].image.split(":")
    return f"{repository}:{resource.version or tag}"


def manifests(target: Target) -> Iterator[Manifest]:
    """The databases that run in the cluster."""
    for part, resource in target.own_resources.items():
        yield Manifest(FILE, WAVE - 1, _account(target, part, resource))
        yield Manifest(FILE, WAVE - 1, _service(target, part, resource))
        yield Manifest(FILE, WAVE, _stateful_set(target, part, resource))


def _account(target: Target, part: str, resource: Resource) -> dict[str, Tree]:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": meta(target, name(part), part, resource.kind),
        "automountServiceAccountToken": False,
    }


def _service(target: Target, part: str, resource: Resource) -> dict[str, Tree]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta(target, name(part), part, resource.kind),
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "None",
            "selector": selector(part),
            "ports": [{"name": resource.kind, "port": PORTS[resource.kind], "targetPort": "data"}],
        },
    }


def _stateful_set(target: Target, part: str, resource: Resource) -> dict[str, Tree]:
    server = SERVERS[resource.kind]
    volumes = [{"name": _volume(p), "emptyDir": {"sizeLimit": "256Mi"}} for p in server.scratch]
    user = {"runAsNonRoot": True, "runAsUser": server.user, "runAsGroup": server.user}
    storage = Setting(
        f"resources.{part}.storage", size(resource.storage or STORAGE), f"The volume of {part}."
    )
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": meta(target, name(part), part, resource.kind),
        "spec": {
            "serviceName": name(part),
            "replicas": 1,
            "selector": {"matchLabels": selector(part)},
            "template": {
                "metadata": {"labels": labels(target, part, resource.kind)},
                "spec": {
                    "serviceAccountName": name(part),
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "securityContext": user
                    | {"fsGroup": server.user, "seccompProfile": {"type": "RuntimeDefault"}},
                    "terminationGracePeriodSeconds": 60,
                    "containers": [_container(part, resource)],
                    "volumes": volumes,
                },
            },
            "volumeClaimTemplates": [
                {
                    "metadata": {"name": "data"},
                    "spec": {
                        "accessModes": ["ReadWriteOnce"],
                        "resources": {"requests": {"storage": storage}},
                    },
                }
            ],
        },
    }


def _container(part: str, resource: Resource) -> dict[str, Tree]:
    server = SERVERS[resource.kind]
    ping = {"exec": {"command": ["/bin/sh", "-c", server.ping]}, "timeoutSeconds": 5}
    scratch = [{"name": _volume(p), "mountPath": p} for p in server.scratch]
    start = {"command": ["/bin/sh", "-c", server.start]} if server.start else {}
    arguments = {"args": list(server.arguments)} if server.arguments else {}
    default = {"cpu": "250m", "memory": server.memory}
    return {
        "name": resource.kind,
        "image": Setting(f"resources.{part}.image", image(resource), f"The image of {part}."),
        **start,
        **arguments,
        "env": [_variable(part, variable, text) for variable, text in server.environ.items()],
        "ports": [{"name": "data", "containerPort": PORTS[resource.kind]}],
        "resources": pod.asked(resource.resources, f"resources.{part}", default),
        "securityContext": pod.CONTAINER,
        "startupProbe": ping | {"periodSeconds": 5, "failureThreshold": 60},
        "livenessProbe": {"tcpSocket": {"port": "data"}, "periodSeconds": 20},
        "readinessProbe": ping | {"periodSeconds": 10},
        "volumeMounts": [{"name": "data", "mountPath": server.data}, *scratch],
    }


def waiting(target: Target, part: str) -> dict[str, Tree]:
    """An init container that ends when a database in the cluster serves: on a first installation
    its volume has to be made and filled, which takes longer than a Job's own tries."""
    resource = target.own_resources[part]
    server = SERVERS[resource.kind]
    script = f"until {server.reach}; do echo 'waiting for the database'; sleep 2; done"
    return {
        "name": "database",
        "image": Setting(f"resources.{part}.image", image(resource), f"The image of {part}."),
        "command": ["/bin/sh", "-c", script],
        "env": [{"name": "HOST", "value": name(part)}, {"name": "HOME", "value": "/tmp"}],  # noqa: S108
        "resources": {
            "requests": {"cpu": "100m", "memory": "256Mi", "ephemeral-storage": "100Mi"},
            "limits": {"memory": "256Mi", "ephemeral-storage": "1Gi"},
        },
        "securityContext": {**pod.CONTAINER, "runAsUser": server.user, "runAsGroup": server.user},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
    }


def _variable(part: str, variable: str, text: str) -> dict[str, Tree]:
    if not text.startswith("@"):
        return {"name": variable, "value": text}
    reference = {"secretKeyRef": {"name": name(part), "key": text[1:]}}
    return {"name": variable, "valueFrom": reference}


def _volume(path: str) -> str:
    return path.strip("/").replace("/", "-")
