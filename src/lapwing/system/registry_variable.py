"""The names of the variables with the login of a registry."""

from __future__ import annotations

import re


def registry_variable(host: str) -> str:
    """Return LAPWING_REGISTRY_<HOST>, to which `_TOKEN` and `_USER` are added.

    The host is in capitals, with `_` for everything but letters and digits.
    """
    return "LAPWING_REGISTRY_" + re.sub(r"[^A-Z0-9]", "_", host.upper())
