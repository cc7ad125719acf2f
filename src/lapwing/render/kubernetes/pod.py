"""The pod of a service: one container that may do nothing but serve. Pure.

It runs as a user that is not root, with no capability, a root file system that it cannot write to
and a `/tmp` of a stated size, without a token of the cluster: what Pod Security calls "restricted",
and a little more. Variables stand in the pod template itself and not in a ConfigMap beside it. So
they belong to the ReplicaSet: a rollback takes the settings back, and nothing that an old slot
needs can be pruned under it.

Sources: Kubernetes documents, Pod Security Standards, "restricted"; Pod Lifecycle; environment
variables `$(NAME)`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from lapwing.plan.names import INSTANCE, NAME, secret_part
from lapwing.render.kubernetes.setting import Joined, Scope, Setting, Tree, join
from lapwing.render.kubernetes.target import (
    PORT,
    SCRATCH,
    Target,
    cores,
    labels,
    name,
    size,
)
from lapwing.stack import resource_reference as reference
from lapwing.stack.fields import ComputeResources
from lapwing.stack.model import Health, Service
from lapwing.stack.resource_reference import variable_of

DRAIN = 5
"""Seconds that a pod goes on after it was told to end: nobody sends it requests any more then."""
CONTAINER = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
_SHELL = re.compile(r"[|&;<>()`\n*?~#]|\$\(|(^|\s)\w+=\S*\s")
"""What only a shell understands. A variable by itself is expanded by the cluster."""
_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})")
USER = "app"
DATABASE = "app"


def template(
    target: Target,
    part: str,
    service: Service,
    *,
    component: str,
    command: str | None = None,
    restart: str | None = None,
) -> dict[str, Tree]:
    """The pod template of a service, or of a job in its image (`command`, `restart`)."""
    serves = restart is None
    container = {
        "name": "main",
        "image": target.image(_owner(target, part)),
        **words(command if command is not None else service.command),
        "env": environ(target, _owner(target, part), service),
        **(ports(service) if serves else {}),
        "resources": asked(
            service.resources, f"services.{_owner(target, part)}", scratch=service.scratch
        ),
        "securityContext": CONTAINER,
        **(probes(service) if serves else {}),
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
    }
    if serves and service.kind in ("web", "static"):
        container["lifecycle"] = {"preStop": {"sleep": {"seconds": DRAIN}}}
    spec: dict[str, Tree] = {
        "serviceAccountName": name(_owner(target, part)),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": _user(service),
        "containers": [container],
        "volumes": [_tmp(service.scratch or SCRATCH)],
    }
    if restart is not None:
        spec["restartPolicy"] = restart
    else:
        spec["terminationGracePeriodSeconds"] = DRAIN + round(service.rollout.stop_grace)
        spec["topologySpreadConstraints"] = spread(part)
    spec |= placed(target)
    return {"metadata": {"labels": labels(target, part, component)}, "spec": spec}


def _owner(target: Target, part: str) -> str:
    """The service that a pod belongs to: `fleet-migrate` is a job of `fleet`."""
    if part in target.services:
        return part
    owners = [s for s in target.services if part == s or part.startswith(f"{s}-")]
    return max(owners, key=len)


def _user(service: Service) -> dict[str, Tree]:
    found: dict[str, Tree] = {"runAsNonRoot": True}
    if service.user is not None:
        found |= {"runAsUser": service.user, "fsGroup": service.user}
    return found | {"seccompProfile": {"type": "RuntimeDefault"}}


def _tmp(limit: int) -> dict[str, Tree]:
    return {"name": "tmp", "emptyDir": {"sizeLimit": size(limit)}}


def words(command: str | None) -> dict[str, Tree]:
    """A command in place of the image's own: its words, with `$PORT` expanded by the cluster, or
    through a shell where it takes one."""
    if not command:
        return {}
    if _SHELL.search(command):
        return {"command": ["/bin/sh", "-c", command]}
    try:
        split = shlex.split(command)
    except ValueError:
        return {"command": ["/bin/sh", "-c", command]}
    return {"command": [_VARIABLE.sub(lambda m: f"$({m[1] or m[2]})", w) for w in split]}


def port(service: Service) -> int:
    """The port that a container listens on."""
    return service.port or PORT


def ports(service: Service) -> dict[str, Tree]:
    """The ports of a container that has one."""
    if service.kind not in ("web", "static"):
        return {}
    return {"ports": [{"name": "http", "containerPort": port(service)}]}


def asked(
    needs: ComputeResources,
    path: str,
    default: Mapping[str, str] | None = None,
    scratch: int | None = None,
) -> Setting:
    """What a container asks for. Memory is also its limit; CPU has none, because a limit throttles
    a pod beside idle cores. `scratch` is the stated size of `/tmp` in bytes: a pod whose volumes
    on the node's disk hold more than the limit is evicted, however large they may be."""
    requests = dict(default or {"cpu": "100m", "memory": "128Mi"})
    if needs.cpu is not None:
        requests["cpu"] = cores(needs.cpu)
    if needs.memory is not None:
        requests["memory"] = size(needs.memory)
    disk = size(scratch + SCRATCH) if scratch else None
    requests["ephemeral-storage"] = disk or "100Mi"
    limits = {"memory": requests["memory"], "ephemeral-storage": disk or "1Gi"}
    value = {"requests": requests, "limits": limits}
    return Setting(f"{path}.resources", value, "CPU and memory, as Kubernetes writes them.")


