"""A certificate from a public authority, by the ACME protocol (RFC 8555) with HTTP-01 challenges.

The protocol is certbot's `acme` library. Challenges are answered by Envoy: `publish` gets the reply
for each token, and returns when Envoy sends it. Everything here blocks: run it in a thread.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lapwing import __version__
from lapwing.errors import LapwingError
from lapwing.system.files import write_atomic
from lapwing.system.x509 import create_key_pem

if TYPE_CHECKING:
    from acme.client import ClientNetwork, ClientV2

TIMEOUT_S = 180.0
"""How long the authority may take to check the domains and to sign."""
RATE_LIMIT_S = 3600.0
"""How long no attempt is made after the authority reported a rate limit."""
NONCE_ATTEMPTS = 5
"""How often a request is given to certbot's library while its nonce is refused (RFC 8555, 6.5). The
library sends the request twice each time, with a new nonce."""
RATE_LIMITED = "urn:ietf:params:acme:error:rateLimited"


class CertificateError(LapwingError):
    """A public certificate was refused, or the authority cannot be reached.

    `refused` has the reason for each domain that the authority could not check. `retry_after` is
    the number of seconds that it asks to wait.
    """

    code = "certificate"

    def __init__(
        self, message: str, refused: Mapping[str, str] | None = None, retry_after: float = 0.0
    ) -> None:
        super().__init__(message)
        self.refused = dict(refused or {})
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Order:
    """A certificate for `names` from the authority at the address `directory`.

    `account` is the file of the account's key. `trusted` is a file of certificates that the
    directory's own certificate is checked with; None for the public ones.
    """

    directory: str
    email: str
    names: tuple[str, ...]
    account: Path
    trusted: Path | None = None


Publish = Callable[[Mapping[str, str]], None]
"""Lets Envoy answer challenges; the reply by token."""


def obtain(order: Order, publish: Publish) -> bytes:
    """Return the key and the certificate chain as PEM. Raises CertificateError or OSError."""
    import requests
    from acme import crypto_util, errors, messages

    key = create_key_pem()
    try:
        client = _client(order)
        made = client.new_order(crypto_util.make_csr(key, list(order.names)))
        _answer(client, made, publish)
        deadline = datetime.datetime.now() + datetime.timedelta(seconds=TIMEOUT_S)  # noqa: DTZ005
        signed = client.poll_and_finalize(made, deadline)
    except errors.ValidationError as error:
        refused = {a.body.identifier.value: _reason(a.body) for a in error.failed_authzrs}
        listed = "; ".join(f"{name}: {reason}" for name, reason in sorted(refused.items()))
        raise CertificateError(f"The authority could not check {listed}", refused) from error
    except messages.Error as error:
        wait = RATE_LIMIT_S if error.typ == RATE_LIMITED else 0.0
        raise CertificateError(
            f"The authority refused: {error.detail}", retry_after=wait
        ) from error
    except (errors.Error, requests.RequestException, ValueError) as error:
        reason = type(error).__name__ if isinstance(error, errors.TimeoutError) else str(error)
        raise CertificateError(f"{order.directory} failed: {reason}") from error
    finally:
        publish({})
    return key + signed.fullchain_pem.encode()


def _client(order: Order) -> ClientV2:
    """Return a client whose account exists; its key is made the first time (0600)."""
    from acme import client, errors, messages
    from josepy.jwa import ES256
    from josepy.jwk import JWKEC

    if not order.account.exists():
        write_atomic(order.account, create_key_pem())
    key = JWKEC.load(order.account.read_bytes())
    trusted: Any = str(order.trusted) if order.trusted else True
    agent = f"lapwing/{__version__}"
    net = _network()(key, alg=ES256, user_agent=agent, verify_ssl=trusted)
    made = client.ClientV2(client.ClientV2.get_directory(order.directory, net), net)
    wanted = messages.NewRegistration.from_data(email=order.email, terms_of_service_agreed=True)
    try:
        made.new_account(wanted)
    except errors.ConflictError as known:
        net.account = messages.RegistrationResource(
            uri=known.location, body=messages.Registration()
        )
    return made


def _network() -> type[ClientNetwork]:
    """Return the library's connection, with more attempts when the authority refuses a nonce."""
    from acme import client, messages

    class Network(client.ClientNetwork):
        def post(self, *args: Any, **kwargs: Any) -> Any:
            for _ in range(NONCE_ATTEMPTS - 1):
                try:
                    return super().post(*args, **kwargs)
                except messages.Error as error:
                    if error.code != "badNonce":
                        raise
            return super().post(*args, **kwargs)

    return Network


def _answer(client: ClientV2, order: Any, publish: Publish) -> None:
    """Publish the replies to all open challenges, then let the authority ask."""
    from acme import challenges, messages

    open_ = [
        next(c for c in a.body.challenges if isinstance(c.chall, challenges.HTTP01))
        for a in order.authorizations
        if a.body.status != messages.STATUS_VALID
    ]
    answers = [(c, *c.response_and_validation(client.net.key)) for c in open_]
    publish({c.chall.encode("token"): validation for c, _, validation in answers})
    for challenge, response, _ in answers:
        client.answer_challenge(challenge, response)


def _reason(authorization: Any) -> str:
    """Return why a domain was refused, as the authority says it, on one line."""
    errors = [c.error for c in authorization.challenges if c.error is not None]
    text = str(errors[0].detail) if errors else "no reason given"
    return re.sub(r"\s+", " ", text)[:300]
