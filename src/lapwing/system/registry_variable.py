"""The variables with the login of a registry, and the user that a registry prescribes.

Source: Google's "Set up authentication for Docker", for the users of Artifact Registry.
"""

from __future__ import annotations

import base64
import re


def registry_variable(host: str) -> str:
    """Return LAPWING_REGISTRY_<HOST>, to which `_TOKEN` and `_USER` are added.

    The host is in capitals, with `_` for everything but letters and digits.
    """
    return "LAPWING_REGISTRY_" + re.sub(r"[^A-Z0-9]", "_", host.upper())


def is_google(host: str) -> bool:
    """Return whether a host is a registry of Google Cloud."""
    return re.fullmatch(r"[a-z0-9-]+-docker\.pkg\.dev|([a-z]+\.)?gcr\.io", host) is not None


def user_of(host: str, token: str) -> str:
    """Return the user for a token whose variable `_USER` is not set.

    Google requires a fixed user for each kind of token: the key of a service account (a JSON
    object), the same in base64, or an access token. Other registries accept any name.
    """
    if not is_google(host):
        return "lapwing"
    if token.lstrip().startswith("{"):
        return "_json_key"
    return "_json_key_base64" if _decoded(token).lstrip().startswith(b"{") else "oauth2accesstoken"


def _decoded(token: str) -> bytes:
    """Return the content of a token in base64; nothing if it is something else."""
    try:
        return base64.b64decode("".join(token.split()), validate=True)
    except ValueError:
        return b""
