"""Plan a deployment to a cluster that Lapwing applies itself.

    Secrets -> images (built, not pushed) -> manifests -> what the cluster has -> guards

Everything that can be refused is refused here, before a commit or a change.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from lapwing.desired.history import history
from lapwing.desired.repository import DesiredRepository
from lapwing.desired.secrets import SecretStore
from lapwing.errors import UsageError
from lapwing.kubernetes import pods, secrets
from lapwing.kubernetes.local_cluster import LOCAL_REGISTRY
from lapwing.kubernetes.objects import Object
from lapwing.kubernetes.secrets import GeneratedSecret, SecretPlan
from lapwing.kubernetes.upgrade.backup import BackupCommands
from lapwing.kubernetes.upgrade.guard import UpgradeOptions
from lapwing.plan.model import Deployment
from lapwing.plan.names import EDGE_CERTIFICATE
from lapwing.render.kubernetes import render
from lapwing.render.kubernetes import secrets as rendered_secrets
from lapwing.render.kubernetes.objects import ClusterEnvironment
from lapwing.settings import Settings
from lapwing.stack.load import LoadedStack
from lapwing.targets import cluster_images, guards, manifests
from lapwing.targets.applier import Applier
from lapwing.targets.base import DeployRequest
from lapwing.targets.cluster_images import BuiltImages, Destination
from lapwing.targets.guards import CheckedChange, Rules
from lapwing.targets.manifests import Images

SEARCHED_DEPLOYMENTS = 50
"""How many deployments are searched for an image that a service had."""
NOT_BUILT = f"{LOCAL_REGISTRY}/not-built@sha256:{'0' * 64}"
"""The image of a service until it is built."""


Build = Callable[[list[str], Destination], BuiltImages]
"""Builds the images of services for a destination."""


@dataclass(frozen=True, slots=True)
class DeploymentPlan:
    """A deployment that every guard has approved, what it generates, and what it has built."""

    checked: CheckedChange
    generated: list[GeneratedSecret]
    built: BuiltImages


def plan(
    applier: Applier,
    loaded: LoadedStack,
    request: DeployRequest,
    deployment: Deployment,
    build: Build,
) -> DeploymentPlan:
    """Plan a deployment. Images are built when no secret is missing.

    Raises UsageError, SecretError, KindMissingError, BuildError or an error for unmanaged objects.
    """
    images = _images(applier, loaded, request)
    destination, names = _to_build(applier, loaded, request)
    repository, services = applier.repository, request.services
    expected = images | dict.fromkeys(names, NOT_BUILT)
    first = manifests.plan(repository, loaded, services, Images(expected), deployment)
    expected |= {n: s.image for n, s in first.document.services.items() if s.image}
    rendered = render.prepare(loaded, expected, deployment.revision, hold=request.hold)
    rules = Rules(
        can_hold=rendered.has_rollouts,
        allow_downtime=request.allow_downtime,
        tests_migration=True,
        running=partial(pods.running_images, applier.api, applier.scope),
    )
    if not names:
        guards.check(repository, first, request.verb, rules)
    _report_ignored_settings(applier, rendered)
    choice = _choose_secrets(applier, rendered, first.files or {})
    secrets.check_missing(choice, applier.scope.environment)
    built = build(names, destination)
    expected |= built.references
    wanted = Images(expected, built.revisions, applier.has_pull_secret(expected.values()))
    change = manifests.plan(repository, loaded, services, wanted, deployment, choice.versions)
    applier.examine(change)
    checked = guards.check(repository, change, request.verb, rules)
    return DeploymentPlan(checked, choice.generated, built)


def _to_build(
    applier: Applier, loaded: LoadedStack, request: DeployRequest
) -> tuple[Destination, list[str]]:
    """Return the services to build, and where their images go.

    Without a place for them, they keep their present image.
    """
    names = cluster_images.to_build(loaded, request.services, request.images)
    destination = cluster_images.destination_on(loaded, applier.api) if names else Destination()
    if destination is not None:
        return destination, names
    applier.reporter.say(
        f"{', '.join(names)}: not built, because no `registry` is set to push images to."
    )
    return Destination(), []


def _images(applier: Applier, loaded: LoadedStack, request: DeployRequest) -> dict[str, str]:
    """Return the requested images, else those of the last deployment that ran.

    `down` does not forget them.
    """
    images = dict(request.images)
    missing = [n for n, s in loaded.stack.services.items() if not s.image and n not in images]
    if not missing:
        return images
    where = (applier.scope.stack, applier.scope.environment)
    for entry in history(applier.repository, *where, SEARCHED_DEPLOYMENTS):
        document = applier.repository.read(*where, entry.commit)
        if document is not None and document.services:
            earlier = {n: s.image for n, s in document.services.items() if s.image}
            return {**{n: earlier[n] for n in missing if n in earlier}, **images}
    return images


def _report_ignored_settings(applier: Applier, rendered: ClusterEnvironment) -> None:
    """Report settings that have no effect without Argo Rollouts."""
    if rendered.has_rollouts:
        return
    names = [n for n, s in rendered.services.items() if s.rollout.smoke or s.rollout.hold]
    if names:
        applier.reporter.say(
            f"{', '.join(names)}: smoke tests and `hold` need Argo Rollouts and `rollouts: true`; "
            "without them a Deployment is updated pod by pod, as its health allows."
        )


def find_unset_secrets(loaded: LoadedStack, settings: Settings) -> list[str]:
    """Return secrets that have no value here and no deployment had, without the cluster.

    Only the cluster knows whether it has them nevertheless. With Argo CD, all values are in the
    secret manager of the cloud, so none is returned.
    """
    where = (loaded.stack.stack, loaded.environment)
    rendered = ClusterEnvironment(loaded, {})
    if rendered.is_argo:
        return []
    known = {*SecretStore(settings.secrets).current(*where)}
    if settings.desired.is_dir():
        before = DesiredRepository(settings.desired).latest_valid(*where)
        known |= {name for s in (before.services if before else {}).values() for name in s.secrets}
    return [
        str(secret.variable)
        for secret in rendered_secrets.required(rendered)
        if None in secret.keys.values() and secret.variable not in known
    ]


def _choose_secrets(
    applier: Applier, rendered: ClusterEnvironment, files: Mapping[str, bytes]
) -> SecretPlan:
    """Choose which Secrets to set, to generate, and to leave; `files` refer to them."""
    scope = applier.scope
    required = rendered_secrets.required(rendered)
    given = applier.store.current(scope.stack, scope.environment)
    certificate = secrets.reference(scope, EDGE_CERTIFICATE).name
    gateway = rendered.settings.gateway
    is_self_signed = any(certificate.encode() in data for data in files.values())
    if gateway is not None and gateway.issuer:
        is_self_signed = False  # cert-manager issues it.
    live: dict[str, Object] = {}
    parts = [secret.part for secret in required]
    for part in (*parts, *([EDGE_CERTIFICATE] if is_self_signed else ())):
        reference = secrets.reference(scope, part)
        found = applier.api.get(reference)
        if found is not None:
            live[reference.name] = found
    choice = secrets.plan_secrets(scope, required, given, live)
    if is_self_signed and certificate not in live:
        host = rendered.settings.domain or "localhost"
        choice.generated.append(GeneratedSecret(certificate, {}, host=host))
    return choice


def upgrade_options(request: DeployRequest, actor: str, settings: Settings) -> UpgradeOptions:
    """Return the options of an upgrade with downtime.

    Raises UsageError for a backup without a restore.
    """
    commands = None
    if request.backup or request.restore:
        if not (request.backup and request.restore):
            raise UsageError(
                "--backup and --restore must be given together.",
                hint="Name the command that restores the backup as well.",
            )
        commands = BackupCommands(request.backup, request.restore, settings.environ)
    holder = f"{actor} on {socket.gethostname()}"
    return UpgradeOptions(allow_downtime=request.allow_downtime, commands=commands, holder=holder)
