"""Secrets of an environment that Lapwing applies itself: what to make, to set, and to leave. Pure,
but for the random numbers of what is made.

    set     people gave a value by `lapwing secret set`: the Secret is made to hold it
    made    nobody gives one: it is made up when it is missing, and never changed afterwards. It
            carries a label that keeps it from being pruned, and outlives `down`
    kept    people gave none here, but the cluster has one: set from another machine, or by kubectl

A Secret of the right name that somebody else made is used as it is. What is wanted and is nowhere
is told before anything is touched.
"""

from __future__ import annotations

import datetime
import secrets as random
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lapwing.errors import SecretError, UnmanagedObjectError
from lapwing.kubernetes import applyset
from lapwing.kubernetes.apply import Scope
from lapwing.kubernetes.objects import Object, Reference
from lapwing.plan.names import RequiredSecret, secret_part

VERSION = "lapwing.dev/version"
"""The annotation of a Secret that was set: the version of its value."""
UNKNOWN = "cluster"
"""The version of a value that the cluster has and this machine has not."""
CERTIFICATE_DAYS = 3650
_ALPHABET = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class Made:
    """A Secret to make up: the number of characters of each key. `adds` to one of ours that lacks
    keys; a `host` asks for a self-signed certificate for it."""

    name: str
    keys: Mapping[str, int]
    adds: bool = False
    host: str | None = None


@dataclass(slots=True)
class Choice:
    """What is to become of each Secret. `versions` maps the variables that people give values for
    to the version of the value; `missing` names those that have none."""

    versions: dict[str, str] = field(default_factory=dict)
    made: list[Made] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def reference(scope: Scope, part: str) -> Reference:
    """The Secret whose name ends in `part`."""
    return Reference("v1", "Secret", scope.namespace, f"{scope.stack}-{part}")


def choose(
    scope: Scope,
    wanted: Iterable[RequiredSecret],
    given: Mapping[str, str],
    live: Mapping[str, Object],
) -> Choice:
    """What to do about each Secret that pods refer to. `given` has the version of each value that
    is set here, `live` the Secrets that the cluster has, by name.

    Raises UnmanagedObjectError for a Secret of somebody else that lacks a key.
    """
    made = Choice()
    for secret in wanted:
        name = reference(scope, secret.part).name
        found = live.get(name)
        has = set((found or {}).get("data") or {})
        if secret.variable in given:
            assert secret.variable is not None
            made.versions[secret.variable] = given[secret.variable]
        elif all(n is not None for n in secret.keys.values()):
            lacking = {k: n for k, n in secret.keys.items() if n is not None and k not in has}
            if not lacking:
                continue
            if found is not None and not applyset.is_managed(found, scope.stack, scope.environment):
                raise UnmanagedObjectError(
                    f"Secret {name} is there without the key {', '.join(sorted(lacking))}, and is "
                    f"not of {scope.stack}/{scope.environment}.",
                    hint="Nothing was changed. Add the key, or remove the Secret.",
                )
            made.made.append(Made(name, lacking, adds=found is not None))
        elif secret.variable is not None and found is not None and set(secret.keys) <= has:
            annotations = found["metadata"].get("annotations") or {}
            made.versions[secret.variable] = str(annotations.get(VERSION, UNKNOWN))
        else:
            made.missing.append(str(secret.variable))
    return made


def refuse_missing(choice: Choice, environment: str) -> None:
    """Raises SecretError that names every secret without a value."""
    if choice.missing:
        names = ", ".join(choice.missing)
        one = len(choice.missing) == 1
        raise SecretError(
            f"Secret{'' if one else 's'} {names} {'is' if one else 'are'} not set.",
            hint=f"Nothing was changed. Set {'it' if one else 'each'} with `lapwing secret set "
            f"{choice.missing[0]} -e {environment}`.",
        )


def set_object(scope: Scope, variable: str, value: str, version: str) -> dict[str, Any]:
    """The Secret that holds a value that people gave."""
    part = secret_part(variable)
    thing = _object(scope, reference(scope, part).name, "Opaque", {"value": value})
    thing["metadata"]["annotations"] = {VERSION: version}
    return thing


def made_object(scope: Scope, made: Made) -> dict[str, Any]:
    """The Secret with values that are made up now."""
    if made.host is not None:
        certificate, key = self_signed(made.host)
        values, kind = {"tls.crt": certificate, "tls.key": key}, "kubernetes.io/tls"
    else:
        values, kind = {k: made_up(n) for k, n in made.keys.items()}, "Opaque"
    thing = _object(scope, made.name, kind, values)
    thing["metadata"]["labels"][applyset.KEEP] = "true"
    return thing


def made_up(characters: int) -> str:
    """Letters and digits, which need no escape in a URL or a shell."""
    return "".join(random.choice(_ALPHABET) for _ in range(characters))


def _object(scope: Scope, name: str, kind: str, values: Mapping[str, str]) -> dict[str, Any]:
    labels = applyset.labels(scope.stack, scope.environment)
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": scope.namespace, "labels": labels},
        "type": kind,
        "stringData": dict(values),
    }


def self_signed(host: str) -> tuple[str, str]:
    """A certificate for a host and for localhost, and its key, as PEM. Nobody renews it; it is for
    local use, as the one that a chart makes."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64])])
    names: list[x509.GeneralName] = [x509.DNSName(n) for n in dict.fromkeys((host, "localhost"))]
    names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    now = datetime.datetime.now(datetime.UTC)
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=CERTIFICATE_DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(usage, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(pem).decode(), private.decode()
