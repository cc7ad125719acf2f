"""Secrets: which ones the objects refer to, and where their values come from.

No value is ever in a manifest. Each secret of a service is a separate Secret with the key
`value`, so that a service sees what it lists and no more. A database in the cluster has one with
its password and its root password. Where the values come from:

    argo      an ExternalSecret per secret: from the cloud's secret manager under the name
              `<stack>-<environment>-<NAME>`, or, for generated values, from a generator that runs
              once (`CreatedOnce`), so that neither a sync nor an upgrade changes them
    direct    `lapwing` creates them through the API, from `lapwing secret`, or generates them once
    chart     a Job generates the missing ones (see render/helm)

Source: External Secrets Operator, API reference (external-secrets.io/v1, generators Password).
"""

from __future__ import annotations

from collections.abc import Iterator

from lapwing.plan.names import RequiredSecret, secret_part
from lapwing.render.kubernetes.objects import ClusterEnvironment, Manifest, name, new_object
from lapwing.stack.cloud import project_of

FILE = "secrets.yaml"
WAVE = 1
API = "external-secrets.io/v1"
GENERATORS = "generators.external-secrets.io/v1alpha1"
STORE = "google-secret-manager"
PASSWORD_LENGTH = 32
"""Characters of a generated password: letters and digits, which need no escape in a URL."""


def required(cluster: ClusterEnvironment) -> list[RequiredSecret]:
    """List every Secret that the environment's pods refer to, each once, by name."""
    found: dict[str, RequiredSecret] = {}
    for service in cluster.services.values():
        for secret in service.secrets:
            part = secret_part(secret.name)
            found[part] = RequiredSecret(part, {"value": secret.generate}, secret.name)
    for variable in cluster.settings.backup.secrets if cluster.settings.backup else ():
        part = secret_part(variable)
        found[part] = RequiredSecret(part, {"value": None}, variable)
    for resource in cluster.managed_resources:
        variable = cluster.variable(resource)
        part = secret_part(variable)
        found[part] = RequiredSecret(part, {"value": None}, variable)
    for resource in cluster.own_resources:
        keys: dict[str, int | None] = {"password": PASSWORD_LENGTH}
        if cluster.own_resources[resource].kind == "mysql":
            keys["root-password"] = PASSWORD_LENGTH
        found[resource] = RequiredSecret(resource, keys)
    return [found[part] for part in sorted(found)]


def external(cluster: ClusterEnvironment) -> Iterator[Manifest]:
    """Yield the store and an ExternalSecret for each secret, if Argo CD applies them."""
    secrets = required(cluster)
    if not cluster.is_argo or not secrets:
        return
    if any(None in s.keys.values() for s in secrets):
        yield Manifest(FILE, WAVE, _store(cluster))
    for length in sorted({n for s in secrets for n in s.keys.values() if n is not None}):
        yield Manifest(FILE, WAVE, _generator(cluster, length))
    for secret in secrets:
        yield Manifest(FILE, WAVE + 1, _external(cluster, secret))


def _store(cluster: ClusterEnvironment) -> dict[str, object]:
    cloud = cluster.settings.cloud
    assert cloud is not None
    project = project_of(cluster.loaded.stack, cluster.loaded.environment)
    spec = {"provider": {"gcpsm": {"projectID": project}}}
    return new_object(cluster, API, "SecretStore", STORE, "secret", spec=spec)


def _generator(cluster: ClusterEnvironment, length: int) -> dict[str, object]:
    part = f"password-{length}"
    spec = {
        "length": length,
        "digits": length // 4,
        "symbols": 0,
        "noUpper": False,
        "allowRepeat": True,
    }
    return new_object(cluster, GENERATORS, "Password", part, "secret", spec=spec)


def _external(cluster: ClusterEnvironment, secret: RequiredSecret) -> dict[str, object]:
    generated = secret.generated
    spec: dict[str, object] = {
        "refreshPolicy": "CreatedOnce" if generated else "Periodic",
        "refreshInterval": "0s" if generated else "5m",
        "target": {
            "name": name(secret.part),
            # A generated Secret must outlive the ExternalSecret.
            "creationPolicy": "Orphan" if generated else "Owner",
            "deletionPolicy": "Retain",
        },
    }
    if generated:
        spec["dataFrom"] = [
            {
                "sourceRef": {
                    "generatorRef": {
                        "apiVersion": GENERATORS,
                        "kind": "Password",
                        "name": name(f"password-{length}"),
                    }
                },
                "rewrite": [{"regexp": {"source": "password", "target": key}}],
            }
            for key, length in generated.items()
        ]
    else:
        spec["secretStoreRef"] = {"kind": "SecretStore", "name": name(STORE)}
        stack, environment = cluster.loaded.stack.stack, cluster.loaded.environment
        remote = {"key": f"{stack}-{environment}-{secret.variable}"}
        spec["data"] = [{"secretKey": "value", "remoteRef": remote}]
    return new_object(cluster, API, "ExternalSecret", secret.part, "secret", spec=spec)
