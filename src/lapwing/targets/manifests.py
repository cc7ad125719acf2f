"""Plan a deployment to a cluster: from a stack file and images to a document and its manifests.

    load -> render (images) -> document and manifests

Argo CD applies the commit, or `lapwing` itself on a cluster without Argo CD.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lapwing.desired.repository import DesiredRepository
from lapwing.errors import UsageError, check_name
from lapwing.plan.model import Deployment, Document, Resource, Service
from lapwing.plan.names import release_of, split_digest
from lapwing.targets.planned import PlannedChange

if TYPE_CHECKING:
    from lapwing.render.kubernetes.objects import ClusterEnvironment
    from lapwing.stack.load import LoadedStack


@dataclass(frozen=True, slots=True)
class Images:
    """The images to deploy, by service, and the revisions of the sources of those that were built.

    `has_pull_secret` is whether the cluster gets a Secret to pull them with.
    """

    references: Mapping[str, str]
    revisions: Mapping[str, str] = field(default_factory=dict)
    has_pull_secret: bool = False


def plan(
    repository: DesiredRepository,
    loaded: LoadedStack,
    services: tuple[str, ...],
    images: Images,
    deployment: Deployment,
    versions: Mapping[str, str] | None = None,
) -> PlannedChange:
    """Plan the commit of a deployment on top of what the repository has.

    A service that is not in `services`, or that has no image, keeps its present one. `versions`
    are those of secret values, by variable, where Lapwing applies them. Raises UsageError.
    """
    from lapwing.render.kubernetes import render

    for name in services:
        check_name("service", name, loaded.stack.services, loaded.path)
    repository.ensure()
    where = (loaded.stack.stack, loaded.environment)
    expected, before = repository.newest(*where), repository.latest_valid(*where)
    present = {n: s.image for n, s in before.services.items() if s.image} if before else {}
    chosen = dict(images.references)
    for name, service in loaded.stack.services.items():
        is_deployed = not services or name in services
        given = images.references.get(name)
        image = given or (service.image if is_deployed else None) or present.get(name)
        if image is not None:
            chosen[name] = image
    cluster = render.prepare(
        loaded,
        chosen,
        deployment.revision,
        hold=deployment.hold,
        revisions={**images.revisions, **_kept_revisions(chosen, before)},
        has_pull_secret=images.has_pull_secret,
    )
    document = _document(cluster, deployment, versions or {})
    return PlannedChange(document, expected, before, _files(cluster))


def _kept_revisions(images: Mapping[str, str], before: Document | None) -> dict[str, str]:
    """Return the revision of each service whose image stays: a commit elsewhere changes nothing.

    Only a digest shows that an image stays.
    """
    present = before.services if before else {}
    return {
        name: service.revision
        for name, service in present.items()
        if service.image is not None
        and split_digest(service.image)[1]
        and service.image == images.get(name)
    }


def is_unchanged(repository: DesiredRepository, plan: PlannedChange) -> bool:
    """Return whether neither the document nor a byte of the manifests would change."""
    if plan.expected is None or plan.changes:
        return False
    stack, environment = plan.document.stack, plan.document.environment
    own = {n: d for n, d in (plan.files or {}).items() if n.startswith(f"{environment}/")}
    return repository.manifests(stack, environment, plan.expected) == own


def desired_url(loaded: LoadedStack, given: str | None = None) -> str:
    """Return the git URL of the desired state: the given one, else the stack file's.

    Raises UsageError if there is neither.
    """
    url = given or loaded.settings.repository
    if url is None:
        raise no_repository(loaded.environment)
    return url


def no_repository(environment: str) -> UsageError:
    """Return the error for an environment of Argo CD without a desired-state repository."""
    return UsageError(
        f"`repository` is not set for `{environment}`.",
        hint="Add `repository:` with the git URL that Argo CD reads; "
        f"`lapwing ship -e {environment}` also accepts --desired. "
        f"`lapwing render -e {environment}` writes the manifests without one.",
    )


def refuse_services(services: tuple[str, ...], environment: str) -> None:
    """Refuse the rollback of single services. Raises UsageError."""
    if services:
        raise UsageError(
            "On a cluster, a rollback restores the whole environment: its manifests belong "
            "together.",
            hint=f"Run `lapwing deploy SERVICE -e {environment} --image SERVICE=REF` to change one "
            "service.",
        )


def _files(cluster: ClusterEnvironment) -> dict[str, bytes]:
    from lapwing.render.kubernetes import render

    environment = cluster.loaded.environment
    texts = {f"{environment}/manifests/{n}": t for n, t in render.files(cluster).items()}
    texts |= {f"argocd/{n}": t for n, t in render.argo_files(cluster).items()}
    if cluster.settings.repository is not None and cluster.is_argo:
        texts["root.yaml"] = render.root_file(cluster)
    return {name: text.encode() for name, text in texts.items()}


def _document(
    cluster: ClusterEnvironment, deployment: Deployment, versions: Mapping[str, str]
) -> Document:
    from lapwing.plan.make import domains
    from lapwing.stack.resource_reference import variable_of

    loaded = cluster.loaded
    return Document(
        stack=loaded.stack.stack,
        environment=loaded.environment,
        target="kubernetes",
        domains=domains(loaded),
        deployment=deployment,
        services={n: _service(cluster, n, versions) for n in cluster.services},
        resources={
            n: Resource(
                kind=r.kind,
                provider="cluster" if n in cluster.own_resources else "url",
                variable=r.variable or variable_of(n),
            )
            for n, r in loaded.stack.resources.items()
        },
    )


def _service(cluster: ClusterEnvironment, name: str, versions: Mapping[str, str]) -> Service:
    service, image = cluster.services[name], cluster.images[name]
    urls = [cluster.variable(r) for r in service.needs if r in cluster.managed_resources]
    return Service(
        kind=service.kind,
        release=release_of(image),
        revision=cluster.revisions.get(name, cluster.revision),
        image=image,
        route=service.route,
        command=service.command,
        env=dict(service.env),
        secrets={n: versions[n] for n in (*service.secret_names, *urls) if n in versions},
        replicas=service.replicas.min,
    )
