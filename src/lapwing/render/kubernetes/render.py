"""A stack in one environment as Kubernetes objects, and as files. Pure.

    Target -> manifests (trees with open leaves) -> objects (leaves at their default) -> files

The order of objects is the order in which they can be applied. One file is one concern.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lapwing.errors import ImageReferenceError, UsageError, did_you_mean
from lapwing.plan.names import ENVIRONMENT, FILES, MANAGED_BY, MAX_NAME_LENGTH, PART_OF
from lapwing.render.kubernetes import (
    argo,
    data,
    edge,
    emit,
    front,
    jobs,
    network,
    secrets,
    workloads,
)
from lapwing.render.kubernetes.setting import Scope, Tree, resolve, text
from lapwing.render.kubernetes.target import Manifest, Target
from lapwing.stack import image
from lapwing.stack.load import LoadedStack

WAVE = "argocd.argoproj.io/sync-wave"
HEADS = {
    "namespace.yaml": "The namespace, in which Pod Security refuses what is not restricted.",
    "secrets.yaml": "Where secrets come from. No value is in a manifest.",
    "network.yaml": "Who may talk to whom: nobody else.",
    "data.yaml": "Databases that run in the cluster.",
    "jobs.yaml": "What runs once before the new release serves.",
    "workloads.yaml": "Services: what runs, what finds it, how many there are.",
    "edge.yaml": "Envoy, which load balancers point at; blue and green flip behind it.",
    "front.yaml": "How requests come into the cluster.",
    "after.yaml": "What runs once when the services serve.",
}


def target(
    loaded: LoadedStack,
    images: Mapping[str, str] | None = None,
    revision: str = "",
    *,
    hold: bool = False,
) -> Target:
    """An environment with the images of its services: from `images`, else from the stack file.

    Raises UsageError for an unknown service, a reference that is none, a service without an image
    a name that is too long, or an environment that is no cluster.
    """
    given = dict(images or {})
    services = loaded.stack.services
    for name in given:
        if name not in services:
            hint = did_you_mean(name, services) or "Services are " + ", ".join(services) + "."
            raise UsageError(f"There is no service {name!r} to give an image to.", hint=hint)
    if loaded.settings.target != "kubernetes":
        raise UsageError(
            f"`{loaded.environment}` is a machine: there are no manifests to render.",
            hint="Name an environment with `target: kubernetes` by --env.",
        )
    found = {}
    for name, service in services.items():
        reference = given.get(name) or service.image
        if reference is None:
            raise UsageError(
                f"Service {name!r} has no image.",
                hint=f"Add `image:` to it in {loaded.path.name}, or say "
                f"--image {name}=REGISTRY/REPOSITORY:TAG.",
            )
        found[name] = str(_reference(name, reference))
    made = Target(loaded, found, revision, hold)
    _check_namespace(made)
    return made


def _reference(service: str, text_: str) -> str:
    """The reference as it was written, once it is known to be one."""
    try:
        image.parse(text_)
    except ImageReferenceError as error:
        raise UsageError(
            f"The image of {service!r} is no reference: {error.message}", hint=error.hint
        ) from error
    return text_


def _check_namespace(target: Target) -> None:
    if len(target.namespace) > MAX_NAME_LENGTH:
        raise UsageError(
            f"The namespace would be {target.namespace!r}: {len(target.namespace)} characters, and "
            f"{MAX_NAME_LENGTH} is the most.",
            hint="Choose a shorter name for the stack or for the environment.",
        )


def manifests(target: Target) -> list[Manifest]:
    """Every object of the environment, in the order of waves. Raises UsageError for a name that is
    too long, or two objects of the same name."""
    found = [
        Manifest("namespace.yaml", 0, _namespace(target)),
        *network.manifests(target),
        *secrets.external(target),
        *data.manifests(target),
        *jobs.manifests(target),
        *workloads.manifests(target),
        *edge.manifests(target),
        *front.manifests(target),
    ]
    found.sort(key=lambda m: m.wave)
    _check_names(target, found)
    return [_with_wave(m) for m in found] if target.is_argo else found


def _namespace(target: Target) -> dict[str, Tree]:
    level = "restricted"
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": Scope.NAMESPACE,
            "labels": {
                PART_OF: target.loaded.stack.stack,
                MANAGED_BY: Scope.MANAGER,
                ENVIRONMENT: target.loaded.environment,
                "pod-security.kubernetes.io/enforce": level,
                "pod-security.kubernetes.io/audit": level,
                "pod-security.kubernetes.io/warn": level,
            },
        },
    }


def _with_wave(manifest: Manifest) -> Manifest:
    metadata = manifest.tree["metadata"]
    annotations = {WAVE: str(manifest.wave), **metadata.get("annotations", {})}
    tree = {**manifest.tree, "metadata": {**metadata, "annotations": annotations}}
    return Manifest(manifest.file, manifest.wave, tree)


def _check_names(target: Target, found: Iterable[Manifest]) -> None:
    seen = set()
    for manifest in found:
        kind, name = manifest.tree["kind"], text(manifest.tree["metadata"]["name"], target.scopes)
        # A Job's name stands in a label of its pods; a StatefulSet's pods get 11 characters more.
        most = MAX_NAME_LENGTH - (11 if kind == "StatefulSet" else 0)
        if len(name) > most:
            raise UsageError(
                f"{kind} {name!r} has {len(name)} characters, and {most} is the most.",
                hint="Choose a shorter name for the stack, or for the service or resource.",
            )
        if (kind, name) in seen:
            raise UsageError(
                f"Two objects would be the {kind} {name!r}.",
                hint="Choose another name for one of the services or resources.",
            )
        seen.add((kind, name))


def objects(target: Target) -> list[dict[str, Any]]:
    """Every object with its leaves at their default, in the order in which to apply them."""
    return [resolve(m.tree, target.scopes) for m in manifests(target)]


def files(target: Target) -> dict[str, str]:
    """The manifests as YAML files: name to text."""
    grouped: dict[str, list[str]] = {}
    scopes = target.scopes
    for manifest in manifests(target):
        tree = resolve(manifest.tree, scopes)
        grouped.setdefault(manifest.file, []).append(emit.document(tree))
    return {name: _file(name, grouped[name]) for name in FILES if name in grouped}


def argo_files(target: Target) -> dict[str, str]:
    """Argo CD's objects, as files of `<stack>/argocd`; none without a `repository`."""
    if not target.is_argo or target.environment.repository is None:
        return {}
    project = argo.project(target, objects(target))
    documents = [emit.document(project), emit.document(argo.application(target))]
    head = f"# {target.loaded.stack.stack} in {target.loaded.environment}, for Argo CD.\n"
    return {
        f"{target.loaded.environment}.yaml": head + "---\n".join(documents),
    }


def root_file(target: Target) -> str:
    """The application of applications, which people apply once."""
    head = "# Apply this once: kubectl apply -f root.yaml. It brings the others.\n"
    return head + emit.document(argo.root(target))


def _file(name: str, documents: list[str]) -> str:
    return f"# {HEADS[name]}\n" + "---\n".join(documents)
