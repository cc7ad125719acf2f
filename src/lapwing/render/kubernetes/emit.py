"""Objects as YAML that people read, fast.

A general YAML library spends most of its time on what Kubernetes objects never have: anchors, tags,
flow styles, keys that are no text. This writes block style only: two spaces, lists flush with their
key, long text as literal blocks, and everything else that is not plainly text in JSON's quotes,
which are YAML's. The tests read it back with a real parser.
"""

from __future__ import annotations

import functools
import json
import re
from typing import Any

_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./@%+$=-]*(?: [A-Za-z0-9_./@%+$=(,)-]+)*")
"""Text that needs no quotes, whatever stands around it: no colon, no hash, no leading sign."""
_PAIR = re.compile(r"\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})")
_WORDS = frozenset(("true", "false", "yes", "no", "on", "off", "null", "y", "n"))
"""What YAML 1.1 or 1.2 reads as something else than text, in any case."""
_BLOCK = re.compile(r"[^\n \t][^\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\u2028\u2029\ud800-\udfff\r\t]*\n")
"""Text that a literal block keeps as it is: it begins with no blank, ends with one line break."""


def document(tree: dict[str, Any]) -> str:
    """One object as a YAML document, without the `---`."""
    lines: list[str] = []
    _mapping(tree, "", lines)
    return "\n".join(lines) + "\n"


def _mapping(tree: dict[str, Any], indent: str, lines: list[str]) -> None:
    for key, value in tree.items():
        if type(value) is str and "\n" not in value:
            lines.append(f"{indent}{_text(key)}: {_text(value)}")
        else:
            _entry(f"{indent}{_text(key)}:", value, indent, lines)


def _entry(head: str, value: Any, indent: str, lines: list[str]) -> None:
    """A key and its value; `indent` is where the key stands."""
    if isinstance(value, dict) and value:
        lines.append(head)
        _mapping(value, indent + "  ", lines)
    elif isinstance(value, list) and value:
        lines.append(head)
        _sequence(value, indent, lines)
    elif isinstance(value, str) and "\n" in value and is_block(value):
        lines.append(f"{head} |")
        inner = indent + "  "
        lines.extend([inner + line if line else "" for line in value[:-1].split("\n")])
    else:
        lines.append(f"{head} {_scalar(value)}")


def _sequence(items: list[Any], indent: str, lines: list[str]) -> None:
    inner = indent + "  "
    for item in items:
        if isinstance(item, dict) and item:
            start = len(lines)
            _mapping(item, inner, lines)
            lines[start] = f"{indent}- {lines[start][len(inner) :]}"
        elif isinstance(item, list) and item:
            start = len(lines)
            _sequence(item, inner, lines)
            lines[start] = f"{indent}- {lines[start][len(inner) :]}"
        else:
            _entry(f"{indent}-", item, indent, lines)


def is_block(value: str) -> bool:
    """Whether a literal block keeps a text as it is; Helm cuts blanks off the end of a document."""
    return _BLOCK.fullmatch(value) is not None and value[:-1] == value.rstrip()


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return _text(value)
    if value is True:
        return "true"
    if value is False:
        return "false"
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "{}"
    if isinstance(value, list):
        return "[]"
    return repr(value) if isinstance(value, int) else json.dumps(value)


@functools.lru_cache(maxsize=65536)
def _text(value: str) -> str:
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS and len(value) < 200:
        return value
    return _PAIR.sub(_one_character, json.dumps(value, ensure_ascii=True))


def _one_character(pair: re.Match[str]) -> str:
    """A character beyond 16 bits: JSON escapes it as two halves, YAML as one number."""
    high, low = (int(half, 16) for half in pair.groups())
    return f"\\U{0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00):08x}"
