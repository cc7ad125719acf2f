"""Deploying to a cluster: from a stack file and images to one commit of manifests.

    load -> target (images) -> document and manifests -> commit, and push where Argo CD reads

CI and people only commit. What applies the commit is Argo CD, or `lapwing` itself for a cluster
without it; a rollback is the commit of what an earlier one had.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
from lapwing.stack.resource_reference import variable_of


@dataclass(frozen=True, slots=True)
class Prepared:
    """A deployment that is ready to commit: its document and its files (by their path below the
    stack's folder). `expected` is the commit it is based on, `before` the document there."""

    document: Document
    files: dict[str, bytes]
    expected: str | None
    before: Document | None

    @property
    def changes(self) -> list[Change]:
        """What it changes."""
        return diff.diff(self.document, self.before)


def prepare(
    repository: DesiredRepository,
    loaded: LoadedStack,
    services: tuple[str, ...],
    images: Mapping[str, str],
    deployment: Deployment,
    versions: Mapping[str, str] | None = None,
) -> Prepared:
    """What to commit on top of what the repository has. A service that is not asked for, or that
    got no image and has none in the stack file, keeps the one that it has. `versions` are those of
    the values that people gave for secrets, by variable, where Lapwing brings them to the cluster.
    Raises UsageError."""
    repository.ensure()
    where = (loaded.stack.stack, loaded.environment)
    expected, before = repository.newest(*where), repository.understood(*where)
    kept = {n: s.image for n, s in before.services.items() if s.image} if before else {}
    chosen = dict(images)
    for name, service in loaded.stack.services.items():
        is_asked = not services or name in services
        reference = images.get(name) or (service.image if is_asked else None) or kept.get(name)
        if reference is not None:
            chosen[name] = reference
    target = render.target(loaded, chosen, deployment.revision, hold=deployment.hold)
    document = _document(target, deployment, versions or {})
    return Prepared(document, _files(target), expected, before)


def address_of(loaded: LoadedStack, given: str | None = None) -> str:
    """The git URL of the desired state of an environment on a cluster: the one that is given, else
    the stack file's. Raises UsageError if there is neither."""
    url = given or loaded.settings.repository
    if url is None:
        raise no_repository(loaded.environment)
    return url


def no_repository(environment: str) -> UsageError:
    """The error for an environment of Argo CD that names no desired-state repository."""
    return UsageError(
        f"`{environment}` says nothing of a desired-state repository.",
        hint="Add `repository:` with its git URL, which Argo CD reads; `lapwing ship` also "
        "takes it with --desired. `lapwing render` writes the manifests without one.",
    )


def refuse_offline(loaded: LoadedStack, prepared: Prepared) -> None:
    """An offline migration wants every replica stopped, and a backup: nothing that Argo CD does by
    itself. Raises UsageError where a new image could bring one."""
    for name, old, new in offline_changes(loaded, prepared.before, prepared.document):
        raise UsageError(
            f"{name} {old.release} -> {new.release} may migrate its database, and its "
            "migrations are offline: no replica may be connected meanwhile.",
            hint="Back the database up, scale the service to zero, then run `lapwing deploy` "
            "with --allow-downtime. Nothing was committed.",
        )


def offline_changes(
    loaded: LoadedStack, before: Document | None, after: Document
) -> Iterator[tuple[str, Service, Service]]:
    """The services with an offline migration that get another image: the name, and what is before
    and after."""
    for name, service in loaded.stack.services.items():
        if service.migrate is None or service.migrate.mode != "offline":
            continue
        old = before.services.get(name) if before else None
        new = after.services.get(name)
        if old is not None and new is not None and old.image != new.image:
            yield name, old, new


def refuse_part(services: tuple[str, ...]) -> None:
    """Raises UsageError for a rollback of some services only."""
    if services:
        raise UsageError(
            "On a cluster a rollback is of the whole environment: its manifests belong together.",
            hint="`lapwing deploy SERVICE --image SERVICE=REF` brings one service to an image.",
        )


def _files(target: Target) -> dict[str, bytes]:
    environment = target.loaded.environment
    texts = {f"{environment}/manifests/{n}": t for n, t in render.files(target).items()}
    texts |= {f"argocd/{n}": t for n, t in render.argo_files(target).items()}
    if target.environment.repository is not None and target.is_argo:
        texts["root.yaml"] = render.root_file(target)
    return {name: text.encode() for name, text in texts.items()}


def _document(target: Target, deployment: Deployment, versions: Mapping[str, str]) -> Document:
    loaded = target.loaded
    return Document(
        stack=loaded.stack.stack,
        environment=loaded.environment,
        target="kubernetes",
        domains=domains(loaded),
        deployment=deployment,
        services={n: _service(target, n, versions) for n in target.services},
        resources={
            n: Resource(
                kind=r.kind,
                provider="cluster" if n in target.own_resources else "url",
                variable=r.variable or variable_of(n),
            )
            for n, r in loaded.stack.resources.items()
        },
    )


def _service(target: Target, name: str, versions: Mapping[str, str]) -> Service:
    service, image = target.services[name], target.images[name]
    urls = [target.variable(r) for r in service.needs if r in target.managed_resources]
    return Service(
        kind=service.kind,
        release=release_of(image),
        revision=target.revision,
        image=image,
        route=service.route,
        command=service.command,
        env=dict(service.env),
        secrets={n: versions[n] for n in (*service.secret_names, *urls) if n in versions},
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


def commit(repository: DesiredRepository, prepared: Prepared) -> str | None:
    """Commit a deployment; returns the commit. None if it would change nothing: not the document,
    and not a byte of the manifests. Raises ConflictError if another one came first."""
    if prepared.expected is not None and not prepared.changes:
        document = prepared.document
        there = repository.manifests(document.stack, document.environment, prepared.expected)
        own = {
            name: data
            for name, data in prepared.files.items()
            if name.startswith(f"{document.environment}/")
        }
        if there == own:
            return None
    return repository.commit(prepared.document, expected=prepared.expected, files=prepared.files)
