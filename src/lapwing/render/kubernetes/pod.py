"""The pod of a service: one container with the fewest permissions that still let it serve.

It runs as a user that is not root, without capabilities, with a read-only root file system and a
`/tmp` of limited size, and without an API token: what Pod Security calls "restricted", and a little
more. Environment variables are part of the pod template and not of a ConfigMap beside it. So they
belong to the ReplicaSet: a rollback restores the settings, and nothing that an old slot needs can
be pruned.

Sources: Kubernetes documentation, Pod Security Standards, "restricted"; Pod Lifecycle; environment
variables `$(NAME)`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from lapwing.plan.names import secret_part
from lapwing.render.kubernetes.objects import PORT, ClusterEnvironment, name, selector
from lapwing.render.kubernetes.pod_settings import extra_spec, metadata
from lapwing.render.kubernetes.setting import MERGE, Extra, Joined, Setting, Tree, join
from lapwing.stack import resource_reference as reference
from lapwing.stack.fields import ComputeResources
from lapwing.stack.model import Service
from lapwing.stack.resource_reference import variable_of
from lapwing.system.shell import with_exec

PRE_STOP_S = 5
"""How long a terminating pod still serves, until no node sends it new connections."""
RELEASE_LABELS = ("pod-template-hash", "rollouts-pod-template-hash")
"""Labels of pods that differ between releases; a pod has the one of its Deployment or Rollout.
Source: Kubernetes documentation, Pod Topology Spread Constraints, `matchLabelKeys` (from 1.27)."""
DEFAULT_CPU = 0.1
"""The CPU of a container whose service states none."""
DEFAULT_TMP_BYTES = 256 * 2**20
"""The size of `/tmp` of a container whose service states none."""
CONTAINER = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
NO_TOKEN = {"automountServiceAccountToken": False, "enableServiceLinks": False}
TMP_MOUNT = {"name": "tmp", "mountPath": "/tmp"}  # noqa: S108 - an emptyDir of the pod
ROLLING_UPDATE = {
    "type": "RollingUpdate",
    "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
}
_SHELL = re.compile(r"[|&;<>()`\n*?~#]|\$\(|(^|\s)\w+=\S*\s")
"""Syntax that needs a shell. A lone variable is expanded by the cluster."""
_VARIABLE = re.compile(r"(\$\$+)|\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})")
_EXPANDED = re.compile(r"\$\$+|\$(?=\()")
"""Text that the cluster would expand in a command: `$$` becomes `$`, `$(NAME)` a variable's value.
"""
USER = "app"
DATABASE = "app"


def template(
    cluster: ClusterEnvironment,
    part: str,
    service: Service,
    *,
    component: str,
    command: str | None = None,
    restart: str | None = None,
) -> dict[str, Tree]:
    """Build the pod template of a service, or of a job in its image (`command`, `restart`)."""
    serves = restart is None
    owner = _owner(cluster, part)
    container = {
        "name": "main",
        "image": cluster.image(owner),
        **command_of(command if command is not None else service.command),
        "env": [*environment(cluster, owner, service), _extra(owner, "extraEnv")],
        **(_ports(service) if serves else {}),
        "resources": requests(service.resources, f"services.{owner}", scratch=service.scratch),
        "securityContext": CONTAINER,
        **(_probes(cluster, service) if serves else {}),
        "volumeMounts": [TMP_MOUNT, _extra(owner, "extraVolumeMounts")],
    }
    if serves and service.kind in ("web", "static"):
        container["lifecycle"] = {"preStop": {"sleep": {"seconds": PRE_STOP_S}}}
    limit = size(service.scratch or DEFAULT_TMP_BYTES)
    spec: dict[str, Tree] = {
        "serviceAccountName": name(owner),
        **NO_TOKEN,
        "securityContext": security(service.user, files=service.user),
        "containers": [container],
        "volumes": [
            {"name": "tmp", "emptyDir": {"sizeLimit": limit}},
            _extra(owner, "extraVolumes"),
        ],
    }
    if restart is not None:
        spec["restartPolicy"] = restart
    else:
        spec["terminationGracePeriodSeconds"] = PRE_STOP_S + round(service.rollout.stop_grace)
        spec["topologySpreadConstraints"] = spread(part)
    spec[MERGE] = extra_spec(cluster, f"services.{owner}", service.pods, spot=True)
    found = metadata(cluster, part, component, f"services.{owner}", service.pods)
    return {"metadata": found, "spec": spec}


EXTRAS = {
    "extraEnv": "Additional environment variables, as in a container's `env`.",
    "extraVolumes": "Additional volumes, as in a pod's `volumes`, such as a CA certificate.",
    "extraVolumeMounts": "Mounts of additional volumes, as in a container's `volumeMounts`.",
}


def _extra(part: str, key: str) -> Extra:
    return Extra(Setting(f"services.{part}.{key}", [], EXTRAS[key]))


def _owner(cluster: ClusterEnvironment, part: str) -> str:
    """Return the service that a pod belongs to: `fleet-migrate` is a job of `fleet`."""
    if part in cluster.services:
        return part
    return max((s for s in cluster.services if part.startswith(f"{s}-")), key=len)


def security(
    user: int | None, *, group: int | None = None, files: int | None = None
) -> dict[str, Tree]:
    """Build the security context of a pod: not root, as these numeric users and groups."""
    ids = {"runAsUser": user, "runAsGroup": group, "fsGroup": files}
    return {
        "runAsNonRoot": True,
        **{key: value for key, value in ids.items() if value is not None},
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def command_of(command: str | None) -> dict[str, Tree]:
    """Build the command that replaces the image's own.

    It is the list of its words, with `$PORT` expanded by the cluster, or run by a shell if it has
    shell syntax; the shell is replaced by the last program, so that SIGTERM reaches it. What the
    cluster would expand in it otherwise is escaped.
    """
    if not command:
        return {}
    try:
        words = [] if _SHELL.search(command) else shlex.split(command)
    except ValueError:
        words = []
    if words:
        return {"command": [_VARIABLE.sub(_reference, word) for word in words]}
    script = _EXPANDED.sub(lambda m: m[0] * 2, with_exec(command))
    return {"command": ["/bin/sh", "-c", script]}


def _reference(match: re.Match[str]) -> str:
    return match[1] * 2 if match[1] else f"$({match[2] or match[3]})"


def port(service: Service) -> int:
    """Return the port that a container listens on."""
    return service.port or PORT


def _ports(service: Service) -> dict[str, Tree]:
    if service.kind not in ("web", "static"):
        return {}
    return {"ports": [{"name": "http", "containerPort": port(service)}]}


def requests(
    needs: ComputeResources,
    path: str,
    default: Mapping[str, str] | None = None,
    scratch: int | None = None,
) -> Setting:
    """Build what a container requests.

    Memory is also its limit; CPU has none, because a limit throttles a pod beside idle cores.
    `scratch` is the stated size of `/tmp` in bytes: a pod whose volumes on the node's disk hold
    more than the ephemeral-storage limit is evicted, however large they may be.
    """
    requested = dict(default or {"cpu": cores(DEFAULT_CPU), "memory": "128Mi"})
    if needs.cpu is not None:
        requested["cpu"] = cores(needs.cpu)
    if needs.memory is not None:
        requested["memory"] = size(needs.memory)
    disk = size(scratch + DEFAULT_TMP_BYTES) if scratch else None
    requested["ephemeral-storage"] = disk or "100Mi"
    limits = {"memory": requested["memory"], "ephemeral-storage": disk or "1Gi"}
    value = {"requests": requested, "limits": limits}
    return Setting(f"{path}.resources", value, "CPU and memory, in Kubernetes units.")


def cores(value: float) -> str:
    """Format CPU in Kubernetes units."""
    milli = round(value * 1000)
    return str(milli // 1000) if milli % 1000 == 0 else f"{milli}m"


def size(value: int) -> str:
    """Format bytes in Kubernetes units, in the largest one that is exact."""
    for unit, factor in (("Ti", 2**40), ("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10)):
        if value and value % factor == 0:
            return f"{value // factor}{unit}"
    return str(value)


def environment(cluster: ClusterEnvironment, part: str, service: Service) -> list[Tree]:
    """Build the variables of a container: Lapwing's, the resources', the service's, its secrets.

    A variable that another one uses comes first, as the cluster requires. Plain variables of the
    service are values of the chart.
    """
    found: dict[str, Tree] = {
        "LAPWING_STACK": {"value": cluster.loaded.stack.stack},
        "LAPWING_ENVIRONMENT": {"value": cluster.loaded.environment},
    }
    revision = cluster.revisions.get(part, cluster.revision)
    if revision:
        found["LAPWING_REVISION"] = {"value": revision}
    if service.kind in ("web", "static"):
        found["PORT"] = {"value": str(port(service))}
        found["HOST"] = {"value": "0.0.0.0"}  # noqa: S104 - in its pod
    for need in service.needs:
        found |= _resource(cluster, need)
    for other in service.after:
        if cluster.services[other].kind in ("web", "static"):
            at = f":{port(cluster.services[other])}"
            found[variable_of(other)] = {"value": join("http://", name(other), at)}
    for secret in service.secrets:
        found[secret.name] = _from_secret(secret_part(secret.name), "value")
    for variable, text in service.env.items():
        value: Tree = _value(cluster, text)
        if isinstance(value, str) and "{{" not in value:  # Analysis templates escape it.
            path = f"services.{part}.env.{variable}"
            value = Setting(path, value, f"An environment variable of {part}.")
        found[variable] = {"value": value}
    return [{"name": variable, **value} for variable, value in found.items()]


def _resource(cluster: ClusterEnvironment, need: str) -> dict[str, Tree]:
    """Build the variables with the URL of a resource and its password."""
    variable = cluster.variable(need)
    if need in cluster.managed_resources:
        return {variable: _from_secret(secret_part(variable), "value")}
    password = _password_variable(need)
    return {
        password: _from_secret(need, "password"),
        variable: {"value": _url(cluster, need, f"$({password})")},
    }


def _password_variable(need: str) -> str:
    return f"LAPWING_{need.upper().replace('-', '_')}_PASSWORD"


def _url(cluster: ClusterEnvironment, need: str, password: str) -> Joined:
    """Build the URL of a resource in the cluster."""
    kind = cluster.own_resources[need].kind
    user = "" if kind == "redis" else USER
    path = {"redis": "0", "mongodb": f"{DATABASE}?authSource=admin"}.get(kind, DATABASE)
    host = join(name(need), f":{reference.PORTS[kind]}")
    return join(f"{kind}://{user}:{password}@", host, f"/{path}")


def _value(cluster: ClusterEnvironment, text: str) -> Joined | str:
    """Build the value of a variable: text in which references to resources are resolved."""
    value = join(
        *(
            literal(piece) if isinstance(piece, str) else _attribute(cluster, *piece)
            for piece in reference.pieces(text)
        )
    )
    if any(not isinstance(piece, str) for piece in value.pieces):
        return value
    return "".join(str(piece) for piece in value.pieces)


def _attribute(cluster: ClusterEnvironment, need: str, attribute: str) -> Joined | str:
    kind = cluster.own_resources[need].kind
    password = f"$({_password_variable(need)})"
    match attribute:
        case "host":
            return name(need)
        case "port":
            return str(reference.PORTS[kind])
        case "user":
            return "" if kind == "redis" else USER
        case "database":
            return "0" if kind == "redis" else DATABASE
        case "password":
            return password
    return _url(cluster, need, password)


def literal(text: str) -> str:
    """Escape text of the stack file that the cluster must not expand: `$$` means `$`."""
    return text.replace("$", "$$")


def _from_secret(part: str, key: str) -> dict[str, Tree]:
    return {"valueFrom": {"secretKeyRef": {"name": name(part), "key": key}}}


def _probes(cluster: ClusterEnvironment, service: Service) -> dict[str, Tree]:
    """Build the startup, liveness and readiness probes of a container.

    Without `live`, the liveness probe checks the open port only: a health path may query the
    database, and an unreachable database is no reason to restart every replica.
    """
    if service.kind == "job" or (service.kind == "worker" and service.health.path is None):
        return {}
    health = service.health
    path = "/" if service.kind == "static" and health.path is None else health.path
    period = max(1, round(health.interval))
    seconds = max(1, round(health.timeout))
    start = max(1, round(health.start_timeout))
    host = health.host or cluster.domain
    return {
        "startupProbe": _probe(service, health.live or health.path, host)
        | {"periodSeconds": 1, "timeoutSeconds": seconds, "failureThreshold": start},
        "livenessProbe": _probe(service, health.live, host)
        | {"periodSeconds": max(10, period), "timeoutSeconds": seconds, "failureThreshold": 6},
        "readinessProbe": _probe(service, path, host)
        | {"periodSeconds": period, "timeoutSeconds": seconds, "failureThreshold": 2},
    }


def _probe(service: Service, path: str | None, host: Tree) -> dict[str, Tree]:
    at = "http" if service.kind in ("web", "static") else port(service)
    if path is None:
        return {"tcpSocket": {"port": at}}
    headers: list[Tree] = [{"name": "Host", "value": host}]
    return {"httpGet": {"path": path, "port": at, "httpHeaders": headers}}


def spread(part: str) -> list[Tree]:
    """Spread the pods of one release of a service over zones and nodes, if there are several.

    Pods of the release that is replaced do not count: otherwise the new pods would avoid their
    nodes.
    """
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector(part)},
            "matchLabelKeys": list(RELEASE_LABELS),
        }
        for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    ]
