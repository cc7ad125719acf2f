"""Secrets of an environment that Lapwing applies itself: which to generate, to set, and to keep.

    set        a value was set by `lapwing secret set`: the Secret is applied with it
    generated  it is generated if it is missing, and never changed afterwards. It carries a label
               that exempts it from pruning, and `down` does not remove it
    kept       no value was set here, but the cluster has one: set elsewhere, or by kubectl

A Secret of the same name that is not managed by Lapwing is used unchanged. A missing value is
reported before anything is changed.
"""

from __future__ import annotations

import base64
import json
import secrets as random
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lapwing.errors import SecretError, UnmanagedObjectError
from lapwing.kubernetes import applyset
from lapwing.kubernetes.applyset import Scope
from lapwing.kubernetes.objects import Object, Reference, annotation
from lapwing.plan.names import PULL_SECRET, RequiredSecret, secret_part
from lapwing.registry.credentials import Login
from lapwing.system.x509 import create_server

VERSION = "lapwing.dev/version"
"""Annotation of a Secret that was set: the version of its value."""
UNKNOWN = "cluster"
"""The version of a value that only the cluster has."""
CERTIFICATE_DAYS = 3650
_ALPHABET = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class GeneratedSecret:
    """A Secret to generate: the number of characters of each key.

    `adds` keys to an existing one; a `host` asks for a self-signed certificate for it.
    """

    name: str
    keys: Mapping[str, int]
    adds: bool = False
    host: str | None = None


@dataclass(slots=True)
class SecretPlan:
    """What to do about each Secret.

    `versions` maps the variables that people set to the version of their value; `missing` names
    those without a value.
    """

    versions: dict[str, str] = field(default_factory=dict)
    generated: list[GeneratedSecret] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def reference(scope: Scope, part: str) -> Reference:
    """Return the reference of the Secret whose name ends in `part`."""
    return Reference("v1", "Secret", scope.namespace, f"{scope.stack}-{part}")


def plan_secrets(
    scope: Scope,
    required: Iterable[RequiredSecret],
    given: Mapping[str, str],
    live: Mapping[str, Object],
) -> SecretPlan:
    """Decide what to do about each Secret that pods refer to.

    `given` has the version of each value that is set here, `live` the Secrets of the cluster.

    Raises UnmanagedObjectError for an unmanaged Secret that lacks a key.
    """
    plan = SecretPlan()
    for secret in required:
        name = reference(scope, secret.part).name
        found = live.get(name)
        has = set((found or {}).get("data") or {})
        if secret.variable in given:
            assert secret.variable is not None
            plan.versions[secret.variable] = given[secret.variable]
        elif all(n is not None for n in secret.keys.values()):
            lacking = {k: n for k, n in secret.keys.items() if n is not None and k not in has}
            if not lacking:
                continue
            if found is not None and not scope.manages(found):
                raise UnmanagedObjectError(
                    f"Secret {name} already exists without the key {', '.join(sorted(lacking))}, "
                    f"and is not managed by {scope.stack}/{scope.environment}.",
                    hint="Nothing was changed. Add the key, or delete the Secret.",
                )
            plan.generated.append(GeneratedSecret(name, lacking, adds=found is not None))
        elif secret.variable is not None and found is not None and set(secret.keys) <= has:
            plan.versions[secret.variable] = annotation(found, VERSION) or UNKNOWN
        else:
            plan.missing.append(str(secret.variable))
    return plan


def check_missing(plan: SecretPlan, environment: str) -> None:
    """Raise SecretError if a secret has no value."""
    if plan.missing:
        names = ", ".join(plan.missing)
        one = len(plan.missing) == 1
        raise SecretError(
            f"Secret{'' if one else 's'} {names} {'is' if one else 'are'} not set.",
            hint=f"Nothing was changed. Set {'it' if one else 'each'} with `lapwing secret set "
            f"{plan.missing[0]} -e {environment}`.",
        )


def set_object(scope: Scope, variable: str, value: str, version: str) -> dict[str, Any]:
    """Build the Secret of a value that was set."""
    name = reference(scope, secret_part(variable)).name
    thing = _object(scope, name, "Opaque", {"value": value})
    thing["metadata"]["annotations"] = {VERSION: version}
    return thing


def registry_object(scope: Scope, logins: Mapping[str, Login]) -> dict[str, Any]:
    """Build the Secret with which nodes pull images: logins by the name of their registry."""
    entries = {
        host: {"auth": base64.b64encode(f"{login.user}:{login.password}".encode()).decode()}
        for host, login in sorted(logins.items())
    }
    values = {".dockerconfigjson": json.dumps({"auths": entries})}
    name = reference(scope, PULL_SECRET).name
    return _object(scope, name, "kubernetes.io/dockerconfigjson", values)


def generate(scope: Scope, secret: GeneratedSecret) -> dict[str, Any]:
    """Build a Secret with newly generated values."""
    if secret.host is not None:
        certificate, key = self_signed(secret.host)
        values, kind = {"tls.crt": certificate, "tls.key": key}, "kubernetes.io/tls"
    else:
        values, kind = {k: generate_value(n) for k, n in secret.keys.items()}, "Opaque"
    thing = _object(scope, secret.name, kind, values)
    thing["metadata"]["labels"][applyset.KEEP] = "true"
    return thing


def generate_value(characters: int) -> str:
    """Return random letters and digits, which need no escaping in a URL or a shell."""
    return "".join(random.choice(_ALPHABET) for _ in range(characters))


def _object(scope: Scope, name: str, kind: str, values: Mapping[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": scope.namespace, "labels": scope.labels},
        "type": kind,
        "stringData": dict(values),
    }


def self_signed(host: str) -> tuple[str, str]:
    """Return a certificate for a host and localhost, and its key, as PEM.

    Nothing renews it: it is for local use, as the one that a chart generates.
    """
    domains = dict.fromkeys((host, "localhost"))
    made = create_server(host, CERTIFICATE_DAYS, domains, ["127.0.0.1"])
    return made.certificate_pem.decode(), made.key_pem.decode()
