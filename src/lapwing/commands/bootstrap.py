"""Bootstrap: prepare a cluster for an environment.

    manifests (downloaded, checked by digest) -> add-ons, one after another (apply, wait)
        -> applications of Argo CD -> checks

Another run changes only what is missing or differs. Argo CD, Argo Rollouts and metrics-server
that others installed are not changed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lapwing.errors import ClusterError, LapwingError, StateError, UsageError
from lapwing.kubernetes import apply, health, wait
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.objects import Object, Reference, annotation, label
from lapwing.kubernetes.wait import WaitLimits
from lapwing.observed.checks import CheckResult
from lapwing.plan.names import EXTERNAL_SECRETS, MANAGED_BY
from lapwing.render.kubernetes import addons, argo, render
from lapwing.render.kubernetes.addons import AddOn
from lapwing.render.kubernetes.objects import ClusterEnvironment as RenderedEnvironment
from lapwing.stack.load import LoadedStack
from lapwing.targets.base import Reporter
from lapwing.targets.cluster import ClusterEnvironment

DOWNLOAD_TIMEOUT_S = 60.0
LIMITS = WaitLimits(deadline=900.0, patience=180.0)
"""A new cluster first creates nodes, and pulls images of a gigabyte."""
METRICS_WAIT_S = 60.0
"""How long the API server may take to see that metrics-server is ready."""
NEG_STATUS = "cloud.google.com/neg-status"
METRICS = Reference("apiregistration.k8s.io/v1", "APIService", "", "v1beta1.metrics.k8s.io")
NO_IMAGE = f"not-built@sha256:{'0' * 64}"
WORKLOADS = ("Deployment", "StatefulSet")
ARGO_CD_CONTROLLER = (
    "app.kubernetes.io/part-of=argocd,app.kubernetes.io/component=application-controller"
)
"""The labels of the controller in the manifests, the Helm chart and the operator of Argo CD."""


def rendered_environment(loaded: LoadedStack) -> RenderedEnvironment:
    """Return an environment whose images do not matter. Raises UsageError on a machine."""
    services = loaded.stack.services.items()
    return render.prepare(loaded, {n: NO_IMAGE for n, s in services if not s.image})


def read_manifests(
    wanted: Sequence[AddOn], folder: Path | None, reporter: Reporter
) -> dict[str, bytes]:
    """Read the manifests of add-ons from a folder, else download them. Raises LapwingError."""
    found = {}
    for addon in (a for a in wanted if a.url):
        if folder is None:
            with reporter.working(f"downloading {addon.name} {addon.version}"):
                found[addon.file] = _download(addon)
            continue
        try:
            found[addon.file] = (folder / addon.file).read_bytes()
        except OSError as error:
            raise UsageError(
                f"{folder / addon.file} cannot be read: {error.strerror or error}.",
                hint=f"Download {addon.url} to this file.",
            ) from error
    return found


def _download(addon: AddOn) -> bytes:
    import httpx

    hint = (
        f"Download it on another machine as DIR/{addon.file}, copy DIR to this machine, and add "
        "`--manifests DIR`. Nothing was changed."
    )
    try:
        answer = httpx.get(addon.url, follow_redirects=True, timeout=DOWNLOAD_TIMEOUT_S)
    except httpx.HTTPError as error:
        raise LapwingError(f"{addon.url} is unreachable: {error}.", hint=hint) from error
    if not answer.is_success:
        raise LapwingError(f"{addon.url} responded with status {answer.status_code}.", hint=hint)
    return answer.content


def bootstrap(
    loaded: LoadedStack, place: ClusterEnvironment, folder: Path | None, reporter: Reporter
) -> list[CheckResult]:
    """Install what an environment needs in its cluster, and check it.

    Raises UsageError, ContextError, ClusterError, or DeploymentFailed if an add-on does not become
    ready.
    """
    cluster = rendered_environment(loaded)
    wanted = addons.needed(cluster)
    with place.connect() as api:
        version = api.version()
        if cluster.is_argo:
            _check_argo_cd(api)
            _check_external_secrets(api)
        managed = [a for a in wanted if not _is_foreign(api, a)]
        texts = read_manifests(managed, folder, reporter)
        # Manifests with another digest are refused before anything is changed.
        is_local = api.access.local
        parsed = [(a, addons.objects(a, texts.get(a.file), is_local=is_local)) for a in managed]
        place.confirm(api, "bootstrap")
        with reporter.working("installing"):
            for addon, things in parsed:
                _install(api, addon, things, reporter)
            _apply_applications(api, cluster, reporter)
        with reporter.working("checking"):
            checks = list(_check(api, cluster, wanted, managed))
        return [CheckResult("API server responds", True, version), *checks]


def _check_argo_cd(api: ApiClient) -> None:
    """Check that Argo CD is in no other namespace than its applications. Raises StateError."""
    for thing in _argo_cd_controllers(api, ""):
        metadata = thing["metadata"]
        if metadata["namespace"] != argo.NAMESPACE:
            raise StateError(
                f"Argo CD is already installed: {thing['kind']} {metadata['name']} in the "
                f"namespace {metadata['namespace']}. Lapwing writes its applications for the "
                f"namespace {argo.NAMESPACE}.",
                hint=f"Move Argo CD to the namespace {argo.NAMESPACE}. If that installation has to "
                "stay, use another cluster: two installations would change the same "
                "CustomResourceDefinitions. Nothing was changed.",
            )


def _argo_cd_controllers(api: ApiClient, namespace: str) -> list[Object]:
    """List the controllers of Argo CD in a namespace, or in all."""
    return [
        thing
        for kind in WORKLOADS
        for thing in api.list("apps/v1", kind, namespace, ARGO_CD_CONTROLLER)
    ]


def _check_external_secrets(api: ApiClient) -> None:
    """Check that External Secrets is absent or an application of Argo CD. Raises StateError."""
    version, kind = "argoproj.io/v1alpha1", "Application"
    found = api.list(version, kind, argo.NAMESPACE, missing_kind_ok=True)
    if any(each["metadata"]["name"] == EXTERNAL_SECRETS for each in found):
        return
    selector = f"app.kubernetes.io/name={EXTERNAL_SECRETS}"
    for workload in api.list("apps/v1", "Deployment", "", selector):
        metadata = workload["metadata"]
        raise StateError(
            f"External Secrets is already installed: Deployment {metadata['name']} in the "
            f"namespace {metadata['namespace']}. Lapwing installs it as the application "
            f"{EXTERNAL_SECRETS} of Argo CD.",
            hint="Remove that installation, but keep its CustomResourceDefinitions: every "
            "ExternalSecret is deleted with them. Nothing was changed.",
        )


def _is_foreign(api: ApiClient, addon: AddOn) -> bool:
    """Return whether an add-on was installed without Lapwing."""
    if addon is addons.METRICS_SERVER:
        found = api.get(METRICS)
        return found is not None and label(found, MANAGED_BY) != "lapwing"
    workloads = _workloads(api, addon)
    if addon is addons.ARGO_CD:  # A Helm release or an operator gives its workloads other names.
        workloads += _argo_cd_controllers(api, addon.namespace)
    return any(label(thing, MANAGED_BY) != "lapwing" for thing in workloads)


def _workloads(api: ApiClient, addon: AddOn) -> list[Object]:
    """List the workloads of an add-on."""
    found = (t for kind in WORKLOADS for t in api.list("apps/v1", kind, addon.namespace))
    return [thing for thing in found if thing["metadata"]["name"] in addon.requests]


def _install(
    api: ApiClient, addon: AddOn, things: list[dict[str, Any]], reporter: Reporter
) -> None:
    """Apply definitions first, since the rest may be of their kinds; wait for workloads."""
    first = [t for t in things if t["kind"] in ("Namespace", "CustomResourceDefinition")]
    changed = 0
    for group in (first, [t for t in things if t not in first]):
        for thing in group:
            live = api.get(Reference.of(thing))
            changed += apply.apply_object(api, _scaled(addon, thing, live), live, reporter.say)
        waited = [Reference.of(t) for t in group if t in first or t["kind"] in WORKLOADS]
        wait.wait_until_ready(api, waited, limits=LIMITS, report=reporter.progress)
    done = f"{changed} of {len(things)} objects changed" if changed else "unchanged"
    reporter.say(f"  {addon.name} {addon.version}: {done}")


def _scaled(addon: AddOn, thing: dict[str, Any], live: Object | None) -> dict[str, Any]:
    """Return an object; one of the controllers in `idle` keeps its live number of replicas."""
    if live is None or thing["kind"] not in WORKLOADS or live["metadata"]["name"] not in addon.idle:
        return thing
    return {**thing, "spec": {**thing["spec"], "replicas": health.wanted_replicas(live["spec"])}}


def _apply_applications(api: ApiClient, cluster: RenderedEnvironment, reporter: Reporter) -> None:
    """Apply the applications, and wait for External Secrets; the root may have no commit yet."""
    for thing in addons.applications(cluster):
        reference = Reference.of(thing)
        apply.apply_object(api, thing, api.get(reference), reporter.say)
        if reference.name == EXTERNAL_SECRETS:
            wait.wait_until_ready(api, [reference], limits=LIMITS, report=reporter.progress)


def _check(
    api: ApiClient,
    cluster: RenderedEnvironment,
    wanted: Sequence[AddOn],
    managed: Sequence[AddOn],
) -> Iterator[CheckResult]:
    for addon in wanted:
        seen = addon.version if addon in managed else "installed by others, not changed"
        yield _check_workloads(api, addon, seen)
    yield _check_metrics(api)
    if cluster.is_argo:
        yield _check_exists(
            api, Reference("v1", "ServiceAccount", EXTERNAL_SECRETS, EXTERNAL_SECRETS),
            "service account of External Secrets exists",
        )  # fmt: skip
        yield _check_root(api, cluster)
    yield _check_kinds(api, cluster)
    zones = _find_edge_zones(api, cluster)
    if zones is not None:
        value = f"{{{cluster.loaded.environment} = {json.dumps(zones)}}}"
        seen = f"edge_zones = {value}" if zones else "none before the first deployment"
        yield CheckResult("zones of the load balancer's endpoint group", True, seen)


def _check_workloads(api: ApiClient, addon: AddOn, seen: str) -> CheckResult:
    """Check that the workloads of an add-on are ready."""
    states = {Reference.of(thing): health.judge(thing) for thing in _workloads(api, addon)}
    pending = {r: state for r, state in states.items() if state.state != "ready"}
    seen += f"; {wait.progress(pending)}" if pending else ""
    return CheckResult(f"{addon.name} is installed", not pending, seen)


def _check_metrics(api: ApiClient) -> CheckResult:
    """Check the API that autoscalers read; it responds a while after its pod is ready."""
    check, until = "metrics API responds", time.monotonic() + METRICS_WAIT_S
    while True:
        try:
            seen = api.call("GET", "/apis/metrics.k8s.io/v1beta1")["kind"]
            return CheckResult(check, True, seen)
        except ClusterError as error:
            if time.monotonic() > until:
                return CheckResult(check, False, error.message)
        time.sleep(wait.POLL.max_delay)


def _check_exists(api: ApiClient, reference: Reference, check: str) -> CheckResult:
    found = api.get(reference)
    seen = f"{reference.namespace}/{reference.name}" if found else "missing"
    return CheckResult(check, found is not None, seen)


def _check_root(api: ApiClient, cluster: RenderedEnvironment) -> CheckResult:
    check = "root application exists"
    if cluster.settings.repository is None:
        seen = f"`repository` of {cluster.loaded.environment} is not set"
        return CheckResult(check, False, seen)
    name = f"{cluster.loaded.stack.stack}-root"
    found = api.get(Reference("argoproj.io/v1alpha1", "Application", argo.NAMESPACE, name))
    if found is None:
        return CheckResult(check, False, "missing")
    return CheckResult(check, True, health.judge(found).text or "synced")


def _check_kinds(api: ApiClient, cluster: RenderedEnvironment) -> CheckResult:
    check = "the cluster has every kind of object"
    try:
        apply.check_kinds(api, render.objects(cluster))
    except ClusterError as error:
        return CheckResult(check, False, error.message)
    return CheckResult(check, True, "yes")


def _find_edge_zones(api: ApiClient, cluster: RenderedEnvironment) -> list[str] | None:
    """Return the zones of the edge's endpoint group; None without a load balancer of `infra`.

    GKE writes them into an annotation of the edge's Service.
    """
    settings = cluster.settings
    if settings.cloud is None or not settings.domain or settings.gateway is not None:
        return None
    name = f"{cluster.loaded.stack.stack}-edge"
    found = api.get(Reference("v1", "Service", cluster.namespace, name))
    status: Mapping[str, Any] = json.loads(annotation(found, NEG_STATUS) or "{}") if found else {}
    return sorted(status.get("zones") or ())
