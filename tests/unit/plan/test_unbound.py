"""What a document leaves to the machine that pulls it, and how it is completed there."""

from __future__ import annotations

from lapwing.plan import unbound
from lapwing.plan.model import (
    Access,
    Certificate,
    Deployment,
    Document,
    Edge,
    Resource,
    SecretVersion,
    Service,
    decode,
    encode,
)

OPEN = SecretVersion(secret="ADMINS", version=unbound.CURRENT)
DOCUMENT = Document(
    stack="shop",
    environment="production",
    deployment=Deployment(actor="ci"),
    edge=Edge(
        access=Access(basic_auth=OPEN),
        certificate=Certificate(
            chain="pem", key=SecretVersion(secret="TLS_KEY", version=unbound.CURRENT)
        ),
    ),
    services={
        "api": Service(
            kind="web",
            release="api-1",
            revision="r",
            secrets={"KEY": "generate:24"},
            needs={"db": "open"},
            access=Access(basic_auth=OPEN),
        )
    },
    resources={"db": Resource(kind="redis", provider="machine", variable="DB_URL")},
)
BOUND = Resource(kind="redis", provider="binary", program="/usr/bin/redis", variable="DB_URL")


def test_every_secret_of_a_document_is_found() -> None:
    assert unbound.secrets_of(DOCUMENT) == {
        "ADMINS": "current",
        "TLS_KEY": "current",
        "KEY": "generate:24",
    }


def test_secrets_and_resources_are_completed() -> None:
    versions = {"ADMINS": "v1", "TLS_KEY": "v2", "KEY": "v3"}
    completed = decode(encode(unbound.complete(DOCUMENT, versions, {"db": BOUND})))
    assert unbound.secrets_of(completed) == versions
    assert completed.resources == {"db": BOUND}
    assert completed.services["api"].needs == {"db": BOUND.binding()}
    assert completed.services["api"].access == Access(
        basic_auth=SecretVersion(secret="ADMINS", version="v1")
    )
