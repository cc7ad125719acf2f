"""What a registry asks for: the WWW-Authenticate header of a 401, as data.

A header holds one or more challenges, each a scheme with parameters (RFC 9110, section 11.6.1).
Bearer challenges name where a token is got and what for (the distribution project's token
authentication specification). Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'\s*({_WORD})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))\s*(?:,|$)')
_SCHEME = re.compile(rf"[\s,]*({_WORD})(?=\s|,|$)(?!\s*=)")
_TOKEN68 = re.compile(r"\s+[A-Za-z0-9._~+/-]+=*\s*(?:,|$)")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to log in. `scheme` is in lower case; `realm` is a URL for Bearer."""

    scheme: str
    realm: str = ""
    service: str = ""
    scope: str = ""
    error: str = ""


def parse(header: str) -> list[Challenge]:
    """The challenges of a header, in its order; what cannot be read ends the list."""
    found = []
    place = 0
    while scheme := _SCHEME.match(header, place):
        place = scheme.end()
        parameters: dict[str, str] = {}
        if not _PARAMETER.match(header, place) and (token := _TOKEN68.match(header, place)):
            place = token.end()
        while parameter := _PARAMETER.match(header, place):
            name, quoted, bare = parameter.groups()
            value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else bare
            parameters.setdefault(name.lower(), value)
            place = parameter.end()
        known = {k: parameters.get(k, "") for k in ("realm", "service", "scope", "error")}
        found.append(Challenge(scheme[1].lower(), **known))
    return found


def choose(header: str) -> Challenge | None:
    """The challenge to answer: Bearer before Basic; None if there is neither."""
    found = parse(header)
    for scheme in ("bearer", "basic"):
        for challenge in found:
            if challenge.scheme == scheme and (scheme == "basic" or challenge.realm):
                return challenge
    return None
