"""Parse image references and digests.

A reference is `[registry/]repository[:tag][@digest]`. Defaults are those of Docker: the registry is
Docker Hub, a Hub repository without a namespace is in `library/`, and without tag and digest the
tag is `latest`. A parsed `Reference` is always complete, so it can be compared and printed.

Sources: the OCI distribution specification 1.1 ("Pulling manifests": the patterns of names and
tags), the OCI image specification (digests), and Docker's reference grammar (which first part of a
name is a host, and the short names of Docker Hub).
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from dataclasses import dataclass, replace

from lapwing.errors import ImageReferenceError

HUB = "docker.io"
"""The usual name of Docker Hub."""
HUB_API = "registry-1.docker.io"
"""The host that serves Docker Hub's registry. Source: Docker's documentation of the Hub API."""
HUB_LOGIN = "https://index.docker.io/v1/"
"""The key under which Docker's config.json keeps the login of Docker Hub."""
HUB_ALIASES = {"index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"}

LATEST = "latest"
MAX_NAME_LENGTH = 255
"""Characters of registry and repository together, as in Docker."""

_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_HOST = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*|\[[0-9a-f:]+\])"
    r"(?::[0-9]{1,5})?"
)
_HEX = {"sha256": 64, "sha512": 128}
"""Hexadecimal digits of the digests that the image specification registers."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A complete reference. `tag`, `digest` or both are set; the digest takes precedence."""

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @property
    def name(self) -> str:
        """Registry and repository: `docker.io/library/redis`."""
        return f"{self.registry}/{self.repository}"

    @property
    def wanted(self) -> str:
        """The digest, if there is one, else the tag."""
        return self.digest or self.tag or LATEST

    @property
    def api(self) -> str:
        """The host and port of the registry's API."""
        return HUB_API if self.registry == HUB else self.registry

    def tagged(self, tag: str) -> Reference:
        """Return the reference with another tag. Raises ImageReferenceError if it is invalid."""
        return replace(self, tag=check_tag(tag), digest=None)

    def at(self, digest: str) -> Reference:
        """Return the reference with another digest."""
        return replace(self, tag=None, digest=digest)

    def __str__(self) -> str:
        """Return the reference as text."""
        tag = f":{self.tag}" if self.tag else ""
        return self.name + tag + (f"@{self.digest}" if self.digest else "")


def parse(text: str, *, lower: bool = False, default_tag: str | None = LATEST) -> Reference:
    """Parse a reference. Raises ImageReferenceError.

    `lower` converts the repository to lower case. `default_tag` is the tag if there is neither tag
    nor digest; None leaves it out.
    """
    rest = text.removeprefix("oci://").removeprefix("docker://")
    if not rest or rest != rest.strip() or "://" in rest:
        raise _wrong(text, "it is not of the form [registry/]repository[:tag][@digest]")
    rest, _, digest = rest.partition("@")
    if digest or text.endswith("@"):
        check_digest(digest, of=text)
    rest, tag = _split_tag(rest)
    registry, repository = _split_registry(rest, text)
    repository = _repository(repository, text, lower=lower)
    if registry == HUB and "/" not in repository:
        repository = f"library/{repository}"
    if len(registry) + 1 + len(repository) > MAX_NAME_LENGTH:
        raise _wrong(text, f"its name is longer than {MAX_NAME_LENGTH} characters")
    if tag is not None:
        check_tag(tag, of=text)
    if tag is None and not digest:
        tag = default_tag
    return Reference(registry, repository, tag, digest or None)


def mirrored(text: str, mirror: str | None) -> str:
    """Return the reference of a Docker Hub image in a mirror (registry and folder).

    Official images are in `library/` of the mirror, as on Docker Hub. An image of another registry
    is returned unchanged.
    """
    reference = parse(text)
    if mirror is None or reference.registry != HUB:
        return text
    return f"{mirror.rstrip('/')}/{str(reference).removeprefix(f'{HUB}/')}"


