"""The images of static services after a rollback: with the hashed files of later releases.

    plan of a rollback -> images + layers of what was live since -> pushed -> plan with new digests

Browsers still run the pages of the release that is rolled back and request its hashed files, which
the image of the older release lacks. No layer is sent, because each is in the registry. SBOM and
provenance of the image are stored for the new digest as well; only statements that the signer had
signed are signed again. A rollback never depends on this: errors are reported as warnings.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from lapwing.build.image import publish
from lapwing.build.image.extended import extend_image
from lapwing.build.image.hashed_files import LiveImage, earlier_layers
from lapwing.errors import LapwingError
from lapwing.plan.names import release_of
from lapwing.registry.attestations import (
    SBOM_TYPE,
    Attestation,
    attach,
    statement,
    statements_to_sign,
)
from lapwing.registry.bundles import read_documents, read_statements
from lapwing.registry.client import RegistryClient
from lapwing.registry.push import Silent
from lapwing.registry.referrers import list_referrers
from lapwing.registry.repository import Repository
from lapwing.registry.signature import SIGNED, STATEMENT_TYPE, Signer
from lapwing.registry.signers import find_signer
from lapwing.settings import Settings
from lapwing.stack.image import Reference, parse
from lapwing.stack.load import StackFile
from lapwing.targets.image_attestations import creation_time
from lapwing.targets.live_images import live_images
from lapwing.targets.planned import PlannedChange


def keep_hashed_files(
    file: StackFile, plan: PlannedChange, settings: Settings, report: Callable[[str], None]
) -> PlannedChange:
    """Return a rollback whose static services keep the hashed files of what was live."""
    try:
        return _keep(file, plan, settings, report)
    except LapwingError as error:
        report(
            "warning: pages of the release that is rolled back cannot load their hashed files: "
            f"{error.message}"
        )
        return plan


def _keep(
    file: StackFile, plan: PlannedChange, settings: Settings, report: Callable[[str], None]
) -> PlannedChange:
    before = plan.before.services if plan.before else {}
    images = {
        name: parse(service.image)
        for name, service in plan.document.services.items()
        if service.kind == "static" and service.image and "@" in service.image
        if name in before and before[name].image != service.image
    }
    if not images:
        return plan
    loaded = file.load(plan.document.environment)
    live = live_images(loaded, settings, loaded.registry)
    signer = find_signer(settings, loaded)

    async def run() -> dict[str, str]:
        found = {}
        async with RegistryClient(settings) as client:
            for name in images.keys() & live.keys():
                image, revision = images[name], plan.document.services[name].revision
                extension = _Extension(client, image, name, revision, signer, report)
                digest = await extension.push(live[name])
                if digest is not None:
                    found[name] = f"{image.name}@{digest}"
        return found

    return _replace_images(plan, asyncio.run(run()))


@dataclass(frozen=True, slots=True)
class _Extension:
    """The extension of one image with hashed files."""

    client: RegistryClient
    image: Reference
    service: str
    revision: str
    signer: Signer | None
    report: Callable[[str], None]

    async def push(self, live: Sequence[LiveImage]) -> str | None:
        """Push the image with the layers that it lacks; return its digest, None if it has all."""
        client, image = self.client, self.image
        earlier = await earlier_layers(client, live, int(time.time()), self.report)
        if not earlier:
            return None
        made = await extend_image(client, image, earlier, self.service, self.revision)
        if made is None:
            return None
        self.report(f"adding the hashed files of later releases to {image}")
        await publish.push_image(client, made, image, (), Silent())
        found = await self._attestations(client.repository(image), made.root.digest)
        about = creation_time(made)
        await attach(client, image, made.root, found, self.signer, Silent(), about)
        return made.root.digest

    async def _attestations(self, source: Repository, digest: str) -> list[Attestation]:
        """Return the attestations of the image, rewritten for the new digest."""
        old, new = (d.partition(":")[2].encode() for d in (self.image.wanted, digest))
        found = []
        for descriptor in await list_referrers(source, self.image.wanted):
            manifest = await source.manifest(descriptor.digest, descriptor.size)
            if manifest.artifact_type in (SBOM_TYPE, STATEMENT_TYPE):
                for content in await read_documents(source, manifest):
                    found.append(Attestation(manifest.artifact_type, content.replace(old, new)))
        if self.signer is None:
            return found
        statements = {SIGNED: statement(self.image.name, digest, SIGNED, {})}
        async for stated, _ in read_statements(source, self.image.wanted, self.signer.verifier):
            text = json.dumps(stated, separators=(",", ":"), sort_keys=True).encode()
            statements[str(stated.get("predicateType"))] = text.replace(old, new)
        return [*found, *statements_to_sign(statements)]


def _replace_images(plan: PlannedChange, images: Mapping[str, str]) -> PlannedChange:
    """Return a plan with other images of services, in the document and in the manifests."""
    services, files = dict(plan.document.services), dict(plan.files or {})
    for name, image in images.items():
        old = services[name].image or ""
        services[name] = msgspec.structs.replace(
            services[name], image=image, release=release_of(image)
        )
        files = {path: text.replace(old.encode(), image.encode()) for path, text in files.items()}
    document = msgspec.structs.replace(plan.document, services=services)
    return PlannedChange(document, plan.expected, plan.before, files)
