"""Deploying to a cluster: from a stack file and images to one commit of manifests.

    load -> target (images) -> document and manifests -> commit, and push where Argo CD reads

CI and people only commit. What applies the commit is Argo CD, or `lapwing` itself for a cluster
without it; a rollback is the commit of what an earlier one had.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lapwing.desired.repository import DesiredRepository
from lapwing.plan import diff
from lapwing.plan.diff import Change
from lapwing.plan.make import domains
from lapwing.plan.model import Deployment, Document, Resource, Service
from lapwing.render.kubernetes import render
from lapwing.render.kubernetes.target import Target
from lapwing.stack.rules import variable_of


@dataclass(frozen=True, slots=True)
class Rendered:
    """A deployment that is ready to commit: its document and its files (by their path below the
    stack's folder)."""

    document: Document
    files: dict[str, bytes]


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
