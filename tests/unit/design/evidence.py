"""What the rendered files have exactly if a sentence of the document is true.

`Rendered` is the environment as files: Kubernetes objects, the Terraform roots, the document of a
machine. Nothing here calls what writes the sentences, `lapwing.inventory` or `lapwing.design`. A
piece of evidence is keyed by words of its sentence; it is a truth value, or the parts that the
sentence names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from lapwing.render.kubernetes import render
from lapwing.render.terraform.files import files
from lapwing.stack.cloud import project_of
from lapwing.stack.load import LoadedStack, environments
from lapwing.stack.model import Service

PART, COMPONENT = "app.kubernetes.io/name", "app.kubernetes.io/component"
DATABASES = ("mongodb", "mysql", "postgres", "redis")
ANYWHERE = "0.0.0.0/0"
Body = dict[str, Any]


@dataclass
class Rendered:
    """The rendered files of one environment."""

    loaded: LoadedStack
    objects: list[Body] = field(default_factory=list)
    own: dict[str, dict[str, Body]] = field(default_factory=dict)
    """The Terraform resources of its project, by kind and name."""
    shared: dict[str, dict[str, Body]] = field(default_factory=dict)

    @classmethod
    def of(cls, loaded: LoadedStack) -> Rendered:
        """Render an environment, with the roots of the whole stack."""
        made = cls(loaded)
        if loaded.settings.target == "kubernetes":
            made.objects = list(render.objects(render.prepare(loaded, made.images)))
        if loaded.settings.cloud:
            clouds = [s for s in environments(loaded.path, folders=False) if s.settings.cloud]
            made.own = _resources(files(clouds, loaded.environment).popitem()[1])
            made.shared = _resources(files(clouds)["shared"])
        return made

    @property
    def images(self) -> dict[str, str]:
        """An image for each service that is built."""
        return {n: "a/b:1" for n, s in self.loaded.stack.services.items() if s.image is None}

    @property
    def on_machine(self) -> bool:
        return self.loaded.settings.target == "machine"

    @property
    def parts(self) -> set[str]:
        """The parts that objects name."""
        return {o["metadata"].get("labels", {}).get(PART, "") for o in self.objects}

    def each(self, *kinds: str) -> list[Body]:
        """The Kubernetes objects of some kinds."""
        return [o for o in self.objects if o["kind"] in kinds]

    def cloud(self, kind: str) -> list[Body]:
        """The Terraform resources of a kind in the project of the environment."""
        return list(self.own.get(kind, {}).values())

    def shared_roles(self, identity: str) -> list[tuple[str, Body]]:
        """The roles of an identity of the shared project in the registry."""
        members = self.shared.get("google_artifact_registry_repository_iam_member", {})
        return [(name, body) for name, body in members.items() if name == identity]

    def loaded_part(self, workload: str) -> str:
        """The part of the workload with this name."""
        return workload.removeprefix(f"{self.loaded.stack.stack}-")

    @cached_property
    def workloads(self) -> dict[str, list[tuple[Body, Body]]]:
        """The workloads of services by part: each object, and the spec of its pods."""
        found: dict[str, list[tuple[Body, Body]]] = {}
        for o in self.each("Deployment", "Rollout", "StatefulSet", "Job", "CronJob"):
            spec = o["spec"].get("jobTemplate", o)["spec"]
            part = o["metadata"]["labels"][PART]
            found.setdefault(part, []).append((o, spec["template"]["spec"]))
        return found

    @property
    def services(self) -> dict[str, list[tuple[Body, Body]]]:
        """The workloads of services and jobs only."""
        return {p: w for p, w in self.workloads.items() if p in self.loaded.stack.services}

    @property
    def stateful(self) -> set[str]:
        """The databases in the cluster."""
        return {o["metadata"]["labels"][PART] for o in self.each("StatefulSet")}

    @property
    def blue_green(self) -> dict[str, Body]:
        """The blue-green strategy of each service that has one."""
        if self.on_machine:
            served = self.loaded.stack.services.items()
            return {n: {} for n, s in served if s.kind != "job"}
        return {
            o["metadata"]["labels"][PART]: o["spec"]["strategy"]["blueGreen"]
            for o in self.each("Rollout")
        }

    @property
    def migrations(self) -> set[str]:
        """The jobs that migrate the database of a service, on a machine."""
        return {f"{n}-migrate" for n, s in self.loaded.stack.services.items() if s.migrate}

    @property
    def bundles(self) -> set[str]:
        """The services that run as processes of a machine, from a folder of it."""
        settings = self.loaded.settings
        return {
            n
            for n, s in self.loaded.stack.services.items()
            if self.on_machine and s.image is None and s.dockerfile is None
            if s.static is not None or (s.runtime or settings.runtime) == "process"
        }

    @property
    def built(self) -> dict[str, Service]:
        """The services that run in images of their sources."""
        served = self.loaded.stack.services.items()
        return {n: s for n, s in served if s.image is None and n not in self.bundles}

    @property
    def clusters(self) -> list[Body]:
        return self.cloud("google_container_cluster")

    @property
    def balanced(self) -> bool:
        """Whether the global load balancer serves the domain of the environment."""
        entries = self.cloud("google_certificate_manager_certificate_map_entry")
        served = self.own.get("google_compute_target_https_proxy")
        return bool(served) and self.loaded.settings.domain in [e["hostname"] for e in entries]

    @property
    def gateways(self) -> bool:
        services = [o for o in self.each("Service") if o["spec"].get("type") == "LoadBalancer"]
        return bool(self.each("Gateway", "Ingress") or services)

    @property
    def routed(self) -> bool:
        return any(s.route for s in self.loaded.stack.services.values())

    @property
    def edge(self) -> bool:
        return "edge" in self.workloads

    def atlas(self) -> Iterator[tuple[str, Body]]:
        """The Atlas clusters of this environment, by the name of the resource."""
        names = [n for n, r in self.loaded.stack.resources.items() if r.kind == "mongodb"]
        for key, body in self.own.get("mongodbatlas_advanced_cluster", {}).items():
            for name in names:
                if key == f"{self.loaded.environment}-{name}":
                    yield name, body

    def managed(self) -> Iterator[tuple[str, Body]]:
        """The instances of Cloud SQL and Memorystore, by the name of the resource."""
        for kind in ("google_sql_database_instance", "google_redis_instance"):
            for key, body in self.own.get(kind, {}).items():
                for name in self.loaded.stack.resources:
                    if key == f"{self.loaded.environment}-{name}":
                        yield name, body

    def egress(self, allowed: Callable[[Body], bool]) -> set[str]:
        """The parts whose network policy has an egress rule."""
        return {
            o["spec"]["podSelector"]["matchLabels"][PART]
            for o in self.each("NetworkPolicy")
            if PART in o["spec"]["podSelector"].get("matchLabels", {})
            for rule in o["spec"].get("egress", ())
            if allowed(rule)
        }


def _resources(root: dict[str, str]) -> dict[str, dict[str, Body]]:
    found: dict[str, dict[str, Body]] = {}
    for text in root.values():
        for kind, bodies in json.loads(text).get("resource", {}).items():
            found.setdefault(kind, {}).update(bodies)
    return found


def _to(rule: Body, cidr: str) -> bool:
    return any(peer.get("ipBlock", {}).get("cidr") == cidr for peer in rule.get("to", ()))


def _denies(r: Rendered) -> bool:
    """The firewall has a rule of the lowest priority that denies everything, in both directions."""
    last = [f for f in r.cloud("google_compute_firewall") if f.get("deny") == [{"protocol": "all"}]]
    ranges = [f.get("source_ranges", f.get("destination_ranges")) for f in last]
    return {f["direction"] for f in last} == {"INGRESS", "EGRESS"} and ranges == [[ANYWHERE]] * 2


def _closed(r: Rendered) -> bool:
    """A policy for every pod of the stack allows nothing."""
    return any(
        PART not in o["spec"]["podSelector"].get("matchLabels", {})
        and set(o["spec"]["policyTypes"]) == {"Ingress", "Egress"}
        and not {"ingress", "egress"} & set(o["spec"])
        for o in r.each("NetworkPolicy")
    )


def _restricted(r: Rendered) -> bool:
    """The namespace enforces `restricted`, and each pod asks for no more than that."""
    level = "pod-security.kubernetes.io/enforce"
    enforced = [o["metadata"]["labels"].get(level) for o in r.each("Namespace")]
    pods = [pod for found in r.workloads.values() for _, pod in found]
    return enforced == ["restricted"] and all(
        pod["securityContext"]["runAsNonRoot"]
        and all(not c["securityContext"]["allowPrivilegeEscalation"] for c in pod["containers"])
        for pod in pods
    )


def _scaled(r: Rendered) -> set[str]:
    return {
        o["metadata"]["name"].removeprefix(f"{r.loaded.stack.stack}-")
        for o in r.each("HorizontalPodAutoscaler")
    }


def _scaled_by_agent(r: Rendered) -> set[str]:
    served = r.loaded.stack.services.items() if r.on_machine else ()
    return {n for n, s in served if (s.replicas.max or 0) > s.replicas.min and s.kind != "job"}


def _spread(r: Rendered) -> set[str]:
    most = {
        o["spec"]["scaleTargetRef"]["name"]: o["spec"]["maxReplicas"]
        for o in r.each("HorizontalPodAutoscaler")
    }
    return {
        part
        for part, found in r.services.items()
        for o, pod in found
        for c in pod.get("topologySpreadConstraints", ())
        if c["topologyKey"] == "topology.kubernetes.io/zone"
        and most.get(o["metadata"]["name"], o["spec"].get("replicas", 1)) > 1
    }


def _one_branch(r: Rendered) -> bool:
    """CI writes to the registry and has no key: release branches get tokens. Nodes only read."""
    roles = {n: b["role"] for n, b in r.shared_roles("ci")} | {n: b["role"] for n, b in r.own.get(
        "google_artifact_registry_repository_iam_member", {}).items()}  # fmt: skip
    [pool] = r.shared["google_iam_workload_identity_pool_provider"].values()
    keys = {"google_service_account_key"} & {*r.own, *r.shared}
    return (
        roles == {"ci": "roles/artifactregistry.writer", "nodes": "roles/artifactregistry.reader"}
        and "var.ci_subjects" in pool["attribute_condition"]
        and not keys
    )


def _retained(r: Rendered) -> bool:
    [registry] = r.shared["google_artifact_registry_repository"].values()
    policies = {p["id"]: p for p in registry["cleanup_policies"]}
    untagged = policies["collect-untagged"]["condition"]
    newest = policies["keep-newest"]["most_recent_versions"]["keep_count"]
    days = int(untagged["older_than"].removesuffix("s")) / 86400
    return newest == 10 and days == 30 and "containerscanning" in r.shared["google_project_service"]


def _builds(r: Rendered) -> bool:
    return bool(r.built)


def _pushes(r: Rendered) -> bool:
    """Whether images are built for a cluster and there is a registry for them."""
    registry = r.loaded.settings.registry or r.loaded.stack.registry or r.shared
    return not r.on_machine and _builds(r) and bool(registry)


def _created(r: Rendered) -> bool:
    """Whether Terraform creates the registry."""
    return bool(r.shared) and not (r.loaded.settings.registry or r.loaded.stack.registry)


def _migrates_offline(r: Rendered) -> set[str]:
    key = "lapwing.dev/offline-migration-of"
    jobs = [o["metadata"].get("annotations", {}).get(key) for o in r.each("Job")]
    served = r.loaded.stack.services.items() if r.on_machine else ()
    on_machine = {n for n, s in served if s.migrate and s.migrate.mode == "offline"}
    return {r.loaded_part(name) for name in jobs if name} | on_machine


def _without_backup(r: Rendered) -> set[str]:
    stack = r.loaded.stack
    if r.on_machine:
        wanted = {n for n, x in stack.resources.items() if x.kind != "redis"}
        return set() if r.loaded.settings.backup else wanted
    backed = {
        name
        for o in r.each("CronJob")
        if not o["spec"].get("suspend")
        for name in o["metadata"].get("annotations", {}).get("lapwing.dev/backs-up", "").split()
    }
    inside = {n for n in r.stateful if stack.resources[n].kind != "redis"} - backed
    atlas = {n for n, b in r.atlas() if not b.get("backup_enabled")}
    created = dict(r.managed())
    named = {n for n, x in stack.resources.items() if x.managed and x.kind not in ("redis",)}
    sql = {
        n
        for n in named - {n for n, _ in r.atlas()}
        if n not in created or not created[n]["settings"]["backup_configuration"]["enabled"]
    }
    return inside | atlas | sql


def _restorable(r: Rendered) -> set[str]:
    sql = {
        n
        for n, b in r.managed()
        if b.get("settings", {}).get("backup_configuration", {}).get("enabled")
    }
    return sql | {n for n, b in r.atlas() if b.get("backup_enabled")}


def _regions(body: Body) -> list[int]:
    [spec] = body["replication_specs"]
    return [c["electable_specs"].get("node_count", 3) for c in spec["region_configs"]]


def _in_one_region(r: Rendered) -> bool:
    several = [n for n, b in r.atlas() if len(_regions(b)) > 1]
    data = r.stateful or [*r.managed()] or [*r.atlas()] or _outside(r)
    return bool(r.own and data and not several)


def _outside(r: Rendered) -> set[str]:
    return {n for n, x in r.loaded.stack.resources.items() if x.managed}


def _single(r: Rendered) -> set[str]:
    return {
        part
        for part, found in r.services.items()
        for o, _ in found
        if r.loaded.stack.services[part].route
        and o["spec"].get("replicas") == 1
        and o["kind"] in ("Deployment", "Rollout")
    }


def _private(r: Rendered) -> set[str]:
    endpoints = r.own.get("mongodbatlas_privatelink_endpoint_service", {})
    return {n for n, _ in r.atlas() if f"{r.loaded.environment}-{n}" in endpoints}


def _in_one_place(r: Rendered) -> bool:
    kinds = ("google_compute_subnetwork", "google_compute_router_nat")
    places = {b["region"] for kind in kinds for b in r.cloud(kind)}
    return bool(r.clusters) and {c["location"] for c in r.clusters} == places


def _parts_with(r: Rendered, holds: Callable[[Body, Body], bool]) -> set[str]:
    """The services of which a workload and the specification of its pods have a property."""
    return {part for part, found in r.services.items() for o, pod in found if holds(o, pod)}


def _keeps_old(deployment: Body) -> bool:
    """Old pods run until new ones are ready."""
    return bool(deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0)


def _direct(r: Rendered) -> bool:
    return not r.on_machine and not r.loaded.settings.uses_argo_cd


def _argo(r: Rendered) -> bool:
    return not r.on_machine and r.loaded.settings.uses_argo_cd


def _root(r: Rendered) -> bool:
    """A root application is rendered beside the application of the environment."""
    if not _argo(r):
        return False
    cluster = render.prepare(r.loaded, r.images)
    return bool(render.argo_files(cluster)) and "argocd" in render.root_file(cluster)


def _kept(r: Rendered) -> bool:
    """An old slot keeps running after a switch."""
    if r.on_machine:
        served = [s for s in r.loaded.stack.services.values() if s.kind != "job"]
        return any(s.rollout.keep_old or s.rollout.analysis for s in served)
    return any(s.get("scaleDownDelaySeconds") for s in r.blue_green.values())


def _smoke(r: Rendered) -> set[str]:
    if r.on_machine:
        served = r.loaded.stack.services.items()
        return {n for n, s in served if s.kind != "job" and s.rollout.smoke}
    return {n for n, s in r.blue_green.items() if "prePromotionAnalysis" in s}


def _hold(r: Rendered) -> set[str]:
    if r.on_machine:
        served = r.loaded.stack.services.items()
        return {n for n, s in served if s.kind != "job" and s.rollout.hold}
    return {n for n, s in r.blue_green.items() if not s["autoPromotionEnabled"]}


def _limited(r: Rendered) -> set[str]:
    every = r.loaded.settings.access
    served = r.loaded.stack.services.items()
    return {n for n, s in served if s.route and (s.access or every)} if r.on_machine else set()


def _reads_secrets(r: Rendered) -> bool:
    """A secret is copied again and again; each has a secret of Secret Manager in one region."""
    copied = [o for o in r.each("ExternalSecret") if o["spec"]["refreshPolicy"] == "Periodic"]
    secrets = r.cloud("google_secret_manager_secret")
    places = [s["replication"]["user_managed"]["replicas"] for s in secrets]
    assert all(len(place) == 1 for place in places)
    readers = [b["member"] for b in r.cloud("google_secret_manager_secret_iam_member")]
    assert all(".svc.id.goog/subject/ns/" in member for member in readers)
    assert "google_service_account_key" not in r.own
    return bool(copied)


def _public(r: Rendered) -> set[str]:
    private = _private(r)
    return {n for n, _ in r.atlas() if n not in private}


Evidence = Callable[[Rendered], bool | set[str]]
EVIDENCE: dict[str, Evidence] = {
    "runs on one machine": lambda r: r.on_machine and not r.objects and not r.own,
    "in an existing Kubernetes cluster": lambda r: bool(r.objects) and not r.clusters,
    "runs on Google Cloud": _in_one_place,
    "The address is https://": lambda r: bool(
        r.loaded.settings.domain and r.routed and (r.on_machine or r.balanced or r.gateways)
    ),
    "The shared project has": lambda r: bool(r.shared),
    "Nodes have no public address": lambda r: any(
        c["private_cluster_config"]["enable_private_nodes"]
        and "master_authorized_networks_config" in c
        and c["control_plane_endpoints_config"]["dns_endpoint_config"]["allow_external_traffic"]
        for c in r.clusters
    ),
    "The firewall denies": _denies,
    "One NAT gateway": lambda r: len(r.cloud("google_compute_router_nat")) == 1,
    "NetworkPolicies deny every": _closed,
    "to any address on the port of a database": lambda r: r.egress(lambda rule: "to" not in rule),
    "may connect to the internet": lambda r: r.egress(lambda rule: _to(rule, ANYWHERE)),
    "over the loopback address": lambda r: r.on_machine and r.routed,
    "The cluster is GKE Autopilot": lambda r: any(c["enable_autopilot"] for c in r.clusters),
    "by a HorizontalPodAutoscaler": _scaled,
    "are spread over zones": _spread,
    "on spot capacity": lambda r: _parts_with(
        r, lambda _, pod: pod.get("nodeSelector", {}).get("cloud.google.com/gke-spot") == "true"
    ),
    "the agent adds and removes replicas": _scaled_by_agent,
    "the agent of the machine deploys it. CI": lambda r: (
        r.on_machine and r.loaded.settings.host is None
    ),
    "it reaches the machine over SSH": lambda r: r.loaded.settings.host is not None,
    "Argo CD applies it": _argo,
    "A root application creates": _root,
    "`lapwing deploy` creates the commit": _direct,
    "by a rolling update": lambda r: _parts_with(
        r, lambda o, _: o["kind"] == "Deployment" and _keeps_old(o)
    ),
    "A new release starts in the idle slot": lambda r: bool(r.blue_green),
    "waits for `lapwing promote`": _hold,
    "switch in one update of the routes": lambda r: r.on_machine and bool(r.blue_green),
    "Argo Rollouts switches": lambda r: set() if r.on_machine else set(r.blue_green),
    "is offline: it stops the service": _migrates_offline,
    "A rollback is another commit": _kept,
    "built from source.": _builds,
    "and after a release its semantic version": lambda r: (
        _pushes(r) and r.loaded.stack.registry is not None
    ),
    "A release also tags it with its semantic version if": lambda r: (
        _pushes(r) and r.loaded.stack.registry is None
    ),
    "reproducibly and without a container engine": lambda r: {
        n for n, s in r.built.items() if s.dockerfile is None and s.static is None
    },
    "has no base image": lambda r: {
        n
        for n, s in r.built.items()
        if s.dockerfile is None and s.static is not None and s.build and s.build.base is None
    },
    "from a Dockerfile, which decides": lambda r: {n for n, s in r.built.items() if s.dockerfile},
    "is a published image": lambda r: {
        n
        for n, s in r.loaded.stack.services.items()
        if s.image is not None and n not in r.migrations
    },
    "is a process bundle": lambda r: r.bundles,
    "Built images are in one registry": lambda r: _pushes(r) and _created(r) and _retained(r),
    "Built images are in the registry": lambda r: _pushes(r) and not _created(r),
    "Set `registry`, to which the image": lambda r: (
        set(r.built) if not r.on_machine and not _pushes(r) else set()
    ),
    "on three nodes": lambda r: {n for n, b in r.atlas() if _regions(b) == [3]},
    "nodes in a second region": lambda r: {n for n, b in r.atlas() if len(_regions(b)) > 1},
    "in the cluster is one pod with one disk": lambda r: r.stateful,
    "There is no replica in another region": _in_one_region,
    "Databases run on the same machine": lambda r: r.on_machine and bool(r.loaded.stack.resources),
    "Clients connect by HTTPS only": lambda r: r.on_machine and r.routed,
    "accepts requests": _limited,
    "Ingress is HTTPS only: the load balancer": lambda r: r.balanced,
    "Ingress is the Gateway or Ingress": lambda r: r.gateways,
    "no load balancer, because no `domain`": lambda r: bool(
        r.clusters and r.edge and not r.balanced and not r.gateways and not r.loaded.settings.domain
    ),
    "The cluster has no ingress for the stack": lambda r: bool(
        r.objects and not r.clusters and r.routed and not r.gateways
    ),
    "no service has a route": lambda r: bool(r.clusters) and not r.edge and not r.balanced,
    "Two layers deny": lambda r: _denies(r) and _closed(r),
    "Nodes can only pull images": lambda r: bool(r.shared) and _one_branch(r),
    "Pods run without root": _restricted,
    "Secrets that are not generated": _reads_secrets,
    "from its encrypted store": _direct,
    "Secrets are encrypted at rest": lambda r: r.on_machine,
    "puts no secret in plain text": lambda _: True,
    "no public endpoint; it is reached by": _private,
    "is reached over the internet": _public,
    "has a private address only": lambda r: {
        n
        for n, b in r.managed()
        if b.get("connect_mode") == "PRIVATE_SERVICE_ACCESS"
        or b.get("settings", {}).get("ip_configuration", {}).get("ipv4_enabled") is False
    },
    "to the name servers of the zone": lambda r: bool(
        r.shared.get("google_dns_managed_zone") and r.clusters
    ),
    "Cloud Armor is rendered but off": lambda r: r.balanced,
    "renders no backup of": _without_backup,
    "in its state": lambda r: {
        n
        for n, b in r.managed()
        if b.get("auth_enabled") or f"{r.loaded.environment}-{n}" in r.own["random_password"]
    },
    "how long a restore of": _restorable,
    "no staging environment in the cloud": lambda r: bool(
        r.clusters
        and r.blue_green
        and sum(e.cloud is not None for e in r.loaded.stack.environments.values()) == 1
    ),
    "Without Argo Rollouts": lambda r: not r.on_machine and not r.blue_green,
    "one point of failure": lambda r: r.on_machine,
    "has one pod, and is unavailable": _single,
}
"""Words of a sentence about one part, and what makes it true."""


def _cached(r: Rendered) -> bool:
    backends = r.cloud("google_compute_backend_service")
    cached = [b["name"] for b in backends if b["enable_cdn"]]
    return r.balanced and f"static-{r.loaded.environment}" in cached


def _backed_by_atlas(r: Rendered) -> bool:
    found = [bool(b.get("backup_enabled")) for _, b in r.atlas()]
    return bool(found) and all(found)


def _shared_project(r: Rendered) -> bool:
    """Other environments are in the same project."""
    clusters = r.loaded.stack.environments.items()
    mine = project_of(r.loaded.stack, r.loaded.environment)
    names = [n for n, e in clusters if e.cloud and project_of(r.loaded.stack, n) == mine]
    return len(names) > 1


LABEL_EVIDENCE: dict[str, Evidence] = {
    "autopilot": lambda r: bool(r.clusters),
    "zones": _spread,
    "tls": lambda r: r.balanced and bool(r.own.get("google_compute_ssl_policy")),
    "cdn": _cached,
    "ci-pushes": lambda r: bool(r.shared) and _one_branch(r),
    "nodes-pull": lambda r: bool(r.shared) and _one_branch(r),
    "denied": _denies,
    "private-nodes": EVIDENCE["Nodes have no public address"],
    "policies": _closed,
    "restricted": _restricted,
    "no-public-port": lambda r: r.on_machine and r.routed,
    "no-public-database": _private,
    "peered": EVIDENCE["has a private address only"],
    "one-switch": lambda r: r.on_machine and bool(r.blue_green),
    "Argo CD": _argo,
    "Argo Rollouts": lambda r: bool(r.blue_green),
    "External Secrets": _reads_secrets,
}
"""The names of labels of pictures, and what makes each true."""

DECISION_EVIDENCE: dict[tuple[str, str], Evidence] = {
    ("Platform", "one machine"): lambda r: r.on_machine,
    ("Platform", "GKE Autopilot"): EVIDENCE["The cluster is GKE Autopilot"],
    ("Platform", "an existing cluster"): EVIDENCE["in an existing Kubernetes cluster"],
    ("Cloud, region", "Google Cloud"): lambda r: bool(r.clusters),
    ("Projects", "one for the environment"): lambda r: bool(r.own) and not _shared_project(r),
    ("Projects", "one for several"): lambda r: bool(r.own) and _shared_project(r),
    ("Delivery", "Argo CD"): _argo,
    ("Delivery", "`lapwing deploy`"): _direct,
    ("Delivery", "the agent of the machine"): EVIDENCE["the agent of the machine deploys it. CI"],
    ("Delivery", "the agent of the machine, which"): EVIDENCE["it reaches the machine over SSH"],
    ("Releases", "blue-green, all services"): lambda r: r.on_machine and bool(r.blue_green),
    ("Releases", "blue-green by Argo"): lambda r: not r.on_machine and bool(r.blue_green),
    ("Releases", "rolling updates"): lambda r: not r.on_machine and not r.blue_green,
    ("Ingress", "global HTTPS load balancer with CDN"): _cached,
    ("Ingress", "global HTTPS load balancer, then"): lambda r: r.balanced and not _cached(r),
    ("Database", "MongoDB Atlas, with backups"): _backed_by_atlas,
    ("Database", "MongoDB Atlas"): lambda r: bool([*r.atlas()]) and not _backed_by_atlas(r),
    ("Database", "in the cluster"): lambda r: {
        n for n in r.stateful if r.loaded.stack.resources[n].kind != "redis"
    },
    ("Database", "Cloud SQL, Memorystore or a service"): lambda r: bool(
        [*r.managed()] if r.own else not r.on_machine and _outside(r)
    ),
    ("Database", "on the machine"): lambda r: r.on_machine and bool(r.loaded.stack.resources),
    ("Secrets", "Secret Manager"): _reads_secrets,
    ("Secrets", "the encrypted store"): lambda r: not _argo(r),
}
"""The decisions in their order, and what makes each true."""
