"""References and digests of images: the names by which registries are asked.

A reference is written `[registry/]repository[:tag][@digest]`. What is left out is filled in as
Docker does: no registry is Docker Hub, a Hub repository without a namespace is in `library/`, no
tag and no digest is `latest`. After parsing nothing is implied any more: a `Reference` says the
whole name, so the rest of Lapwing compares and prints one form.

Sources: the OCI distribution specification 1.1 ("Pulling manifests": the patterns of names and
tags), the OCI image specification (digests), and Docker's reference grammar (which first part of a
name is a host, and the short names of Docker Hub).

Pure: nothing here reads anything.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from dataclasses import dataclass, replace

from lapwing.errors import ImageReferenceError

HUB = "docker.io"
"""Docker Hub as people write it."""
HUB_API = "registry-1.docker.io"
"""The host that serves Docker Hub's registry. Source: Docker's documentation of the Hub API."""
HUB_LOGIN = "https://index.docker.io/v1/"
"""The key under which Docker's config.json keeps the login of Docker Hub."""
HUB_ALIASES = {"index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"}

LATEST = "latest"
LONGEST_NAME = 255
"""Characters of registry and repository together, as Docker allows; many file systems, too."""

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
    """A whole reference. At least one of `tag` and `digest` is set; the digest decides."""

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
        """What a registry is asked for: the digest, if there is one, else the tag."""
        return self.digest or self.tag or LATEST

    @property
    def api(self) -> str:
        """The host and port that serve this registry."""
        return HUB_API if self.registry == HUB else self.registry

    def tagged(self, tag: str) -> Reference:
        """The same repository under a tag. Raises ImageReferenceError if it cannot be one."""
        return replace(self, tag=check_tag(tag), digest=None)

    def at(self, digest: str) -> Reference:
        """The same repository at a digest."""
        return replace(self, tag=None, digest=digest)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return self.name + tag + (f"@{self.digest}" if self.digest else "")


def parse(text: str, *, lower: bool = False, default_tag: str | None = LATEST) -> Reference:
    """Parse a reference; `lower` writes an upper-case repository in lower case.

    `default_tag` is the tag where there is neither tag nor digest; with None the reference stays
    without. Raises ImageReferenceError with what is wrong.
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
    if len(registry) + 1 + len(repository) > LONGEST_NAME:
        raise _wrong(text, f"its name is longer than {LONGEST_NAME} characters")
    if tag is not None:
        check_tag(tag, of=text)
    if tag is None and not digest:
        tag = default_tag
    return Reference(registry, repository, tag, digest or None)


def built_image(registry: str, service: str, commit: str) -> Reference:
    """Where CI puts what it built of a service at a commit: `<registry>/<service>:<commit>`.

    Raises ImageReferenceError if the registry is not a host with an optional folder.
    """
    return parse(f"{registry.rstrip('/')}/{service}:{commit}")


def is_tag(text: str) -> bool:
    """Whether a text can be a tag."""
    return _TAG.fullmatch(text) is not None


def check_tag(tag: str, *, of: str | None = None) -> str:
    """The tag, if it can be one. Raises ImageReferenceError if not."""
    if is_tag(tag):
        return tag
    why = (
        f"the tag is {len(tag)} characters long, and 128 are allowed"
        if len(tag) > 128
        else f"the tag {tag!r} is not made of letters, digits, `_`, `.` and `-`, or begins with "
        "`.` or `-`"
    )
    hint = "A `+` in a version is written `_` in a tag, as Helm does." if "+" in tag else None
    raise _wrong(of or tag, why, hint)


def check_digest(digest: str, *, of: str | None = None) -> str:
    """The digest, if it is one that can be verified. Raises ImageReferenceError if not."""
    algorithm, _, encoded = digest.partition(":")
    digits = _HEX.get(algorithm)
    if digits is None:
        raise _wrong(of or digest, f"its digest is not one of {' or '.join(_HEX)}")
    if not re.fullmatch(rf"[0-9a-f]{{{digits}}}", encoded):
        raise _wrong(of or digest, f"a {algorithm} digest is {digits} digits from 0-9 and a-f")
    return digest


def digest_of(data: bytes, like: str = "sha256") -> str:
    """The digest of some bytes, by the algorithm of the digest (or the algorithm) `like`."""
    algorithm = like.partition(":")[0]
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def is_loopback(host: str) -> bool:
    """Whether a host (with or without a port) is this machine: plain HTTP is safe to it."""
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
            "the OCI specification allows no upper-case letter in a repository",
            f"Write it as {repository.lower()}.",
        )
    if not name:
        raise _wrong(text, "the name of the repository is missing")
    raise _wrong(
        text,
        f"the repository {repository!r} is not made of parts of a-z and 0-9, joined by one `.`, "
        "one or two `_`, or `-`, with `/` between the parts",
    )


def _wrong(text: str, why: str, hint: str | None = None) -> ImageReferenceError:
    shown = text if len(text) <= 200 else text[:200] + "..."
    return ImageReferenceError(
        f"{shown!r} is not an image reference: {why}.",
        hint=hint or "An example: registry.example/team/app:1.2.",
    )
