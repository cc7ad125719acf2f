"""The document that CI commits for a machine: new releases, bound resources, secret versions.

Resources and versions of secrets are those of the last commit: CI has neither the database servers
nor the values.
"""

from __future__ import annotations

from collections.abc import Mapping

from lapwing.build.builder import BuildResult
from lapwing.desired.repository import DesiredRepository
from lapwing.errors import SecretError, UsageError
from lapwing.plan import make
from lapwing.plan.model import Deployment, Document, Resource
from lapwing.stack.load import LoadedStack
from lapwing.targets import bundles, sources
from lapwing.targets.planned import PlannedChange


def plan_document(
    loaded: LoadedStack,
    repository: DesiredRepository,
    built: Mapping[str, BuildResult],
    actor: str,
) -> PlannedChange:
    """Plan the commit of releases on top of what a repository has.

    Raises UsageError or SecretError for what was never deployed on the machine.
    """
    key = (loaded.stack.stack, loaded.environment)
    expected, current = repository.newest(*key), repository.latest_valid(*key)
    document = make.make(
        loaded,
        releases=sources.releases_of(built),
        resources=bound_resources(loaded, current),
        secrets=secret_versions(loaded, current, list(built)),
        deployment=Deployment(actor=actor, revision=sources.revision_of(built)),
        current=current,
    )
    return PlannedChange(bundles.keep_revisions(document, current), expected, current)


def bound_resources(loaded: LoadedStack, current: Document | None) -> dict[str, Resource]:
    """Return the resources as the machine bound them: CI cannot know what is installed there."""
    bound = current.resources if current else {}
    for name in loaded.stack.resources:
        if name not in bound:
            raise UsageError(
                f"Resource {name} has no server in {loaded.environment!r} yet.",
                hint=f"Run `lapwing deploy -e {loaded.environment}` once on the machine: it "
                "selects a container or an installed server for each database.",
            )
    return {name: bound[name] for name in loaded.stack.resources}


def secret_versions(
    loaded: LoadedStack, current: Document | None, names: list[str]
) -> dict[str, str]:
    """Return the versions of secrets on the machine: CI never sees their values."""
    known: dict[str, str] = {}
    if current and current.edge and (certificate := current.edge.certificate):
        known[certificate.key.secret] = certificate.key.version
    known |= {users.secret: users.version for users in (current.basic_auth if current else ())}
    for service in (current.services if current else {}).values():
        known |= service.secrets
    wanted = [(name, s) for name in names for s in loaded.stack.services[name].secret_names]
    if (tls := loaded.settings.tls) is not None and tls.key is not None:
        wanted.append(("`tls`", tls.key))
    wanted += [("`access`", name) for name in loaded.basic_auth]
    for name, secret in wanted:
        if secret not in known:
            raise SecretError(
                f"Secret {secret} of {name} is not set in {loaded.environment!r}.",
                hint=f"On the machine: `lapwing secret set {secret} -e {loaded.environment}`, "
                f"then `lapwing deploy -e {loaded.environment}` once.",
            )
    return known
