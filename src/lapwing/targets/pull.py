"""One pull of an environment, in a process that the agent starts.

    fetch -> fast-forward? -> signatures -> document -> resources, secrets, releases -> commit

The commit is one to the desired state of this machine, which the agent follows: so a rollout, its
revert and its history are those of every other deployment, and several remote repositories can be
pulled. Until that commit nothing that runs is changed, and a pull that is interrupted anywhere is
done again. A document that was committed once is not committed again: what failed stays reverted
until the remote has another document, or a secret has another value.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import sys
from collections.abc import Mapping
from functools import partial

from msgspec import UNSET
from msgspec.structs import replace

from lapwing.agent import engine
from lapwing.agent.resources.bind import Host, bind
from lapwing.build import pulled
from lapwing.build.release import ReleaseStore
from lapwing.desired import signatures
from lapwing.desired.remote import Remote
from lapwing.desired.repository import DesiredRepository
from lapwing.desired.secrets import SecretStore
from lapwing.errors import DesiredStateError, LapwingError, SecretError, UsageError
from lapwing.observed import pull as observed
from lapwing.observed.pull import Source, State
from lapwing.plan import unbound
from lapwing.plan.model import Document, Resource, encode
from lapwing.settings import Settings, read
from lapwing.system import locks, x509
from lapwing.targets import containers, guards
from lapwing.targets.base import EnvironmentRef
from lapwing.targets.planned import PlannedChange

log = logging.getLogger(__name__)


def pull(settings: Settings, ref: EnvironmentRef, source: Source) -> None:
    """Pull an environment once, and record the outcome. Raises LapwingError or OSError."""
    where = (ref.stack, ref.environment)
    state = observed.state(settings, *where)
    variables = SecretStore(settings.secrets).variables(*where)
    settings = dataclasses.replace(settings, environ={**settings.environ, **variables})
    remote = Remote(source.url, settings.remotes, settings.environ)
    remote.fetch()
    head = _check_head(remote, source, state, ref)
    document = remote.repository.read(*where, head)
    if document is None or document.target != "machine":
        raise DesiredStateError(
            f"{remote.redacted_url} has no document for {ref}.",
            hint=f"Run `lapwing ship -e {ref.environment}` in CI to commit one.",
        )
    state.accepted = head
    repository = DesiredRepository(settings.desired)
    repository.ensure()
    expected, current = repository.newest(*where), repository.latest_valid(*where)
    document = _complete(document, settings, current)
    digest = hashlib.sha256(encode(document)).hexdigest()
    if digest != state.document:
        document = _pull_releases(document, settings)
        plan = PlannedChange(document, expected, current)
        guards.check_restore(settings, ref)
        if plan.changes:
            guards.commit(repository, guards.check(repository, plan, "deploy"))
    state.document, state.problem = digest, None
    observed.set_state(settings, *where, state)


def _check_head(remote: Remote, source: Source, state: State, ref: EnvironmentRef) -> str:
    """Return the newest commit, if its history and signatures are accepted."""
    repository, head = remote.repository, remote.repository.head()
    environment = ref.environment
    if head is None:
        raise DesiredStateError(
            f"{remote.redacted_url} has no branch `main`.",
            hint=f"Run `lapwing ship -e {environment}` in CI to create it. Nothing was changed.",
        )
    if state.accepted and not repository.is_descendant(head, state.accepted):
        raise DesiredStateError(
            f"The history of {remote.redacted_url} was rewritten: {head[:12]} is not based on "
            f"{state.accepted[:12]}, the last commit that was accepted.",
            hint=f"Nothing was changed. Restore {state.accepted[:12]} with `git push --force`, or "
            f"run `lapwing agent pull -e {environment}` on the machine to accept the new history.",
        )
    if source.signers is not None and head != state.accepted:
        written = repository.newest(ref.stack, environment)
        signatures.check(repository, head, state.accepted, written, source.signers)
    return head


def _complete(document: Document, settings: Settings, current: Document | None) -> Document:
    """Return a document with the resources and secrets of this machine. Raises LapwingError."""
    where = (document.stack, document.environment)
    store = SecretStore(settings.secrets)
    bound = _bind(document, settings, current)
    bound = containers.pin_images(settings, bound, log.info)
    document = unbound.complete(document, _versions(document, store), bound)
    if document.edge and (certificate := document.edge.certificate):
        key = store.get(*where, certificate.key.secret, certificate.key.version)
        if fault := x509.find_fault(certificate.chain, key, document.public_hosts):
            name = certificate.key.secret
            hint = f"Set its key with `lapwing secret set {name} -e {document.environment}`."
            raise UsageError(f"The certificate of `tls` cannot be used: {fault}.", hint=hint)
    kept = current.lasting_maintenance if current is not None else UNSET
    deployment = replace(document.deployment, restores=None)
    return replace(document, maintenance=document.maintenance or kept, deployment=deployment)


def _bind(
    document: Document, settings: Settings, current: Document | None
) -> Mapping[str, Resource]:
    store = SecretStore(settings.secrets)
    keep = partial(store.set, document.stack, document.environment)
    folder = settings.data / document.stack / document.environment
    return {
        name: bind(
            name,
            wanted,
            embedded=wanted.provider == "embedded",
            url=settings.resource_url(name),
            current=current.resources.get(name) if current else None,
            keep_url=partial(keep, f"resource.{name}"),
            host=Host(folder / name, partial(engine.is_running, settings.environ)),
        )
        for name, wanted in document.resources.items()
    }


def _versions(document: Document, store: SecretStore) -> dict[str, str]:
    """Return the version of each secret, and generate those that the stack file allows to."""
    where = (document.stack, document.environment)
    known, wanted = store.current(*where), unbound.secrets_of(document)
    missing = [
        name
        for name, version in wanted.items()
        if name not in known and not unbound.GENERATE.fullmatch(version)
    ]
    if missing:
        raise SecretError(
            f"Secrets are not set: {', '.join(missing)}.",
            hint=f"Run `lapwing secret set {missing[0]} -e {document.environment}` on the machine. "
            "The deployment continues after that.",
        )
    for name, version in wanted.items():
        if name not in known and (found := unbound.GENERATE.fullmatch(version)):
            known[name] = store.generate(*where, name, int(found[1]))
    return known


def _pull_releases(document: Document, settings: Settings) -> Document:
    """Pull the releases of a document that this machine lacks. Raises LapwingError."""
    store, services = ReleaseStore(settings.releases), {}
    images = containers.Pulled(settings, log.info)
    for name, service in document.services.items():
        services[name] = service
        if service.container is not None:
            services[name] = containers.pull_service(name, service, settings, images)
        elif service.artifact:
            target = store.folder(document.stack, name, service.release)
            pulled.pull(service.artifact, target, service.revision, settings, log.info)
        else:
            store.get(document.stack, name, service.release)
    return replace(document, services=services)


def main(stack: str, environment: str) -> int:
    """Pull an environment; record and log why nothing was changed. Returns the exit status."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    settings, ref = read(), EnvironmentRef(stack, environment)
    with locks.hold(settings.pull / stack / f"{environment}.lock"):
        source = observed.source(settings, stack, environment)
        if source is None:
            return 0
        try:
            pull(settings, ref, source)
        except LapwingError as error:
            problem = f"{error.message} {error.hint or ''}".strip()
            log.warning("%s %s", problem, error.detail or "")
        except OSError as error:
            problem = f"The pull of {ref} failed: {error}."
            log.warning("%s", problem)
        else:
            return 0
        state = observed.state(settings, stack, environment)
        state.problem = problem
        observed.set_state(settings, stack, environment, state)
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
