"""Whether a variable holds a secret, by its value: known shapes of tokens, randomness, passwords.

A name alone is no evidence: `TOKEN_TTL: 3600` and `PASSWORD_RESET_URL: /reset` are no secrets, and
`STRIPE: sk_live_...` is one. A name only decides about short values that people choose. Names with
PUBLIC hold what every browser gets.
"""

from __future__ import annotations

import math
import re
from collections import Counter

from lapwing.system.secret_names import TOKEN, URL_PASSWORD

_PUBLIC = re.compile(r"(^|_)(PUBLIC|PUBLISHABLE)(_|$)", re.IGNORECASE)
_CHECKSUM = re.compile(
    r"(^|_)(SHA\d*|COMMIT|REVISION|DIGEST|CHECKSUM|HASH|VERSION|U?UID|ID)$", re.IGNORECASE
)
_PASSWORD = re.compile(
    r"(SECRET|TOKEN|PASSWORD|PASSWD|PASSPHRASE|PWD|PASS|CREDENTIAL|(API|ACCESS|PRIVATE|SECRET)_?KEY)$",
    re.IGNORECASE,
)
_WORD = re.compile(r"[A-Za-z]{4,}")
_PASSWORD_NAME = re.compile(r"(PASSWORD|PASSWD|PASSPHRASE)$", re.IGNORECASE)
"""Under such a name even one word is a secret; under `..._SECRET` it may be the name of one."""
_SWITCH = re.compile(r"true|false|none|null", re.IGNORECASE)
_HARMLESS = re.compile(
    r"\d{0,4}|true|false|yes|no|on|off|none|null"  # switches, small numbers
    r"|[a-z]+://\S*|[./~]\S*|[\w.-]+\.[a-z]{2,6}|\S+/\S*"  # URLs, paths, hosts, files
    r"|\d+(\.\d+)?(ms|s|m|h|d|[kMG]i?)"  # durations and sizes
    r"|[A-Za-z]+([-_ .][A-Za-z]+)*",  # words
    re.IGNORECASE,
)
_HEXADECIMAL = re.compile(r"[0-9a-f]{32,}", re.IGNORECASE)
_RANDOM = re.compile(r"[A-Za-z0-9+/_=-]{20,}")
MIN_BITS_HEX, MIN_BITS = 3.0, 3.7
"""Shannon entropy for each character: words have less than 3.6, random text of 20 more than 3.8."""


def holds_secret(name: str, value: str) -> bool:
    """Return whether a value is a secret."""
    if TOKEN.search(value) or URL_PASSWORD.search(value):
        return True
    if _PUBLIC.search(name):
        return False
    chosen = _PASSWORD.search(name) is not None and _HARMLESS.fullmatch(value) is None
    word = _WORD.fullmatch(value) is not None and _SWITCH.fullmatch(value) is None
    chosen = chosen or (word and _PASSWORD_NAME.search(name) is not None)
    return chosen or (_CHECKSUM.search(name) is None and _is_random(value))


def _is_random(value: str) -> bool:
    """Return whether a value looks generated: no words, but letters and digits in disorder."""
    if _HEXADECIMAL.fullmatch(value):
        return _entropy(value) >= MIN_BITS_HEX
    kinds = [re.search(kind, value) for kind in ("[a-z]", "[A-Z]", "[0-9]")]
    return bool(_RANDOM.fullmatch(value)) and all(kinds) and _entropy(value) >= MIN_BITS


def _entropy(value: str) -> float:
    """Return the Shannon entropy of the characters in bits."""
    counts = Counter(value).values()
    return -sum(n / len(value) * math.log2(n / len(value)) for n in counts)
