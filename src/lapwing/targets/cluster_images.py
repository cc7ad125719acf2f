"""The images of an environment on a cluster that are built from source.

    stack file -> services without `image:` -> images -> registry, or nodes of kind and minikube

Images go to the `registry` of the environment; without one, into a local cluster by its tool; else
to the `registry` of the stack. Building changes caches of this machine only, so it precedes the
guards, which need the digests. Images are pushed when a deployment is approved and before it is
committed: if a push fails, nothing has changed. What runs is named by its digest.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from lapwing.build.image.builder import AMD64
from lapwing.kubernetes import local_cluster
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.local_cluster import LOCAL_REGISTRY, LocalCluster
from lapwing.registry.manifest import Platform
from lapwing.registry.push import Progress, Silent
from lapwing.settings import Settings
from lapwing.stack.load import LoadedStack
from lapwing.system.git import read_revision
from lapwing.targets import images
from lapwing.targets.images import ImageOptions, ImageResult
from lapwing.targets.sources import check_committed, check_env_files, source_folder


@dataclass(frozen=True, slots=True)
class Destination:
    """Where the images of an environment go: a registry with its folder, or a local cluster."""

    registry: str | None = None
    cluster: LocalCluster | None = None
    platforms: tuple[Platform, ...] = (AMD64,)
    nodes_have: Collection[str] = ()
    """The names of images that every node of a local cluster has."""

    @property
    def is_local(self) -> bool:
        """Whether it serves this machine only, so that uncommitted changes may be deployed."""
        return self.cluster is not None


@dataclass(frozen=True, slots=True)
class BuiltImages:
    """Images that were built and are not delivered yet, by service."""

    loaded: LoadedStack
    destination: Destination = field(default_factory=Destination)
    results: tuple[ImageResult, ...] = ()
    options: ImageOptions = field(default_factory=ImageOptions)

    @property
    def references(self) -> dict[str, str]:
        """The image of each service, named by its digest."""
        return {r.image.service: self._reference(r) for r in self.results}

    @property
    def revisions(self) -> dict[str, str]:
        """The revision of the source of each service."""
        return {r.image.service: r.image.revision for r in self.results}

    def deliver(
        self, settings: Settings, report: Callable[[str], None], progress: Progress | None = None
    ) -> None:
        """Push the images, or load them into the local cluster. Raises LapwingError."""
        if self.destination.registry is not None:
            shown = progress or Silent()
            images.push_images(self.loaded, self.results, settings, self.options, report, shown)
            return
        cluster = self.destination.cluster
        missing = {self._reference(r): r.image for r in self.results}
        missing = {n: i for n, i in missing.items() if n not in self.destination.nodes_have}
        if cluster is None or not missing:
            return
        services = ", ".join(image.service for image in missing.values())
        report(f"loading {services} into {cluster.context}")
        with tempfile.TemporaryDirectory(prefix="lapwing-load-") as folder:
            archive = Path(folder) / "images.tar"
            named = [(image, "", [name]) for name, image in missing.items()]
            images.save_images(named, archive, settings)
            local_cluster.load(cluster, archive, settings.environ, report)

    def _reference(self, result: ImageResult) -> str:
        digest, destination = result.image.root.digest, self.destination
        if destination.cluster is not None and destination.registry is None:
            return local_cluster.image_name(result.repository, digest)
        return f"{result.repository}@{digest}"


def to_build(loaded: LoadedStack, services: tuple[str, ...], given: Collection[str]) -> list[str]:
    """Return the services whose images a deployment builds: not those with a `given` image."""
    return [
        name
        for name in loaded.stack.services_without_image
        if name not in given and (not services or name in services)
    ]


def registry_of(loaded: LoadedStack, given: str | None = None) -> Destination | None:
    """Return the registry of an environment; None if there is none."""
    registry = given or loaded.registry
    return Destination(registry) if registry else None


def destination_on(loaded: LoadedStack, api: ApiClient) -> Destination | None:
    """Return where images for a cluster go; None if there is no place for them."""
    cluster = local_cluster.from_context(api.access.context) if api.access.local else None
    if cluster is None:
        return registry_of(loaded)
    registry = loaded.settings.registry
    have = set() if registry else _images_of_nodes(api)
    return Destination(registry, cluster, (images.local_platform(),), have)


def build(
    loaded: LoadedStack,
    settings: Settings,
    names: list[str],
    destination: Destination,
    report: Callable[[str], None],
    desired: str | None = None,
) -> BuiltImages:
    """Build the images of services; nothing is pushed. `desired` is as in `ImageOptions`.

    Raises UsageError for uncommitted changes, BuildError, SourceError, or RegistryError of a base.
    """
    if not destination.is_local:
        folders = {name: source_folder(loaded, name) for name in names}
        revisions = {n: read_revision(folder, settings.environ) for n, folder in folders.items()}
        check_committed(loaded, revisions)
        check_env_files(loaded, settings)
    options = ImageOptions(
        tuple(names),
        destination.platforms,
        destination.registry or f"{LOCAL_REGISTRY}/{loaded.stack.stack}",
        push=True,
        scan=not destination.is_local,
        uncommitted=destination.is_local,
        desired=desired,
    )
    results = images.make_images(loaded, settings, options, report) if names else []
    return BuiltImages(loaded, destination, tuple(results), options)


def _images_of_nodes(api: ApiClient) -> set[str]:
    """Return the names of images that every node has, as far as the nodes report them."""
    nodes = [
        {
            str(name)
            for image in node.get("status", {}).get("images") or ()
            for name in image["names"]
        }
        for node in api.list("v1", "Node", "")
    ]
    return set.intersection(*nodes) if nodes else set()
