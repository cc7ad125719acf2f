"""Timestamps of RFC 3339, exact to the nanosecond: `datetime` keeps microseconds.

Container engines and the kubelet write them before each line of a log.
"""

from __future__ import annotations

import re
from datetime import datetime

_FORM = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")


def nanoseconds(text: str) -> int:
    """Return a timestamp with up to nine digits of a second as Unix time in nanoseconds.

    Raises ValueError.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError(f"not a timestamp: {text[:40]!r}")
    zone = "+00:00" if found[3] == "Z" else found[3]
    seconds = int(datetime.fromisoformat(found[1] + zone).timestamp())
    return seconds * 10**9 + int((found[2] or "").ljust(9, "0"))
