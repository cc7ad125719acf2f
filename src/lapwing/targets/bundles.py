"""Plan a deployment to a machine: from source to a document.

    bind resources and secrets -> build -> make the document

Only caches (releases, layers) change, so it can be interrupted at any moment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import msgspec

from lapwing.desired.repository import DesiredRepository
from lapwing.errors import (
    UsageError,
)
from lapwing.plan import make
from lapwing.plan.make import Built
from lapwing.plan.model import Deployment, Document, Resource
from lapwing.settings import Settings
from lapwing.stack.load import LoadedStack, check_machine
from lapwing.targets.planned import PlannedChange
from lapwing.targets.requirements import check_reachable, find_requirements
from lapwing.targets.sources import (
    Progress,
    build_services,
    check_committed,
    container_services,
    releases_of,
    revision_of,
    wanted_services,
)


def check_target(loaded: LoadedStack) -> None:
    """Check that an environment is a machine that can run the stack.

    Raises UsageError or StackFileError.
    """
    if loaded.settings.target != "machine":
        name = loaded.environment
        raise UsageError(
            f"Environment {name!r} is on a cluster, not on a machine.",
            hint=f"Run `lapwing deploy -e {name} --image SERVICE=REF`.",
        )
    check_machine(loaded)


@dataclass(frozen=True, slots=True)
class Preparation:
    """How services become releases, and how the images of resources are pulled and pinned.

    Without `pin_images`, no resource that is new runs in a container.
    """

    build_all: Callable[[list[str]], Mapping[str, Built]]
    pin_images: Callable[[Mapping[str, Resource]], Mapping[str, Resource]] | None = None


def plan(
    loaded: LoadedStack,
    settings: Settings,
    *,
    services: tuple[str, ...] = (),
    hold: bool = False,
    actor: str,
    progress: Progress = lambda _: None,
    preparation: Preparation | None = None,
) -> PlannedChange:
    """Build services (all by default) and plan the commit.

    By default they are built as processes. Raises UsageError, BuildError, SourceError,
    NoSpaceError, and as `find_requirements`.
    """
    check_target(loaded)
    preparation = preparation or Preparation(
        partial(build_releases, loaded, settings, progress=progress)
    )
    wanted = wanted_services(loaded, services)
    repository = DesiredRepository(settings.desired)
    repository.ensure()
    where = (loaded.stack.stack, loaded.environment)
    requirements = find_requirements(
        loaded,
        settings,
        repository.latest_valid(*where),
        wanted,
        progress,
        sources=wanted,
        containers=preparation.pin_images is not None,
    )
    check_reachable(loaded, container_services(loaded, wanted), requirements.resources)
    resources = requirements.resources
    if preparation.pin_images is not None:
        resources = preparation.pin_images(resources)
    releases = preparation.build_all(wanted)
    check_committed(loaded, {name: built.revision for name, built in releases.items()})
    expected, current = repository.newest(*where), repository.latest_valid(*where)
    document = make.make(
        loaded,
        releases=releases,
        resources=resources,
        secrets=requirements.secrets,
        deployment=Deployment(
            kind="deploy", actor=actor, revision=revision_of(releases), hold=hold
        ),
        current=current,
    )
    return PlannedChange(keep_revisions(document, current), expected, current)


def build_releases(
    loaded: LoadedStack, settings: Settings, wanted: list[str], progress: Progress
) -> dict[str, Built]:
    """Build services as processes. Raises as `build_services`, and UsageError for a container."""
    if contained := container_services(loaded, wanted):
        raise UsageError(
            f"{contained[0]} runs as a container, which this command does not support.",
            hint=f"Use `lapwing deploy -e {loaded.environment}`.",
        )
    return releases_of(build_services(loaded, settings, wanted, progress))


def keep_revisions(document: Document, current: Document | None) -> Document:
    """Keep the revision of each service whose release stays.

    So a commit elsewhere in the repository is no change of the service.
    """
    if current is None:
        return document
    services = dict(document.services)
    for name, service in services.items():
        before = current.services.get(name)
        if before is not None and before.release == service.release:
            services[name] = msgspec.structs.replace(service, revision=before.revision)
    return msgspec.structs.replace(document, services=services)