def environ(target: Target, part: str, service: Service) -> list[Tree]:
    """The variables of a container: Lapwing's own, what the resources say, the service's, and its
    secrets. What is used in another comes first, as the cluster demands. Plain ones of a job that
    runs `after` services are values of a chart: what such a job does is for who installs it."""
    found: dict[str, Tree] = {
        "LAPWING_STACK": {"value": target.loaded.stack.stack},
        "LAPWING_ENVIRONMENT": {"value": target.loaded.environment},
    }
    if target.revision:
        found["LAPWING_REVISION"] = {"value": target.revision}
    if service.kind in ("web", "static"):
        found["PORT"] = {"value": str(port(service))}
        found["HOST"] = {"value": "0.0.0.0"}  # noqa: S104 - in a pod of its own
    for need in service.needs:
        found |= resource(target, need)
    for other in service.after:
        if target.services[other].kind in ("web", "static"):
            at = f":{port(target.services[other])}"
            found[variable_of(other)] = {"value": join("http://", name(other), at)}
    for secret in service.secrets:
        found[secret.name] = _from_secret(secret_part(secret.name), "value")
    for variable, text in service.env.items():
        value = _value(target, text)
        if service.after and isinstance(value["value"], str):
            path = f"services.{part}.env.{variable}"
            value = {"value": Setting(path, value["value"], f"A variable of {part}.")}
        found[variable] = value
    return [{"name": variable, **value} for variable, value in found.items()]


def resource(target: Target, need: str) -> dict[str, Tree]:
    """The variables that tell a container where a resource is."""
    variable = target.variable(need)
    if need in target.managed_resources:
        return {variable: _from_secret(secret_part(variable), "value")}
    hidden = password_variable(need)
    return {
        hidden: _from_secret(need, "password"),
        variable: {"value": url(target, need, f"$({hidden})")},
    }


def password_variable(need: str) -> str:
    """The variable from which others take the password of a resource."""
    return f"LAPWING_{need.upper().replace('-', '_')}_PASSWORD"


def url(target: Target, need: str, password: str) -> Joined:
    """The URL of a resource in the cluster."""
    kind = target.own_resources[need].kind
    at = join(name(need), f":{reference.PORTS[kind]}")
    if kind == "redis":
        return join(f"redis://:{password}@", at, "/0")
    if kind == "mongodb":
        return join(f"mongodb://{USER}:{password}@", at, f"/{DATABASE}?authSource=admin")
    return join(f"{kind}://{USER}:{password}@", at, f"/{DATABASE}")


def _value(target: Target, text: str) -> dict[str, Tree]:
    pieces: list[Any] = []
    for piece in reference.pieces(text):
        pieces.append(plain(piece) if isinstance(piece, str) else _part(target, *piece))
    if all(isinstance(p, str) for p in pieces):
        return {"value": "".join(pieces)}
    return {"value": join(*pieces)}


def _part(target: Target, need: str, part: str) -> Joined | str:
    kind = target.own_resources[need].kind
    hidden = f"$({password_variable(need)})"
    match part:
        case "host":
            return name(need)
        case "port":
            return str(reference.PORTS[kind])
        case "user":
            return "" if kind == "redis" else USER
        case "database":
            return "0" if kind == "redis" else DATABASE
        case "password":
            return hidden
    return url(target, need, hidden)


def plain(text: str) -> str:
    """Text of the stack file, which the cluster must not expand: `$$` stands for a `$`."""
    return text.replace("$", "$$")


def _from_secret(part: str, key: str) -> dict[str, Tree]:
    return {"valueFrom": {"secretKeyRef": {"name": name(part), "key": key}}}


def probes(service: Service) -> dict[str, Tree]:
    """When a container has started, lives and is ready. Without `live`, an open port is what keeps
    it alive: a health path may ask the database, and a database that is away is no reason to kill
    every replica."""
    if service.kind == "job" or (service.kind == "worker" and service.health.path is None):
        return {}
    health = service.health
    alive = _probe(service, health.live)
    period = max(1, round(health.interval))
    seconds = max(1, round(health.timeout))
    start = max(1, -(-round(health.start_timeout) // 2))
    return {
        "startupProbe": _probe(service, health.live or health.path)
        | {"periodSeconds": 2, "timeoutSeconds": seconds, "failureThreshold": start},
        "livenessProbe": alive
        | {"periodSeconds": max(10, period), "timeoutSeconds": seconds, "failureThreshold": 6},
        "readinessProbe": _probe(service, _ready(service, health))
        | {"periodSeconds": period, "timeoutSeconds": seconds, "failureThreshold": 2},
    }


def _ready(service: Service, health: Health) -> str | None:
    return "/" if service.kind == "static" and health.path is None else health.path


def _probe(service: Service, path: str | None) -> dict[str, Tree]:
    at = "http" if service.kind in ("web", "static") else port(service)
    return {"httpGet": {"path": path, "port": at}} if path else {"tcpSocket": {"port": at}}


def spread(part: str) -> list[Tree]:
    """Pods of one service go to different zones and machines, where there are any."""
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {
                "matchLabels": {
                    NAME: part,
                    INSTANCE: Scope.PREFIX,
                }
            },
        }
        for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    ]


def placed(target: Target) -> dict[str, Tree]:
    """Where pods run: on spot capacity, if the environment says so. Source: GKE documents, Spot
    Pods."""
    if not target.environment.spot:
        return {}
    return {
        "nodeSelector": {"cloud.google.com/gke-spot": "true"},
        "tolerations": [
            {
                "key": "cloud.google.com/gke-spot",
                "operator": "Equal",
                "value": "true",
                "effect": "NoSchedule",
            }
        ],
    }
