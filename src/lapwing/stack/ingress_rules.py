"""Rules about the edge of an environment: domains, redirects, the certificate, headers."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lapwing.stack.environment import GKE_CLASSES, Acme, Environment
from lapwing.stack.fields import Headers
from lapwing.stack.model import Stack
from lapwing.stack.source import KeyPath, Violation

DOMAIN = r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"

TRANSFER_HEADERS = frozenset(
    (
        *("connection", "content-encoding", "content-length", "host", "keep-alive", "te"),
        *("trailer", "transfer-encoding", "upgrade"),
    )
)


SET_BY_ENVOY = frozenset(("date", "server"))
MAX_HEADER_BYTES = 16384
"""The size of all headers together. Envoy accepts this size for one name or value (HeaderValue)
and 1000 values; a Node.js client accepts this size for all headers."""
HEADER_OVERHEAD_BYTES = 32
"""Counted for each header besides its name and value. Source: RFC 9113, section 6.5.2."""


def check_domains(_: Stack, environment: Environment) -> Iterator[Violation]:
    """Domains are host names without scheme, port or path; a `gateway` needs one."""
    if environment.domains and environment.domain != environment.domains[0]:
        hint = "Keep one of them; `domains` is for several."
        yield Violation("Both `domain` and `domains` are set.", ("domain",), hint, key=True)
    for index, domain in enumerate(environment.host_names):
        at: KeyPath = ("domains", index) if environment.domains else ("domain",)
        if not re.fullmatch(DOMAIN, domain):
            hint = "Write the host name only, such as `app.example.com`."
            yield Violation(f"{domain!r} is not a domain.", at, hint)
        elif domain in environment.host_names[:index]:
            yield Violation(f"`{domain}` is listed twice.", at, "Keep one of them.")
    if environment.target != "kubernetes":
        return
    if len(environment.host_names) > 1:
        message = "Several `domains` are only for `target: machine`; a cluster serves one."
        yield Violation(message, ("domains",), "Keep one of them.", key=True)
    if environment.gateway is not None and environment.domain is None:
        hint = "Add `domain:`, such as `domain: app.example.com`."
        yield Violation("`gateway` needs a `domain`.", ("gateway",), hint, key=True)
    yield from _check_gateway_class(environment)


def _check_gateway_class(environment: Environment) -> Iterator[Violation]:
    """GKE's regional and internal load balancers need a subnet that `infra` does not create."""
    gateway = environment.gateway
    if environment.cloud is None or gateway is None or environment.uses_gke_gateway:
        return
    if str(gateway.class_name).startswith(("gke-", "gce")):
        message = f"Class {gateway.class_name!r} is not supported: `infra` creates no proxy subnet."
        hint = f"Remove `class`; the default is `{GKE_CLASSES[gateway.kind]}`."
        yield Violation(message, ("gateway", "class"), hint)


def check_redirects(stack: Stack, environment: Environment) -> Iterator[Violation]:
    """`redirects` maps other host names to a domain of the environment (machine)."""
    redirects = environment.redirects
    if redirects and environment.target != "machine":
        message = "`redirects` is only for `target: machine`."
        hint = "Configure the redirect in the load balancer or at the DNS provider, and remove it."
        yield Violation(message, ("redirects",), hint, key=True)
        return
    for host, target in redirects.items():
        at: KeyPath = ("redirects", host)
        other = _environment_of(stack, environment, host)
        if not re.fullmatch(DOMAIN, host):
            hint = "Write the host name only, such as `www.example.com`."
            yield Violation(f"{host!r} is not a domain.", at, hint, key=True)
        elif host in environment.host_names:
            message = f"`{host}` is both served and redirected."
            hint = "Remove it from `domains`: the certificate also has the redirected host names."
            yield Violation(message, at, hint, key=True)
        elif other is not None:
            message = f"`{host}` belongs to the environment {other!r}."
            yield Violation(message, at, "Remove it from one of the two environments.", key=True)
        elif target in redirects:
            message = f"`{host}` is redirected to `{target}`, which is redirected itself."
            yield Violation(message, at, "Redirect it to one of `domains`.")
        elif target not in environment.host_names:
            message = f"`{host}` is redirected to {target!r}, which is not in `domains`."
            yield Violation(message, at, f"Add `{target}` to `domains`, or correct it.")


def check_preview_names(_: Stack, environment: Environment) -> Iterator[Violation]:
    """No host name is that of the preview of a domain."""
    names: list[tuple[str, KeyPath]] = [
        *((host, ("domains", n)) for n, host in enumerate(environment.domains)),
        *((host, ("redirects", host)) for host in environment.redirects),
    ]
    for host, at in names:
        domain = host.removeprefix("preview.")
        if domain != host and domain in environment.host_names:
            message = f"`{host}` is the address for previews of `{domain}`."
            yield Violation(message, at, "Choose another host name.", key=at[0] == "redirects")


