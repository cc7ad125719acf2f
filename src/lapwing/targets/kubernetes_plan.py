"""Plan a deployment to a cluster that Lapwing applies itself.

    images -> manifests -> guards -> Secrets -> what the cluster has -> CheckedChange

Everything that can be refused is refused here, before a commit or a change.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from lapwing.desired.history import history
from lapwing.kubernetes import pods, secrets
from lapwing.kubernetes.objects import Object
from lapwing.kubernetes.secrets import GeneratedSecret, SecretPlan
from lapwing.plan.model import Deployment
from lapwing.plan.names import EDGE_CERTIFICATE
from lapwing.render.kubernetes import render
from lapwing.render.kubernetes import secrets as rendered_secrets
from lapwing.render.kubernetes.objects import ClusterEnvironment
from lapwing.stack.load import LoadedStack
from lapwing.targets import guards, manifests
from lapwing.targets.applier import Applier
from lapwing.targets.base import DeployRequest
from lapwing.targets.guards import CheckedChange, Rules

SEARCHED_DEPLOYMENTS = 50
"""How many deployments are searched for an image that a service had."""


def plan(
    applier: Applier, loaded: LoadedStack, request: DeployRequest, deployment: Deployment
) -> tuple[CheckedChange, list[GeneratedSecret]]:
    """Plan a deployment; also returns the Secrets to generate.

    Raises UsageError, SecretError, KindMissingError or an error for unmanaged objects.
    """
    images = _images(applier, loaded, request)
    repository, services = applier.repository, request.services
    first = manifests.plan(repository, loaded, services, images, deployment)
    images |= {n: s.image for n, s in first.document.services.items() if s.image}
    rendered = render.prepare(loaded, images, deployment.revision, hold=request.hold)
    rules = Rules(
        can_hold=rendered.has_rollouts,
        allow_downtime=request.allow_downtime,
        tests_migration=True,
        running=partial(pods.running_images, applier.api, applier.scope),
    )
    guards.check(repository, first, request.verb, rules)
    _report_ignored_settings(applier, rendered)
    choice = _choose_secrets(applier, rendered, first.files or {})
    secrets.check_missing(choice, applier.scope.environment)
    change = manifests.plan(repository, loaded, services, images, deployment, choice.versions)
    applier.examine(change)
    return guards.check(repository, change, request.verb, rules), choice.generated


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
