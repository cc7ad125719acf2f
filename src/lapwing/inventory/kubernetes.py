"""Read the inventory of Kubernetes objects, as they are rendered or as a cluster returns them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any

from lapwing.inventory.model import (
    Backup,
    Disk,
    Endpoint,
    Flow,
    Inventory,
    LoadBalancer,
    Pods,
    Requests,
    Rollout,
    Route,
    SecretRead,
)
from lapwing.plan.names import BACKS_UP, COMPONENT, NAME, OFFLINE_MIGRATION
from lapwing.system.yaml_loader import read_yaml

Object = Mapping[str, Any]
WORKLOADS = ("Deployment", "Rollout", "StatefulSet", "Job", "CronJob")
CONTROLLERS = {"Rollout": "Argo Rollouts", "ExternalSecret": "External Secrets"}
"""The program that has to run in the cluster for objects of a kind."""
EVERYWHERE = "0.0.0.0/0"
SPOT = "cloud.google.com/gke-spot"
ZONE = "topology.kubernetes.io/zone"
POD_SECURITY = "pod-security.kubernetes.io/enforce"
_DURATION = re.compile(r"(\d+)([smh])")
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_FACTORS = {
    "m": Decimal("0.001"),
    **{unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", 1)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", 1)},
}


def from_kubernetes(
    objects: Iterable[Object], urls: Mapping[str, str] = MappingProxyType({})
) -> Inventory:
    """Read the facts of the objects of one environment.

    `urls` names the database outside of the cluster whose URL is in a Secret.
    """
    listed = list(objects)
    scalers = {
        (target["kind"], target["name"]): (spec["minReplicas"], spec["maxReplicas"])
        for spec in (o["spec"] for o in listed if o["kind"] == "HorizontalPodAutoscaler")
        for target in (spec["scaleTargetRef"],)
    }
    analyses = {_name(o): o for o in listed if o["kind"] == "AnalysisTemplate"}
    workloads = [o for o in listed if o["kind"] in WORKLOADS]
    kinds = {o["kind"] for o in listed}
    return Inventory(
        pods=tuple(_pods(o, scalers.get((o["kind"], _name(o))), analyses, urls) for o in workloads),
        disks=tuple(disk for o in listed for disk in _disks(o)),
        load_balancers=tuple(_load_balancers(listed)),
        endpoints=tuple(e for o in listed if o["kind"] == "Service" for e in _endpoints(o)),
        flows=tuple(f for o in listed if o["kind"] == "NetworkPolicy" for f in _flows(o)),
        closed=tuple(
            direction for o in listed if o["kind"] == "NetworkPolicy" for direction in _closed(o)
        ),
        pod_security=tuple(
            o["metadata"]["labels"][POD_SECURITY]
            for o in listed
            if o["kind"] == "Namespace" and POD_SECURITY in o["metadata"].get("labels", {})
        ),
        routes=tuple(
            dict.fromkeys(r for o in listed if o["kind"] == "ConfigMap" for r in _routes(o))
        ),
        secret_reads=tuple(r for o in listed if o["kind"] == "ExternalSecret" for r in _reads(o)),
        backups=tuple(b for o in listed if o["kind"] == "CronJob" for b in _backups(o)),
        controllers=tuple(name for kind, name in CONTROLLERS.items() if kind in kinds),
    )


def quantity(text: str | float) -> Decimal:
    """Parse a Kubernetes quantity such as `250m` or `512Mi`."""
    written = str(text)
    number = written.rstrip("kKMGTPEim")
    unit = written[len(number) :]
    return Decimal(number) * (_FACTORS[unit] if unit else 1)


def _pods(
    workload: Object,
    scaled: tuple[int, int] | None,
    analyses: Mapping[str, Object],
    urls: Mapping[str, str],
) -> Pods:
    spec, labels = workload["spec"], workload["metadata"].get("labels", {})
    schedule = spec.get("schedule")
    spec = spec["jobTemplate"]["spec"] if schedule else spec
    pod = spec["template"]["spec"]
    least, most = scaled or (spec.get("replicas", 1),) * 2
    blue_green = (spec.get("strategy") or {}).get("blueGreen")
    return Pods(
        name=_name(workload),
        part=labels.get(NAME, _name(workload)),
        kind="Job" if schedule else workload["kind"],
        component=labels.get(COMPONENT, ""),
        min=least,
        max=most,
        requests=_requests(pod),
        spot=SPOT in (pod.get("nodeSelector") or {}),
        images=tuple(c["image"] for c in pod["containers"]),
        rollout=None if blue_green is None else _rollout(blue_green, analyses),
        spread=any(c["topologyKey"] == ZONE for c in pod.get("topologySpreadConstraints") or ()),
        offline=OFFLINE_MIGRATION in (workload["metadata"].get("annotations") or {}),
        deadline_s=spec.get("activeDeadlineSeconds"),
        schedule=schedule,
        scratch=sum(
            _size(v["ephemeral"]["volumeClaimTemplate"])
            for v in pod.get("volumes", ())
            if "ephemeral" in v
        ),
        kept_s=spec.get("ttlSecondsAfterFinished", 0),
        uses=tuple(dict.fromkeys(urls[name] for name in _secrets(pod) if name in urls)),
    )


def _secrets(pod: Object) -> Iterator[str]:
    """Yield the Secrets from which the containers of a pod get variables."""
    for container in (*pod["containers"], *pod.get("initContainers", ())):
        for variable in container.get("env", ()):
            if source := variable.get("valueFrom", {}).get("secretKeyRef"):
                yield source["name"]


def _rollout(blue_green: Object, analyses: Mapping[str, Object]) -> Rollout:
    """Read a strategy: the tests before the switch, and the limits of the analysis after it."""

    def metrics(key: str) -> list[Object]:
        named = [t["templateName"] for t in (blue_green.get(key) or {}).get("templates", ())]
        return [m for name in named if name in analyses for m in analyses[name]["spec"]["metrics"]]

    pods = [
        m["provider"]["job"]["spec"]["template"]["spec"] for m in metrics("postPromotionAnalysis")
    ]
    variables = [e for p in pods for c in p["containers"] for e in c.get("env", ())]
    stated = {e["name"]: e["value"] for e in variables if e.get("value")}
    errors, p95 = stated.get("MOST_ERRORS"), stated.get("MOST_P95")
    return Rollout(
        smoke_tests=len(metrics("prePromotionAnalysis")),
        hold=not blue_green.get("autoPromotionEnabled", True),
        window_s=sum(int(e["value"]) for e in variables if e["name"] == "WINDOW"),
        max_error_rate=Decimal(errors) if errors else None,
        max_p95_s=Decimal(p95) / 1000 if p95 else None,
        keep_s=blue_green.get("scaleDownDelaySeconds", 0),
    )


def _requests(pod: Object) -> Requests:
    """Add up the containers of a pod; an init container counts if it requests more than they do."""

    def total(resource: str) -> Decimal | None:
        running = [_requested(c, resource) for c in pod["containers"]]
        first = [_requested(c, resource) for c in pod.get("initContainers", ())]
        known = [sum((n for n in running if n is not None), Decimal(0))]
        known += [n for n in first if n is not None]
        return max(known) if any(n is not None for n in (*running, *first)) else None

    cpu, memory, disk = (total(r) for r in ("cpu", "memory", "ephemeral-storage"))
    return Requests(
        cpu, None if memory is None else int(memory), None if disk is None else int(disk)
    )


def _requested(container: Object, resource: str) -> Decimal | None:
    found = ((container.get("resources") or {}).get("requests") or {}).get(resource)
    return None if found is None else quantity(found)


def _disks(thing: Object) -> Iterator[Disk]:
    if thing["kind"] == "PersistentVolumeClaim":
        yield Disk(_name(thing), _size(thing))
    elif thing["kind"] == "StatefulSet":
        for claim in thing["spec"].get("volumeClaimTemplates", ()):
            count = thing["spec"].get("replicas", 1)
            yield Disk(f"{_name(claim)}-{_name(thing)}", _size(claim), count)


def _size(claim: Object) -> int:
    return int(quantity(claim["spec"]["resources"]["requests"]["storage"]))


def _load_balancers(objects: Iterable[Object]) -> Iterator[LoadBalancer]:
    """Yield what makes a cluster create a load balancer: a Gateway, an Ingress, a Service."""
    for thing in objects:
        spec = thing.get("spec") or {}
        if thing["kind"] == "Gateway":
            listeners = spec["listeners"]
            hosts = dict.fromkeys(i["hostname"] for i in listeners if "hostname" in i)
            yield LoadBalancer(_name(thing), len(listeners), tuple(hosts))
        elif thing["kind"] == "Ingress":
            hosts = dict.fromkeys(r["host"] for r in spec.get("rules", ()) if "host" in r)
            yield LoadBalancer(_name(thing), 2 if spec.get("tls") else 1, tuple(hosts))
        elif thing["kind"] == "Service" and spec.get("type") == "LoadBalancer":
            yield LoadBalancer(_name(thing), len(spec["ports"]))


def _endpoints(service: Object) -> Iterator[Endpoint]:
    for port in service["spec"].get("ports", ()):
        yield Endpoint(_name(service), port["port"], "cluster")


def _routes(config: Object) -> Iterator[Route]:
    """Yield the routes of the configuration of Envoy, the first match first."""
    text = (config.get("data") or {}).get("envoy.yaml")
    listeners = read_yaml(text)["static_resources"]["listeners"] if text else ()
    for listener in listeners:
        for chain in listener["filter_chains"]:
            for host in chain["filters"][0]["typed_config"]["route_config"]["virtual_hosts"]:
                for route in host["routes"]:
                    match = route["match"]
                    prefix = match.get("path_separated_prefix", match.get("prefix"))
                    if prefix is not None and "route" in route:
                        yield Route(prefix, route["route"]["cluster"])


def _closed(policy: Object) -> Iterator[str]:
    """Yield the directions that a policy for all pods of the stack denies."""
    spec = policy["spec"]
    if NAME not in spec["podSelector"].get("matchLabels", {}):
        yield from (d for d in spec["policyTypes"] if d.lower() not in spec)


def _flows(policy: Object) -> Iterator[Flow]:
    """Yield what a network policy allows: egress, and ingress from outside of the namespace."""
    part = policy["spec"]["podSelector"].get("matchLabels", {}).get(NAME)
    if not part:
        return
    for rule in policy["spec"].get("egress", ()):
        ports = _ports(rule)
        if "to" not in rule:
            yield Flow(part, "any", ports)
        for peer in rule.get("to", ()):
            other = peer.get("podSelector", {}).get("matchLabels", {}).get(NAME)
            if other is not None:
                yield Flow(part, other, ports)
            elif "ipBlock" in peer:
                cidr = peer["ipBlock"]["cidr"]
                yield Flow(part, "internet" if cidr == EVERYWHERE else cidr, ports)
    for rule in policy["spec"].get("ingress", ()):
        for peer in rule.get("from", ({"ipBlock": {"cidr": EVERYWHERE}},)):
            if "ipBlock" in peer:
                yield Flow(peer["ipBlock"]["cidr"], part, _ports(rule))
            elif "podSelector" not in peer:
                yield Flow("cluster", part, _ports(rule))


def _ports(rule: Object) -> str:
    """Format the ports of a rule: `8080`, or `27015-27017`; empty for all."""
    found = rule.get("ports", ())
    return ", ".join(f"{p['port']}" + (f"-{p['endPort']}" if "endPort" in p else "") for p in found)


def _backups(job: Object) -> Iterator[Backup]:
    """Yield the databases that a CronJob backs up, if it is not suspended."""
    found = (job["metadata"].get("annotations") or {}).get(BACKS_UP, "")
    for database in () if job["spec"].get("suspend") else found.split():
        yield Backup(database, f"CronJob `{_name(job)}`", every=str(job["spec"]["schedule"]))


def _reads(secret: Object) -> Iterator[SecretRead]:
    """Yield a secret that is read again and again; a generated one is created once."""
    spec = secret["spec"]
    match = _DURATION.fullmatch(spec.get("refreshInterval", "1h"))
    if spec.get("refreshPolicy") != "CreatedOnce" and match and int(match[1]):
        yield SecretRead(_name(secret), int(match[1]) * _SECONDS[match[2]])


def _name(thing: Object) -> str:
    return str(thing["metadata"]["name"])
