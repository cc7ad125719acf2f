"""The users of `access: {basic_auth: NAME}`: one `name:password` on each line of a secret.

Envoy accepts htpasswd files with SHA-1 hashes only. Passwords are hashed here; the secret itself is
encrypted. Source: Envoy's documentation, configuration/http/http_filters/basic_auth_filter.
"""

from __future__ import annotations

import base64
import hashlib
import re

NO_USERS = "#\n"
"""A list without users: every request is answered with 401."""
_SHA = re.compile(r"\{SHA\}[A-Za-z0-9+/]{27}=")
_HASH = re.compile(r"\{[A-Z0-9]+\}|\$(2[abxy]|apr1|[1567y]|argon2\w*)\$")


def htpasswd(text: str) -> str:
    """Return the users of a secret as Envoy reads them. Raises ValueError without any password."""
    users: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, password = line.partition(":")
        if not name or not colon or not password:
            raise ValueError(f"line {number} is not `name:password`")
        if name in users:
            raise ValueError(f"line {number} has a user that an earlier line has")
        if not _SHA.fullmatch(password):
            if password.startswith("{SHA}"):
                raise ValueError(
                    f"line {number}: the text after `{{SHA}}` is not a SHA-1 hash in base64 "
                    "(28 characters)"
                )
            if _HASH.match(password):
                raise ValueError(
                    f"line {number} has a hash that Envoy does not support, such as bcrypt: write "
                    "the password itself (secrets are encrypted) or a hash of `htpasswd -s`"
                )
            digest = hashlib.sha1(password.encode(), usedforsecurity=False).digest()
            password = "{SHA}" + base64.b64encode(digest).decode()
        users[name] = password
    if not users:
        raise ValueError("it has no `name:password` line")
    return "".join(f"{name}:{password}\n" for name, password in users.items())
