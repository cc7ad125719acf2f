"""How the jobs of a workflow log in at the registry, and the settings of the forge for it.

Jobs of GitHub have an identity that the Artifact Registry of `lapwing infra` accepts, and a token
for ghcr.io. Jobs of Gitea have no OpenID Connect token, and their token can push to no registry.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from lapwing.design.pipeline import GOOGLE_PROVIDER, Forge, RegistryLogin, Setting
from lapwing.stack.cloud import cloud_registry, shared_project_of
from lapwing.stack.image import parse
from lapwing.stack.model import Stack
from lapwing.stack.project import Released
from lapwing.system.registry_variable import is_google, registry_variable

RELEASE_TOKEN = "LAPWING_REGISTRY_TOKEN"  # noqa: S105 - the name of a variable


def ship_login(
    stack: Stack, forge: Forge, registry: str, branches: Sequence[str]
) -> tuple[RegistryLogin | None, list[Setting]]:
    """Return how the job that ships logs in at a registry, and the settings for it."""
    host = _host(registry)
    variable = registry_variable(host)
    if registry == cloud_registry(stack):
        if forge == "github":
            return _google_identity(stack, variable, branches)
        return None, [Setting(f"{variable}_TOKEN", _ci_key(stack))]
    if forge == "github" and host == "ghcr.io":
        return RegistryLogin(variable), []
    token = Setting(f"{variable}_TOKEN", _token(registry))
    return None, [token] if is_google(host) else [
        Setting(f"{variable}_USER", f"the user at {host}."),
        token,
    ]


def release_login(
    released: Released, forge: Forge, branches: Sequence[str]
) -> tuple[RegistryLogin | None, list[Setting]]:
    """Return how the job that releases logs in, and the settings for it.

    By default it has the token of the forge, with which a job of GitHub can push to ghcr.io.
    """
    registry = released.delivery.registry
    if registry is None:
        mirrors = any(project.delivery.mirror for project in released.projects())
        needs_token = forge == "gitea" and mirrors
        meaning = "a token that may write packages, which the token of a job may not."
        return None, [Setting(RELEASE_TOKEN, meaning)] if needs_token else []
    stack = released.stacks[0].stack if released.stacks else None
    if stack is not None and registry == cloud_registry(stack):
        if forge == "github":
            return _google_identity(stack, registry_variable(_host(registry)), branches)
        return None, [Setting(RELEASE_TOKEN, _ci_key(stack))]
    if forge == "github" and registry.startswith("ghcr.io/"):
        return None, []
    return None, [Setting(RELEASE_TOKEN, _token(registry))]


def _google_identity(
    stack: Stack, variable: str, branches: Sequence[str]
) -> tuple[RegistryLogin, list[Setting]]:
    account = _account(stack)
    subjects = json.dumps([f"repo:OWNER/REPOSITORY:ref:refs/heads/{name}" for name in branches])
    meaning = (
        "the output `ci_provider` of the Terraform root `shared`. Apply it with ci_subjects "
        f"= {subjects}: only jobs of the release branches can then act as {account}, which may "
        "push images."
    )
    return RegistryLogin(variable, account), [Setting(GOOGLE_PROVIDER, meaning, is_secret=False)]


def _account(stack: Stack) -> str:
    return f"ci@{shared_project_of(stack)}.iam.gserviceaccount.com"


def _ci_key(stack: Stack) -> str:
    return (
        "a key of the service account of the Terraform root `shared`, which may push images: "
        f"`gcloud iam service-accounts keys create FILE --iam-account {_account(stack)}`. Gitea's "
        "jobs have no identity that Google accepts. Replace the key regularly."
    )


def _token(registry: str) -> str:
    if is_google(_host(registry)):
        return f"a key (JSON) of a service account that may push to {registry}."
    return f"a password or token that may push to {registry}."


def _host(registry: str) -> str:
    return parse(f"{registry}/any", lower=True).api
