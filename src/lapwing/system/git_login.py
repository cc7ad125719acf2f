"""Logging git in at a remote with a token, and keeping logins out of words.

A token is handed to git through its environment, where a credential helper picks it up for the
remote's own address and no other: it is in no URL, no argument and no file. Source: git's
documentation of gitcredentials (a helper that begins with `!` is a shell command; an empty one
clears the list) and of `GIT_CONFIG_COUNT`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

_HELPER = '!f() { test "$1" = get && printf "username=x-access-token\\npassword=%s\\n" '
_HELPER += '"$LAPWING_GIT_TOKEN"; }; f'


def variables(url: str, token: str, environ: Mapping[str, str]) -> dict[str, str]:
    """What to add to the environment of a git that talks to a remote of this address; nothing for
    ssh and folders, which know no token."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        return {}
    key = f"credential.{parts.scheme}://{parts.netloc.rpartition('@')[2]}.helper"
    count = int(environ.get("GIT_CONFIG_COUNT") or 0)
    added = {"GIT_CONFIG_COUNT": str(count + 2), "LAPWING_GIT_TOKEN": token}
    for number, value in enumerate(("", _HELPER), start=count):
        added[f"GIT_CONFIG_KEY_{number}"] = key
        added[f"GIT_CONFIG_VALUE_{number}"] = value
    return added


def without_login(words: str) -> str:
    """Words in which no URL has a user name and a password."""
    return re.sub(r"(?<=://)[^/@\s]*@", "", words)