def check_access(stack: Stack, environment: Environment) -> Iterator[Violation]:
    """`access` is for services with a route on a machine."""
    on_machine = environment.target == "machine"
    hint = "Limit access in the load balancer, and "
    if environment.access is not None and not on_machine:
        message = "`access` is only for `target: machine`."
        yield Violation(message, ("access",), f"{hint}remove `access`.", key=True)
    for name, service in stack.services.items():
        at: KeyPath = ("services", name, "access")
        if service.access is not None and not on_machine:
            message = f"`access` of `{name}` is only for `target: machine`."
            keep = "write `access: null` in this environment."
            yield Violation(message, at, hint + keep, key=True)
        elif service.access is not None and service.route is None:
            message = f"`{name}` has no `route`, so it gets no requests."
            yield Violation(message, at, "Remove `access`.", key=True)


def check_headers(stack: Stack, environment: Environment) -> Iterator[Violation]:
    """`headers` are for services with a route, and do not change how a response is transferred.

    `Date` and `Server`, which Envoy sets, cannot be changed.
    """
    for name, service in stack.services.items():
        at: KeyPath = ("services", name, "headers")
        if service.headers and service.route is None:
            message = f"`{name}` has no `route`, so it has no response headers."
            yield Violation(message, at, "Remove `headers`.", key=True)
        yield from _check_header_names(service.headers, at)
        if service.headers:
            yield from _check_header_size({**environment.headers, **service.headers}, at)
    yield from _check_header_names(environment.headers, ("headers",))
    yield from _check_header_size(environment.headers, ("headers",))


def _check_header_names(headers: Headers, at: KeyPath) -> Iterator[Violation]:
    seen: dict[str, str] = {}
    for name in headers:
        if name.lower() in TRANSFER_HEADERS:
            message = f"`{name}` describes how a response is transferred; it cannot be changed."
            yield Violation(message, (*at, name), "Remove it.", key=True)
        elif name.lower() in SET_BY_ENVOY:
            message = f"`{name}` is set by Envoy in every response; it cannot be changed."
            yield Violation(message, (*at, name), "Remove it.", key=True)
        elif name.lower() in seen:
            message = f"`{seen[name.lower()]}` and `{name}` are the same header."
            yield Violation(message, (*at, name), "Keep one of them.", key=True)
        seen[name.lower()] = name


def _check_header_size(headers: Headers, at: KeyPath) -> Iterator[Violation]:
    values = [(n, v) for n, given in headers.items() for v in _values(given)]
    # Envoy's configuration has each percent sign twice.
    size = sum(len(n) + len(v) + v.count("%") + HEADER_OVERHEAD_BYTES for n, v in values)
    if size > MAX_HEADER_BYTES:
        message = f"The headers have {size:,} bytes; the limit is {MAX_HEADER_BYTES:,}."
        yield Violation(message, at, "Remove headers, or shorten their values.", key=True)


def _values(given: str | list[str] | bool) -> list[str]:
    return given if isinstance(given, list) else [given] if isinstance(given, str) else []


def _environment_of(stack: Stack, environment: Environment, host: str) -> str | None:
    """Return the other environment that serves or redirects a host name."""
    for name, other in stack.environments.items():
        if other is not environment and host in (*other.host_names, *other.redirects):
            return name
    return None


def check_maintenance(_: Stack, environment: Environment) -> Iterator[Violation]:
    """`maintenance` is for machines."""
    if environment.target != "machine" and "maintenance" in environment.model_fields_set:
        hint = "Remove `maintenance`, and configure the page in the load balancer."
        message = "`maintenance` is only for `target: machine`."
        yield Violation(message, ("maintenance",), hint, key=True)


def check_tls(_: Stack, environment: Environment) -> Iterator[Violation]:
    """`tls` has `acme`, or `certificate` and `key`, for an environment with a domain (machine)."""
    tls = environment.tls
    if tls is None:
        return
    if environment.target != "machine":
        hint = "Set `target: machine`, or remove `tls`."
        yield Violation("`tls` is only for `target: machine`.", ("tls",), hint, key=True)
    elif environment.domain is None:
        hint = "Add `domain:`, such as `domain: app.example.com`."
        yield Violation("`tls` needs a `domain`.", ("tls",), hint, key=True)
    given = [key for key in ("acme", "certificate", "key") if getattr(tls, key) is not None]
    if given not in (["acme"], ["certificate", "key"]):
        message = "`tls` needs either `acme`, or `certificate` and `key`."
        hint = "Write `tls: {acme: ops@example.com}` or `tls: {certificate: FILE, key: SECRET}`."
        yield Violation(message, ("tls",), hint, key=True)
    if tls.acme is not None:
        yield from _check_acme(tls.acme)


def _check_acme(acme: Acme) -> Iterator[Violation]:
    if re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", acme.email) is None:
        hint = "Write it as `ops@example.com`."
        yield Violation(f"{acme.email!r} is not an e-mail address.", ("tls", "acme"), hint)
    if re.fullmatch(r"https://[^\s]+", acme.directory) is None:
        hint = "Write a URL that begins with `https://`."
        message = f"{acme.directory!r} is not the address of an ACME directory."
        yield Violation(message, ("tls", "acme", "directory"), hint)
