"""Render a stack in one environment as Kubernetes objects, and as files.

    ClusterEnvironment -> manifests (trees with typed leaves) -> objects (leaves resolved) -> files

The order of objects is the order in which they can be applied. One file is one concern.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lapwing.errors import ImageReferenceError, UsageError, check_name
from lapwing.plan.names import ENVIRONMENT, FILES, MANAGED_BY, MAX_NAME_LENGTH, PART_OF
from lapwing.render.kubernetes import (
    argo,
    backup,
    data,
    edge,
    emit,
    front,
    jobs,
    network,
    secrets,
    workloads,
)
from lapwing.render.kubernetes.objects import ClusterEnvironment, Manifest
from lapwing.render.kubernetes.setting import Scope, Tree, resolve, text
from lapwing.stack import image
from lapwing.stack.image_lock import read_lock
from lapwing.stack.load import LoadedStack

SYNC_WAVE = "argocd.argoproj.io/sync-wave"
HEADS = {
    "namespace.yaml": "The namespace, with the Pod Security level `restricted`.",
    "secrets.yaml": "The sources of secrets. No value is in a manifest.",
    "network.yaml": "Network policies: what is not listed here is denied.",
    "data.yaml": "Databases in the cluster.",
    "jobs.yaml": "Jobs that run once before the new release gets traffic.",
    "workloads.yaml": "Services: workloads, their Services, autoscalers and disruption budgets.",
    "edge.yaml": "Envoy, between the load balancer and the blue and green slots.",
    "front.yaml": "Ingress to the cluster.",
    "after.yaml": "Jobs that run after the services are healthy: once, or on a schedule.",
}


def prepare(
    loaded: LoadedStack,
    images: Mapping[str, str] | None = None,
    revision: str = "",
    *,
    hold: bool = False,
    revisions: Mapping[str, str] | None = None,
    has_pull_secret: bool = False,
) -> ClusterEnvironment:
    """Combine an environment with the images of its services.

    An image comes from `images`, else from the stack file. Nothing is built. `revisions` are those
    of single services. Third-party images have the digests of lapwing.lock.

    Raises:
        UsageError: An unknown service, an invalid image reference, a service without an image, a
            namespace that is too long, or an environment that does not run on Kubernetes.
        BuildError: An invalid lapwing.lock.
    """
    given = dict(images or {})
    services = loaded.stack.services
    for name in given:
        check_name("service", name, services, f"{loaded.path.name} (--image)")
    if loaded.settings.target != "kubernetes":
        raise UsageError(
            f"Environment {loaded.environment!r} has `target: machine`, which has no manifests.",
            hint="Choose an environment with `target: kubernetes` by --env NAME.",
        )
    found = {}
    for name, service in services.items():
        if reference := given.get(name) or service.image:
            found[name] = str(_reference(name, reference))
    if missing := [name for name in services if name not in found]:
        raise _no_image(loaded, missing)
    digests = read_lock(loaded.folder)
    made = ClusterEnvironment(
        loaded, found, revision, hold, revisions or {}, has_pull_secret, digests
    )
    _check_namespace(made)
    return made


def _no_image(loaded: LoadedStack, names: list[str]) -> UsageError:
    """Return the error for services without an image, with what gives them one."""
    options = " ".join(f"--image {name}=REGISTRY/REPOSITORY@DIGEST" for name in names)
    deploy = f"`lapwing deploy -e {loaded.environment}`"
    needs_repository = loaded.settings.uses_argo_cd and loaded.settings.repository is None
    also = " and `repository: URL`" if needs_repository else ""
    if not set(names) <= set(loaded.stack.services_without_image):
        hint = f"Set `image` of each service in {loaded.path.name}, or add {options}."
    elif loaded.registry:
        build = f"`lapwing image build {' '.join(names)} -e {loaded.environment} --push`"
        builds = f"With `repository: URL` of the environment, {deploy}" if also else deploy
        hint = f"{builds} builds and pushes them. Here, run {build} and add {options}."
    else:
        hint = (
            f"Set `registry: HOST/FOLDER`{also} in {loaded.path.name}: then {deploy} builds and "
            f"pushes them. A cluster of kind or minikube needs no registry. Or add {options}."
        )
    return UsageError(f"No image is given for: {', '.join(names)}.", hint=hint)


def _reference(service: str, text_: str) -> str:
    try:
        image.parse(text_)
    except ImageReferenceError as error:
        raise UsageError(
            f"Invalid image of {service!r}: {error.message}", hint=error.hint
        ) from error
    return text_


def _check_namespace(cluster: ClusterEnvironment) -> None:
    length = len(cluster.namespace)
    if length > MAX_NAME_LENGTH:
        raise UsageError(
            f"Namespace {cluster.namespace!r} is too long: {length} characters, the maximum is "
            f"{MAX_NAME_LENGTH}.",
            hint="Shorten the name of the stack or of the environment.",
        )


def manifests(cluster: ClusterEnvironment) -> list[Manifest]:
    """Render every object of the environment, in the order of waves.

    Raises:
        UsageError: A name is too long, or two objects have the same name.
    """
    found = [
        Manifest("namespace.yaml", 0, _namespace(cluster)),
        *network.manifests(cluster),
        *secrets.external(cluster),
        *data.manifests(cluster),
        *jobs.manifests(cluster),
        *workloads.manifests(cluster),
        *edge.manifests(cluster),
        *front.manifests(cluster),
        *backup.manifests(cluster),
    ]
    found.sort(key=lambda m: m.wave)
    _check_names(cluster, found)
    return [_with_wave(m) for m in found] if cluster.is_argo else found


def _namespace(cluster: ClusterEnvironment) -> dict[str, Tree]:
    level = "restricted"
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": Scope.NAMESPACE,
            "labels": {
                PART_OF: cluster.loaded.stack.stack,
                MANAGED_BY: Scope.MANAGER,
                ENVIRONMENT: cluster.loaded.environment,
                "pod-security.kubernetes.io/enforce": level,
                "pod-security.kubernetes.io/audit": level,
                "pod-security.kubernetes.io/warn": level,
            },
        },
    }


def _with_wave(manifest: Manifest) -> Manifest:
    metadata = manifest.tree["metadata"]
    annotations = {SYNC_WAVE: str(manifest.wave), **metadata.get("annotations", {})}
    tree = {**manifest.tree, "metadata": {**metadata, "annotations": annotations}}
    return Manifest(manifest.file, manifest.wave, tree)


def _check_names(cluster: ClusterEnvironment, found: Iterable[Manifest]) -> None:
    seen = set()
    for manifest in found:
        kind, name = manifest.tree["kind"], text(manifest.tree["metadata"]["name"], cluster.scopes)
        # A Job's name is a label of its pods; the pods of a StatefulSet, and the Jobs of a CronJob,
        # get 11 more characters.
        most = MAX_NAME_LENGTH - (11 if kind in ("StatefulSet", "CronJob") else 0)
        if len(name) > most:
            raise UsageError(
                f"The name of {kind} {name!r} is too long: {len(name)} characters, the maximum is "
                f"{most}.",
                hint="Shorten the name of the stack, or of the service or resource.",
            )
        if (kind, name) in seen:
            raise UsageError(
                f"Two objects would have the name {kind} {name!r}.",
                hint="Rename one of the services or resources.",
            )
        seen.add((kind, name))


def objects(cluster: ClusterEnvironment) -> list[dict[str, Any]]:
    """Render every object with its leaves at their default, in the order to apply them."""
    return [resolve(m.tree, cluster.scopes) for m in manifests(cluster)]


def files(cluster: ClusterEnvironment) -> dict[str, str]:
    """Render the manifests as YAML files: name to text."""
    grouped: dict[str, list[str]] = {}
    scopes = cluster.scopes
    for manifest in manifests(cluster):
        tree = resolve(manifest.tree, scopes)
        grouped.setdefault(manifest.file, []).append(emit.document(tree))
    return {name: _file(name, grouped[name]) for name in FILES if name in grouped}


def folder_files(cluster: ClusterEnvironment) -> dict[str, str]:
    """Render the manifests as files of a folder that `kubectl apply -f FOLDER` applies in order.

    kubectl applies files by name, so each starts with its number. Argo CD's objects are in a
    subfolder.
    """
    numbered = {f"{FILES.index(name) + 1}-{name}": t for name, t in files(cluster).items()}
    return numbered | {f"argocd/{name}": t for name, t in argo_files(cluster).items()}


def argo_files(cluster: ClusterEnvironment) -> dict[str, str]:
    """Render Argo CD's objects as files of `<stack>/argocd`; none without a `repository`."""
    if not cluster.is_argo or cluster.settings.repository is None:
        return {}
    project = argo.project(cluster)
    documents = [emit.document(project), emit.document(argo.application(cluster))]
    head = f"# {cluster.loaded.stack.stack} in {cluster.loaded.environment}, for Argo CD.\n"
    return {f"{cluster.loaded.environment}.yaml": head + "---\n".join(documents)}


def root_file(cluster: ClusterEnvironment) -> str:
    """Render the application of applications, which `lapwing bootstrap` applies once."""
    head = "# Applied once, by lapwing bootstrap. It creates the other applications.\n"
    return head + emit.document(argo.root(cluster))


def _file(name: str, documents: list[str]) -> str:
    return f"# {HEADS[name]}\n" + "---\n".join(documents)
