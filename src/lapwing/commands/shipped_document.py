"""The document that CI commits for a machine, with what only the machine knows left to it."""

from __future__ import annotations

from collections.abc import Mapping

from lapwing.desired.repository import DesiredRepository
from lapwing.plan import make, unbound
from lapwing.plan.make import Built
from lapwing.plan.model import Deployment
from lapwing.stack.load import LoadedStack
from lapwing.targets import bundles, sources
from lapwing.targets.planned import PlannedChange


def plan_document(
    loaded: LoadedStack, repository: DesiredRepository, built: Mapping[str, Built], actor: str
) -> PlannedChange:
    """Plan the commit of releases on top of what a repository has."""
    key = (loaded.stack.stack, loaded.environment)
    expected, current = repository.newest(*key), repository.latest_valid(*key)
    document = make.make(
        loaded,
        releases=built,
        resources=unbound.resources(loaded),
        secrets=unbound.secrets(loaded),
        deployment=Deployment(actor=actor, revision=sources.revision_of(built)),
        current=current,
    )
    return PlannedChange(bundles.keep_revisions(document, current), expected, current)
