"""Text of applications, before it leaves: without secret values and without terminal escapes.

An application may print a secret or a sequence that changes the user's terminal. Its text reaches
errors, events, the status and `lapwing logs` only through these functions.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus, urlsplit

MASK = "***"
MIN_MASKED_CHARACTERS = 4
"""Shorter values are not masked: they are ordinary words, such as `api`."""
MIN_CHARACTERS_IN_WORDS = 8
"""Shorter values are masked as whole words only: `test` is part of `latest`."""
_WORD_START = r"(?:(?<![^\W_])|(?<=%[0-9A-Fa-f]{2})|(?<=\\[bfnrt])|(?<=[\[0-9;:]m))"
"""Also after an encoded character of a URL, an escaped one of JSON, and a color of a terminal."""
_WORD_END = r"(?![^\W_])"
_COLORS = re.compile(r"\x1b\[[0-9;:]*m")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def escape_controls(text: str) -> str:
    r"""Remove colors, and write other control characters visibly (`\x1b`); keep tabs and lines."""
    text = _COLORS.sub("", text.replace("\r\n", "\n"))
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


def escape_name(name: str) -> str:
    """Write the name of a file on one line, as `escape_controls` does."""
    return escape_controls(name).replace("\n", "\\n")


def mask(text: str, values: Iterable[str]) -> str:
    """Replace secret values by `***`, also their lines, passwords of URLs and encoded forms."""
    for form in sorted({f for value in values for f in _forms(value)}, key=len, reverse=True):
        if form in text:
            text = _replace(text, form)
    return text


def _replace(text: str, form: str) -> str:
    if len(form) >= MIN_CHARACTERS_IN_WORDS:
        return text.replace(form, MASK)
    before = _WORD_START if form[0].isalnum() else ""
    after = _WORD_END if form[-1].isalnum() else ""
    return re.sub(f"{before}{re.escape(form)}{after}", MASK, text)


def _forms(value: str) -> Iterable[str]:
    try:
        password = urlsplit(value).password or ""
    except ValueError:
        password = ""
    parts = [value, password, *(line.strip() for line in value.splitlines())]
    for part in parts:
        forms = (
            part,
            quote(part, safe=""),
            quote(part),
            quote_plus(part),
            ascii(part)[1:-1],
            json.dumps(part)[1:-1],
            base64.b64encode(part.encode(errors="replace")).decode(),
        )
        for form in forms:
            if len(form) >= MIN_MASKED_CHARACTERS:
                yield form
