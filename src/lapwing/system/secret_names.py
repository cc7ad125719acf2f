"""Which variables and files hold a secret, by their name or value: the only list of such names.

It decides what `init` writes to `secrets`, what a build argument must not be, and what the log of a
build masks, where a wrong guess costs nothing; `review` judges values. Names with PUBLIC, such as
`NEXT_PUBLIC_API_KEY`, are for values that every browser gets.
"""

from __future__ import annotations

import re
from collections.abc import Collection

_NAME = re.compile(
    r"SECRET|TOKEN|PASSW|PASSPHRASE|CREDENTIAL|PRIVATE_?KEY|API_?KEY|ACCESS_?KEY"
    r"|(^|_)(KEY|PASS|PWD|PAT|DSN)$|AUTH$",
    re.IGNORECASE,
)
_PUBLIC = re.compile(r"(^|_)(PUBLIC|PUBLISHABLE)(_|$)", re.IGNORECASE)
_SWITCH = re.compile(r"(true|false|yes|no|on|off)?", re.IGNORECASE)
_FILE = re.compile(
    r"(?!.*\.(example|sample|template|dist)\Z)\.env(rc)?(\.[\w-]+)*|id_(rsa|dsa|ecdsa|ed25519)"
)
"""Files of variables, without templates for them, and private keys of SSH."""
URL_PASSWORD = re.compile(r"://[^/\s:@]*:([^/\s@]+)@")
"""A URL with a password, which is the group."""
TOKEN = re.compile(
    r"\b(AKIA|ASIA)[0-9A-Z]{16}\b"  # AWS
    r"|\bgh[oprsu]_[A-Za-z0-9]{30,}|\bgithub_pat_\w{20,}"  # GitHub
    r"|\bglpat-[\w-]{16,}"  # GitLab
    r"|\bxox[abeprs]-[\w-]{10,}"  # Slack
    r"|\b[rs]k_(live|test)_[A-Za-z0-9]{10,}|\bwhsec_[A-Za-z0-9+/=]{16,}"  # Stripe
    r"|\bsk-[A-Za-z0-9_-]{20,}"  # OpenAI, Anthropic
    r"|\bAIza[\w-]{35}\b"  # Google
    r"|\bSG\.[\w-]{16,}\.[\w-]{16,}"  # SendGrid
    r"|\b(npm_|hf_|dop_v1_|shpat_|pypi-AgE)\w{16,}"
    r"|\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"  # a JSON Web Token
    r"|-----BEGIN [A-Z ]*PRIVATE KEY|AGE-SECRET-KEY-1"
)
"""The formats of known tokens and keys."""


def is_secret_name(name: str) -> bool:
    """Return whether a variable has the name of a secret."""
    return _NAME.search(name) is not None and _PUBLIC.search(name) is None


def is_secret_file(path: str) -> bool:
    """Return whether a file has the name of one with secrets."""
    return _FILE.fullmatch(path.rpartition("/")[2]) is not None


def is_secret(name: str, value: str, secrets: Collection[str] = ()) -> bool:
    """Return whether a variable holds a secret: by its name, its value, or as one of `secrets`."""
    return (
        name in secrets
        or URL_PASSWORD.search(value) is not None
        or TOKEN.search(value) is not None
        or (is_secret_name(name) and _SWITCH.fullmatch(value) is None)
    )
