"""A certificate from a public authority, by the ACME protocol (RFC 8555) with HTTP-01 challenges.

The protocol is certbot's `acme` library. Challenges are answered by Envoy: `publish` gets the reply
for each token, and returns when Envoy sends it. Everything here blocks: run it in a thread.
"""

from __future__ import annotations

import contextlib
import datetime
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lapwing import __version__
from lapwing.errors import LapwingError, causes
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
RATE_LIMITED = "rateLimited"
_POINT = (
    "Set the A and AAAA records of the domain to the address of this server only, and open port 80 "
    "in its firewall."
)
_HINTS = {
    "caa": "Allow the authority in the domain's CAA record, or remove the record.",
    "connection": _POINT,
    "dns": "Create an A or AAAA record of the domain with the address of this server.",
    "dnssec": "Correct the DNSSEC records of the domain.",
    "externalAccountRequired": "Use another authority: external accounts are not supported.",
    "invalidContact": "Correct the address in `tls: {acme: ...}`, and deploy again.",
    "incorrectResponse": _POINT,
    "rateLimited": "Wait for the next attempt. An existing certificate stays in use.",
    "rejectedIdentifier": "Use a domain that the authority accepts, or another authority.",
    "serverInternal": "Wait for the next attempt. The authority has an internal error.",
    "tls": _POINT,
    "unauthorized": _POINT,
    "unsupportedContact": "Correct the address in `tls: {acme: ...}`, and deploy again.",
}
"""The next step by the type of an error. Source: RFC 8555, 6.7."""
_HOST = re.compile(r"[\w-]+(?:\.[\w-]+)+")
MAX_DETAIL_CHARACTERS = 300


class CertificateError(LapwingError):
    """A public certificate was refused, or the authority cannot be reached.

    `refused` has the reason and the next step for each domain that gets no certificate.
    `retry_after` is the number of seconds that the authority asks to wait.
    """

    code = "certificate"

    def __init__(self, refused: Mapping[str, str], retry_after: float = 0.0) -> None:
        super().__init__(" ".join(f"{name}: {text}" for name, text in sorted(refused.items())))
        self.refused = dict(refused)
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

    @property
    def authority(self) -> str:
        """The name of the authority in messages, with the host name of its directory."""
        return f"The ACME authority {urlsplit(self.directory).hostname or self.directory}"


Publish = Callable[[Mapping[str, str]], None]
"""Lets Envoy answer challenges; the reply by token."""


def obtain(order: Order, publish: Publish) -> bytes:
    """Return the key and the certificate chain as PEM. Raises CertificateError or OSError."""
    import requests
    from acme import crypto_util, errors, messages

    key = create_key_pem()
    try:
        client = _client(order)
        request = crypto_util.make_csr(key, list(order.names))
        with _parsing():
            made = client.new_order(request)
        _answer(client, made, publish)
        deadline = datetime.datetime.now() + datetime.timedelta(seconds=TIMEOUT_S)  # noqa: DTZ005
        with _parsing():
            signed = client.poll_and_finalize(made, deadline)
    except errors.ValidationError as error:
        failed = {a.body.identifier.value: _error_of(a.body) for a in error.failed_authzrs}
        raise CertificateError(
            {name: _reason(order, "could not check the domain", e) for name, e in failed.items()}
        ) from error
    except messages.Error as error:
        raise _refusal(order, error) from error
    except errors.TimeoutError as error:
        text = f"{order.authority} sent no certificate within {TIMEOUT_S:.0f} s."
        raise CertificateError(dict.fromkeys(order.names, text)) from error
    except (errors.Error, requests.RequestException, ValueError) as error:
        raise CertificateError(dict.fromkeys(order.names, _failure(order, error))) from error
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
    with _parsing():
        made = client.ClientV2(client.ClientV2.get_directory(order.directory, net), net)
    wanted = messages.NewRegistration.from_data(email=order.email, terms_of_service_agreed=True)
    try:
        with _parsing():
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
        with _parsing():
            client.answer_challenge(challenge, response)


@contextlib.contextmanager
def _parsing() -> Iterator[None]:
    """Raise ValueError for an answer of other JSON than the protocol has, which certbot trusts."""
    try:
        yield
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError(str(error)) from error


def _refusal(order: Order, error: Any) -> CertificateError:
    """Return the error for a refused order: of the domains that it names, or else of all.

    An authority names them in subproblems (RFC 8555, 6.7.1), or in the text only.
    """
    found = {s.identifier.value: s for s in error.subproblems or () if s.identifier is not None}
    if not found:
        hosts = set(_HOST.findall(error.detail or ""))
        named = [n for n in order.names if any(n == h or n.endswith(f".{h}") for h in hosts)]
        found = dict.fromkeys(named or order.names, error)
    wait = RATE_LIMIT_S if error.code == RATE_LIMITED else 0.0
    reasons = {n: _reason(order, "refused a certificate", e) for n, e in found.items()}
    return CertificateError(reasons, wait)


def _error_of(authorization: Any) -> Any:
    """Return the error of the challenge that failed; None without one."""
    return next((c.error for c in authorization.challenges if c.error is not None), None)


def _reason(order: Order, what: str, error: Any) -> str:
    """Return what the authority did and answered, and the next step."""
    if error is None:
        return f"{order.authority} {what}, and gave no reason. {_POINT}"
    kind = str(error.typ).rpartition(":")[2]
    detail = re.sub(r"\s+", " ", str(error.detail or error.title or "no reason given"))
    detail = detail[:MAX_DETAIL_CHARACTERS].rstrip(" .")
    return f"{order.authority} {what} ({kind}): {detail}. {_HINTS.get(kind, '')}".rstrip()


def _failure(order: Order, error: BaseException) -> str:
    """Return why the authority cannot be used, and the next step."""
    cause = None
    for each in causes(error):  # The innermost error of the system is the cause.
        cause = getattr(each, "verify_message", None) or getattr(each, "strerror", None) or cause
    check = f"Check `directory` in `tls: {{acme: ...}}` ({order.directory})"
    if cause is None:
        return f"{order.authority} sent no valid ACME response. {check}."
    return f"{order.authority} cannot be reached ({cause}). {check} and the network of this server."
