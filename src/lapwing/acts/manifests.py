"""Deploying to a cluster: from a stack file and images to one commit of manifests.

    load -> target (images) -> document and manifests -> commit, and push where Argo CD reads

CI and people only commit. What applies the commit is Argo CD, or `lapwing` itself for a cluster
without it; a rollback is the commit of what an earlier one had.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lapwing.desired.repository import DesiredRepository
from lapwing.errors import UsageError
from lapwing.plan import diff
from lapwing.plan.diff import Change
from lapwing.plan.make import domains
from lapwing.plan.model import Deployment, Document, Resource, Service
from lapwing.render.kubernetes import render
from lapwing.render.kubernetes.target import Target
from lapwing.stack.load import LoadedStack
from lapwing.stack.rules import variable_of


@dataclass(frozen=True, slots=True)
class Rendered:
    """A deployment that is ready to commit: its document and its files (by their path below the
    stack's folder)."""

    document: Document
    files: dict[str, bytes]


def prepare(
    repository: DesiredRepository,
    loaded: LoadedStack,
    services: tuple[str, ...],
    images: Mapping[str, str],
    deployment: Deployment,
) -> Rendered:
    """What to commit on top of what the repository has. A service that is not asked for, or that
    got no image and has none in the stack file, keeps the one that it has. Raises UsageError."""
    before = repository.understood(loaded.stack.stack, loaded.environment)
    kept = {n: s.image for n, s in before.services.items() if s.image} if before else {}
    chosen = dict(images)
    for name, service in loaded.stack.services.items():
        is_asked = not services or name in services
        reference = images.get(name) or (service.image if is_asked else None) or kept.get(name)
        if reference is not None:
            chosen[name] = reference
    target = render.target(loaded, chosen, deployment.revision, hold=deployment.hold)
    return rendered(target, deployment)


def refuse_offline(repository: DesiredRepository, loaded: LoadedStack, made: Rendered) -> None:
    """An offline migration wants every replica stopped, and a backup: nothing that Argo CD does by
    itself. Raises UsageError where a new image could bring one."""
    before = repository.understood(loaded.stack.stack, loaded.environment)
    for name, service in loaded.stack.services.items():
        if service.migrate is None or service.migrate.mode != "offline":
            continue
        old = before.services.get(name) if before else None
        new = made.document.services[name]
        if old is not None and old.image != new.image:
            raise UsageError(
                f"{name} {old.release} -> {new.release} may migrate its database, and its "
                "migrations are offline: no replica may be connected meanwhile.",
                hint="Back the database up, scale the service to zero, then run `lapwing deploy` "
                "with --allow-downtime. Nothing was committed.",
            )


def rendered(target: Target, deployment: Deployment) -> Rendered:
    """The document and the files of an environment."""
    loaded = target.loaded
    environment = loaded.environment
    texts = {f"{environment}/manifests/{n}": t for n, t in render.files(target).items()}
    texts |= {f"argocd/{n}": t for n, t in render.argo_files(target).items()}
    if target.environment.repository is not None and target.is_argo:
        texts["root.yaml"] = render.root_file(target)
    document = Document(
        stack=loaded.stack.stack,
        environment=environment,
        target="kubernetes",
        domains=domains(loaded),
        deployment=deployment,
        services={n: _service(target, n) for n in target.services},
        resources={
            n: Resource(kind=r.kind, provider="url", variable=r.variable or variable_of(n))
            for n, r in loaded.stack.resources.items()
        },
    )
    return Rendered(document, {name: text.encode() for name, text in texts.items()})


def _service(target: Target, name: str) -> Service:
    service, image = target.services[name], target.images[name]
    return Service(
        kind=service.kind,
        release=release_of(image),
        revision=target.revision,
        image=image,
        route=service.route,
        command=service.command,
        env=dict(service.env),
        replicas=service.replicas.min,
    )


def release_of(image: str) -> str:
    """What an image is called as a release: the last part of its name, and its tag or the
    beginning of its digest."""
    name, _, digest = image.partition("@")
    last = name.rpartition("/")[2]
    if digest:
        return f"{last.partition(':')[0]}@{digest.partition(':')[2][:12]}"
    return last if ":" in last else f"{last}:latest"


def commit(repository: DesiredRepository, made: Rendered) -> tuple[str | None, list[Change]]:
    """Commit a deployment on top of what the repository has; returns the commit and what changed.
    None if nothing would: not the document, and not a byte of the manifests."""
    repository.ensure()
    where = (made.document.stack, made.document.environment)
    expected = repository.newest(*where)
    before = repository.understood(*where)
    changes = diff.diff(made.document, before)
    if expected is not None and not changes and _same(repository, made, expected):
        return None, []
    return repository.commit(made.document, expected=expected, files=made.files), changes


def _same(repository: DesiredRepository, made: Rendered, commit_: str) -> bool:
    document = made.document
    before = repository.manifests(document.stack, document.environment, commit_)
    own = {n: d for n, d in made.files.items() if n.startswith(f"{document.environment}/")}
    return before == own


def restored(
    repository: DesiredRepository, document: Document, at: str
) -> tuple[Document, Mapping[str, bytes]]:
    """A document that goes back to a commit, with the manifests that the commit had."""
    return document, repository.manifests(document.stack, document.environment, at)
