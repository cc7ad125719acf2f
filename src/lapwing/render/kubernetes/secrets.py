"""Secrets: which the objects refer to, and where their values come from. Pure.

No value is ever in a manifest. Each secret of a service is a Secret of its own with the key
`value`, so that a service sees what it lists and no more. A database in the cluster has one with
its password and its root password. Where they come from:

    argo      an ExternalSecret per secret: from the cloud's secret manager under the name
              `<stack>-<environment>-<NAME>`, or, for values that are made up, from a generator that
              runs once (`CreatedOnce`), so that neither a sync nor an upgrade changes them
    direct    `lapwing` creates them through the API, from `lapwing secret` or made up once
    chart     a Job makes up what is not there (see render/helm)

Source: External Secrets Operator, API reference (external-secrets.io/v1, generators Password).
"""

from __future__ import annotations

from collections.abc import Iterator

from lapwing.plan.names import RequiredSecret, secret_part
from lapwing.render.kubernetes.target import Manifest, Target, meta, name

FILE = "secrets.yaml"
WAVE = 1
STORE = "google-secret-manager"
PASSWORD_LENGTH = 32
"""Characters of a password that is made up: letters and digits, so that it needs no escape in a
URL."""


def required(target: Target) -> list[RequiredSecret]:
    """Every Secret that the environment's pods refer to, each once, by name."""
    found: dict[str, RequiredSecret] = {}
    for service in target.services.values():
        for secret in service.secrets:
            part = secret_part(secret.name)
            found[part] = RequiredSecret(part, {"value": secret.generate}, secret.name)
    for resource in target.managed_resources:
        variable = target.variable(resource)
        part = secret_part(variable)
        found[part] = RequiredSecret(part, {"value": None}, variable)
    for resource in target.own_resources:
        keys: dict[str, int | None] = {"password": PASSWORD_LENGTH}
        if target.own_resources[resource].kind == "mysql":
            keys["root-password"] = PASSWORD_LENGTH
        found[resource] = RequiredSecret(resource, keys)
    return [found[part] for part in sorted(found)]


def external(target: Target) -> Iterator[Manifest]:
    """The store and an ExternalSecret for each secret, where Argo CD applies."""
    secrets = required(target)
    if not target.is_argo or not secrets:
        return
    if any(None in s.keys.values() for s in secrets):
        yield Manifest(FILE, WAVE, _store(target))
    for length in sorted({n for s in secrets for n in s.keys.values() if n is not None}):
        yield Manifest(FILE, WAVE, _generator(target, length))
    for secret in secrets:
        yield Manifest(FILE, WAVE + 1, _external(target, secret))


def _store(target: Target) -> dict[str, object]:
    cloud = target.environment.cloud
    assert cloud is not None
    from lapwing.stack.cloud import project_of

    project = project_of(target.loaded.stack, target.loaded.environment)
    return {
        "apiVersion": "external-secrets.io/v1",
        "kind": "SecretStore",
        "metadata": meta(target, name(STORE), STORE, "secret"),
        "spec": {"provider": {"gcpsm": {"projectID": project}}},
    }


def _generator(target: Target, length: int) -> dict[str, object]:
    part = f"password-{length}"
    return {
        "apiVersion": "generators.external-secrets.io/v1alpha1",
        "kind": "Password",
        "metadata": meta(target, name(part), part, "secret"),
        "spec": {
            "length": length,
            "digits": length // 4,
            "symbols": 0,
            "noUpper": False,
            "allowRepeat": True,
        },
    }


def _external(target: Target, secret: RequiredSecret) -> dict[str, object]:
    made_up = secret.generated
    spec: dict[str, object] = {
        "refreshPolicy": "CreatedOnce" if made_up else "Periodic",
        "refreshInterval": "0s" if made_up else "5m",
        "target": {
            "name": name(secret.part),
            # One that was made up must outlive the object that asked for it.
            "creationPolicy": "Orphan" if made_up else "Owner",
            "deletionPolicy": "Retain",
        },
    }
    if made_up:
        spec["dataFrom"] = [
            {
                "sourceRef": {
                    "generatorRef": {
                        "apiVersion": "generators.external-secrets.io/v1alpha1",
                        "kind": "Password",
                        "name": name(f"password-{length}"),
                    }
                },
                "rewrite": [{"regexp": {"source": "password", "target": key}}],
            }
            for key, length in made_up.items()
        ]
    else:
        spec["secretStoreRef"] = {"kind": "SecretStore", "name": name(STORE)}
        stack, environment = target.loaded.stack.stack, target.loaded.environment
        remote = {"key": f"{stack}-{environment}-{secret.variable}"}
        spec["data"] = [{"secretKey": "value", "remoteRef": remote}]
    return {
        "apiVersion": "external-secrets.io/v1",
        "kind": "ExternalSecret",
        "metadata": meta(target, name(secret.part), secret.part, "secret"),
        "spec": spec,
    }
