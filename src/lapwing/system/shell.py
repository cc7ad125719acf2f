"""Commands for the POSIX shell."""

from __future__ import annotations

import re

BUILTINS = {
    ".", ":", "alias", "bg", "break", "cd", "command", "continue", "eval", "exec", "exit", "export",
    "fg", "getopts", "hash", "jobs", "local", "read", "readonly", "return", "set", "shift",
    "source", "times", "trap", "type", "ulimit", "umask", "unalias", "unset", "wait",
}  # fmt: skip
"""Commands that exist only inside the shell. Source: POSIX.1-2024, Shell & Utilities, 2.15
(special built-ins) and 1.7 (intrinsic utilities)."""


def with_exec(text: str) -> str:
    """Return a command with `exec` before its last program; unchanged if that would alter it.

    A shell then executes the program in its place, so signals reach the program itself. In
    `cd x && A=1 y` it becomes the last program. Where the shell has more to do than to run one
    program after the other (pipes, loops, traps), it stays, and what it runs gets the signals too.
    """
    last, quoted = 0, r"\$\{[^}`'\"]*\}|'[^']*'|\"(?:\\.|[^\"\\`$]|\$(?!\())*\"|\\."
    for token in re.finditer(rf"{quoted}|[<>]&|&&|\$\(|\s#|[;&|(){{}}`\n'\"]", text):
        if token[0] in ("&&", ";"):
            if not _program(text[last : token.start()]):
                return text
            last = token.end()
        elif not re.fullmatch(rf"{quoted}|[<>]&", token[0]):
            return text
    found = _program(text[last:])
    if found is None or found[1] in BUILTINS:
        return text
    at = last + found.start(1)
    return f"{text[:at]}exec {text[at:]}"


def _program(part: str) -> re.Match[str] | None:
    """Match one simple command, with its program after the assignments as group 1."""
    assignment = r"[A-Za-z_]\w*=(?:'[^']*'|\"[^\"]*\"|[^\s'\"])*"
    found = re.match(rf"\s*(?:{assignment}\s+)*([^\s<>=!-][^\s<>=]*)(?=\s|$)", part)
    words = ("if", "for", "while", "until", "case", "trap", "function", "select")
    return None if found is None or found[1] in words else found
