"""Remove old images of a stack's services from the registry.

    registry: manifests -> desired states of all environments -> policy -> registry: deletions

The desired state is read after the registry, so an image that was deployed in between is kept. It
is this machine's and that of each `repository:` in the stack file; an environment that is in
neither may run anything, so nothing is removed then.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from lapwing.build.image.hashed_files import MAX_RELEASES
from lapwing.desired.history import HISTORY_LENGTH, IN_PROGRESS, entries_to_keep, history
from lapwing.desired.remote import Remote
from lapwing.desired.repository import DesiredRepository
from lapwing.errors import DesiredStateError, UsageError
from lapwing.plan.image_retention import Decision, ImageRetention, Stored
from lapwing.registry.client import RegistryClient
from lapwing.registry.registry import HostOptions
from lapwing.registry.stored import read_stored
from lapwing.render.caddy import KEEP_ASSETS_S
from lapwing.settings import Settings
from lapwing.stack.image import Reference, parse, service_image
from lapwing.stack.load import LOCAL, LoadedStack, StackFile
from lapwing.targets.image_requests import buildable_services
from lapwing.targets.live_images import live_documents

_DEPLOYED = "deployed in"


@dataclass(frozen=True, slots=True)
class PruneOptions:
    """Which images to remove. `not_deployed` are environments that run nothing."""

    services: tuple[str, ...] = ()
    registry: str | None = None
    not_deployed: tuple[str, ...] = ()
    dry_run: bool = False
    plain_http: bool = False


@dataclass(frozen=True, slots=True)
class PrunedRepository:
    """The decisions on one repository, and the digests that were deleted."""

    service: str
    repository: str
    decisions: list[Decision]
    deleted: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Deployed:
    """What environments need, by repository: tags and digests with the reason; and the past."""

    environments: set[tuple[str, str]] = field(default_factory=set)
    needed: dict[str, dict[str, str]] = field(default_factory=dict)
    past: dict[str, set[str]] = field(default_factory=dict)

    def add(self, image: str, reason: str | None) -> None:
        reference = parse(image)
        self.past.setdefault(reference.name, set()).add(reference.wanted)
        if reason is not None:
            needed = self.needed.setdefault(reference.name, {})
            if not needed.get(reference.wanted, "").startswith(_DEPLOYED):
                needed[reference.wanted] = reason


def prune_images(
    file: StackFile,
    loaded: LoadedStack,
    settings: Settings,
    options: PruneOptions,
    report: Callable[[str], None],
) -> list[PrunedRepository]:
    """Decide on every image of the services (all with a source), and delete what is not kept.

    Raises UsageError, DesiredStateError or RegistryError; then the rest was not deleted.
    """
    registry = options.registry or loaded.registry
    if registry is None:
        raise UsageError(
            "The images are in no registry.",
            hint="Set `registry: HOST/FOLDER` in the stack file, or give --registry.",
        )
    targets = {
        name: service_image(registry, name) for name in buildable_services(loaded, options.services)
    }
    past = _read_deployed(file, settings, options).past

    async def run() -> list[PrunedRepository]:
        plain = options.plain_http
        hosts = {target.api: HostOptions(plain_http=plain) for target in targets.values()}
        async with RegistryClient(settings, plain_http=plain, hosts=hosts) as client:
            stored: dict[str, list[Stored]] = {}
            for name, target in targets.items():
                report(f"listing {target.name}")
                source = client.repository(target)
                stored[name] = await read_stored(source, past.get(target.name, ()))
            found = _decide(targets, stored, _read_deployed(file, settings, options))
            for each in found if not options.dry_run else ():
                await _delete(client, targets[each.service], each, report)
            return found

    return asyncio.run(run())


def _decide(
    targets: dict[str, Reference], stored: dict[str, list[Stored]], deployed: _Deployed
) -> list[PrunedRepository]:
    found = []
    for name, target in targets.items():
        needed = deployed.needed.get(target.name, {})
        digests = {
            each.digest: needed[wanted]
            for each in stored[name]
            for wanted in (*each.tags, each.digest)
            if wanted in needed
        }
        decisions = ImageRetention().decide(stored[name], digests, time.time())
        found.append(PrunedRepository(name, target.name, decisions))
    return found


async def _delete(
    client: RegistryClient,
    target: Reference,
    found: PrunedRepository,
    report: Callable[[str], None],
) -> None:
    """Delete what is not kept: indexes before their parts, which some registries require."""
    repository = client.repository(target, write=True, delete=True)
    unwanted = [d.stored for d in found.decisions if not d.keep]
    for each in sorted(unwanted, key=lambda each: not each.children):
        report(f"deleting {target.name}@{each.digest}")
        await repository.delete(each.digest)
        found.deleted.add(each.digest)


def _read_deployed(file: StackFile, settings: Settings, options: PruneOptions) -> _Deployed:
    """Read what every environment runs or can return to.

    Raises DesiredStateError, or UsageError if an environment is in no desired state.
    """
    deployed = _Deployed()
    for repository in _repositories(file, settings):
        for stack, environment in repository.environments():
            deployed.environments.add((stack, environment))
            _add_served(deployed, repository, stack, environment)
            _add_environment(deployed, repository, stack, environment)
    for name in file.environments:
        known = (file.stack, name) in deployed.environments
        if not known and name not in (LOCAL, *options.not_deployed):
            raise UsageError(
                f"No deployment of {file.stack}/{name} is known here, so the images that it runs "
                "are unknown. Nothing was deleted.",
                hint="Run this on the machine that deploys it. If it was never deployed, add "
                f"`--not-deployed {name}`.",
            )
    return deployed


def _repositories(file: StackFile, settings: Settings) -> Iterable[DesiredRepository]:
    yield DesiredRepository(settings.desired)
    urls = (file.environment(name).get("repository") for name in file.environments)
    for url in dict.fromkeys(str(url) for url in urls if url):
        remote = Remote(url, settings.remotes, settings.environ)
        remote.fetch()
        yield remote.repository


def _add_served(
    deployed: _Deployed, repository: DesiredRepository, stack: str, environment: str
) -> None:
    """Add the images of static services whose hashed files the next image has, too."""
    oldest, served = time.time() - KEEP_ASSETS_S, dict[str, dict[str, None]]()
    for document, until in live_documents(repository, stack, environment):
        for name, service in document.services.items() if until > oldest else ():
            if service.kind == "static" and service.image is not None:
                served.setdefault(name, {})[service.image] = None
    for images in served.values():
        for image in itertools.islice(images, MAX_RELEASES + 1):
            deployed.add(image, f"its hashed files are served in {stack}/{environment}")


def _add_environment(
    deployed: _Deployed, repository: DesiredRepository, stack: str, environment: str
) -> None:
    entries = history(repository, stack, environment, HISTORY_LENGTH)
    kept = {entry.commit for entry in entries_to_keep(entries)}
    documents = repository.documents(stack, environment, [entry.commit for entry in entries])
    for number, (entry, document) in enumerate(zip(entries, documents, strict=True)):
        if isinstance(document, DesiredStateError):
            if entry.commit in kept:
                raise document
            continue
        reason = None
        if entry.commit in kept:
            runs = number == 0 or entry.outcome == IN_PROGRESS
            reason = f"{_DEPLOYED if runs else 'rollback target of'} {stack}/{environment}"
        for service in document.services.values() if document else ():
            if service.image is not None:
                deployed.add(service.image, reason)
