"""Write object trees as YAML for people to read, fast, and with typed leaves in place.

A general YAML library spends most of its time on features that Kubernetes objects never use:
anchors, tags, flow styles, keys that are not text. This one writes block style only: two spaces,
lists flush with their key, long text as literal blocks, and everything that is not plain text in
JSON's quotes, which are also YAML's. The tests read it back with a real parser.

A tree may have leaves of `setting.py`. `pieces` leaves each in its place, as a `Value` between the
pieces of text, so no placeholder is ever searched for in rendered text.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from typing import Any

from lapwing.render.kubernetes.setting import Digest, Extra, Joined, Leaf, Scope, Setting

_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./@%+$=-]*(?: [A-Za-z0-9_./@%+$=(,)-]+)*")
"""Text that needs no quotes in any context: no colon, no hash, no leading sign."""
_PAIR = re.compile(r"\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})")
_WORDS = frozenset(("true", "false", "yes", "no", "on", "off", "null", "y", "n"))
"""Words that YAML 1.1 or 1.2 does not read as text, in any case."""
_BLOCK = re.compile(r"[^\n \t][^\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\u2028\u2029\ud800-\udfff\r\t]*\n")
"""Text that a literal block keeps unchanged: no leading blank, one line break at the end."""
_LEAVES = (Setting, Scope, Joined, Digest)


@dataclass(frozen=True, slots=True)
class Value:
    """A leaf as the value of a key or list item. `indent` is that of the lines below the key.

    An `Extra` is written as the lines of its items or fields, with this indent.
    """

    leaf: Leaf | Extra
    indent: int


def document(tree: dict[str, Any]) -> str:
    """Write one object without leaves as a YAML document, without the `---`."""
    out: list[Any] = []
    _mapping(tree, "", out)
    return "".join(out)


def pieces(tree: dict[str, Any]) -> list[str | Value]:
    """Write one object as a YAML document: pieces of text with a `Value` for each leaf."""
    out: list[str | Value] = []
    _mapping(tree, "", out)
    return out


def _mapping(tree: dict[str, Any], indent: str, out: list[Any]) -> None:
    for key, value in tree.items():
        if isinstance(value, Extra):
            out += [Value(value, len(indent)), "\n"]
        elif type(value) is str and "\n" not in value:
            out.append(f"{indent}{scalar(key)}: {scalar(value)}\n")
        else:
            _entry(f"{indent}{scalar(key)}:", value, indent, out)


def _entry(head: str, value: Any, indent: str, out: list[Any]) -> None:
    """Write a key and its value; `indent` is that of the key."""
    if isinstance(value, dict) and value:
        out.append(f"{head}\n")
        _mapping(value, indent + "  ", out)
    elif isinstance(value, list) and value:
        out.append(f"{head}\n")
        _sequence(value, indent, out)
    elif isinstance(value, str) and "\n" in value and is_block(value):
        out.append(f"{head} |\n{indented(value, len(indent) + 2)}")
    elif isinstance(value, _LEAVES):
        out += [f"{head} ", Value(value, len(indent) + 2), "\n"]
    else:
        out.append(f"{head} {scalar(value)}\n")


def _sequence(items: list[Any], indent: str, out: list[Any]) -> None:
    inner = indent + "  "
    for item in items:
        start = len(out)
        if isinstance(item, dict) and item:
            _mapping(item, inner, out)
        elif isinstance(item, list) and item:
            _sequence(item, inner, out)
        elif isinstance(item, Extra):
            out += [Value(item, len(indent)), "\n"]
            continue
        else:
            _entry(f"{indent}-", item, indent, out)
            continue
        out[start] = f"{indent}- {out[start][len(inner) :]}"


def is_block(value: str) -> bool:
    """Report whether a literal block keeps a text unchanged.

    Helm removes blanks at the end of a document.
    """
    return _BLOCK.fullmatch(value) is not None and value[:-1] == value.rstrip()


def indented(text: str, indent: int) -> str:
    """Indent the lines of a block; empty lines stay empty."""
    blanks = " " * indent
    return "".join([(blanks + line if line != "\n" else line) for line in text.splitlines(True)])


def is_plain(text: str) -> bool:
    """Report whether text needs no quotes."""
    return _PLAIN.fullmatch(text) is not None and text.lower() not in _WORDS and len(text) < 200


def scalar(value: Any) -> str:
    """Write a value without leaves on one line."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict | list):
        return "{}" if isinstance(value, dict) else "[]"
    return json.dumps(value)


def quoted(text: str) -> str:
    """Write text in quotes."""
    return _PAIR.sub(_one_character, json.dumps(text, ensure_ascii=True))


@functools.lru_cache(maxsize=65536)
def _text(value: str) -> str:
    return value if is_plain(value) else quoted(value)


def _one_character(pair: re.Match[str]) -> str:
    """Write a character beyond 16 bits: JSON escapes it as two halves, YAML as one number."""
    high, low = (int(half, 16) for half in pair.groups())
    return f"\\U{0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00):08x}"
