"""The variables with the login of a registry, and the user that a registry prescribes.

Source: Google's "Set up authentication for Docker", for the users of Artifact Registry.
"""

from __future__ import annotations

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
    object) or an access token. Other registries accept any name.
    """
    if not is_google(host):
        return "lapwing"
    return "_json_key" if token.lstrip().startswith("{") else "oauth2accesstoken"