def service_image(registry: str, service: str, default_tag: str | None = None) -> Reference:
    """Return the image of a service in a registry: `<registry>/<service>`, in lower case.

    Raises ImageReferenceError if the registry is not a host with an optional path.
    """
    return parse(f"{registry.rstrip('/')}/{service}", lower=True, default_tag=default_tag)


def built_image(registry: str, service: str, commit: str) -> Reference:
    """Return the image that CI builds of a service: `<registry>/<service>:<commit>`.

    Raises ImageReferenceError if the registry is not a host with an optional path.
    """
    return parse(f"{registry.rstrip('/')}/{service}:{commit}")


def is_tag(text: str) -> bool:
    """Return whether a text is a valid tag."""
    return _TAG.fullmatch(text) is not None


def check_tag(tag: str, *, of: str | None = None) -> str:
    """Return the tag if it is valid. Raises ImageReferenceError otherwise."""
    if is_tag(tag):
        return tag
    why = (
        f"the tag has {len(tag)} characters; the limit is 128"
        if len(tag) > 128
        else f"the tag {tag!r} must consist of letters, digits, `_`, `.` and `-`, and not start "
        "with `.` or `-`"
    )
    hint = "Write the `+` of a version as `_`, as Helm does." if "+" in tag else None
    raise _wrong(of or tag, why, hint)


def check_digest(digest: str, *, of: str | None = None) -> str:
    """Return the digest if it can be verified. Raises ImageReferenceError otherwise."""
    algorithm, _, encoded = digest.partition(":")
    digits = _HEX.get(algorithm)
    if digits is None:
        raise _wrong(of or digest, f"its digest must be {' or '.join(_HEX)}")
    if not re.fullmatch(rf"[0-9a-f]{{{digits}}}", encoded):
        raise _wrong(of or digest, f"a {algorithm} digest has {digits} hexadecimal digits")
    return digest


def digest_of(data: bytes, like: str = "sha256") -> str:
    """Compute the digest of bytes, with the algorithm of the digest or algorithm `like`."""
    algorithm = like.partition(":")[0]
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def is_loopback(host: str) -> bool:
    """Return whether a host (with or without port) is this machine, so that HTTP is safe."""
    bare = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
    bare = bare.strip("[]")
    if bare == "localhost" or bare.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return False


def _split_tag(rest: str) -> tuple[str, str | None]:
    head, colon, tail = rest.rpartition(":")
    # Behind the last colon is a port, not a tag, where a slash follows.
    return (head, tail) if colon and "/" not in tail else (rest, None)


def _split_registry(rest: str, text: str) -> tuple[str, str]:
    first, slash, repository = rest.partition("/")
    if not slash or not (any(c in first for c in ".:[") or first.lower() == "localhost"):
        return HUB, rest
    registry = first.lower()
    if not _HOST.fullmatch(registry) or _port(registry) > 65535:
        raise _wrong(text, f"{first!r} is not a host with an optional port")
    return (HUB if registry in HUB_ALIASES else registry), repository


def _port(host: str) -> int:
    found = re.search(r":(\d+)$", host)
    return int(found[1]) if found else 0


def _repository(repository: str, text: str, *, lower: bool) -> str:
    name = repository.lower() if lower else repository
    if _REPOSITORY.fullmatch(name):
        return name
    if _REPOSITORY.fullmatch(name.lower()):
        raise _wrong(
            text,
            "a repository must be lower-case",
            f"Write it as {repository.lower()}.",
        )
    if not name:
        raise _wrong(text, "the repository is missing")
    raise _wrong(
        text,
        f"the repository {repository!r} must consist of parts of a-z and 0-9, joined by one `.`, "
        "one or two `_`, or `-`, with `/` between the parts",
    )


def _wrong(text: str, why: str, hint: str | None = None) -> ImageReferenceError:
    shown = text if len(text) <= 200 else text[:200] + "..."
    return ImageReferenceError(
        f"{shown!r} is not an image reference: {why}.",
        hint=hint or "Write it like registry.example/team/app:1.2.",
    )
