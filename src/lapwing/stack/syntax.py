"""What libyaml says about a file that is not YAML, in words for people. Pure.

libyaml reports from inside its grammar ("did not find expected node content while parsing a flow
node"); the table says what that means to someone who wrote a file, and what to do.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from lapwing.errors import Problem, Where

_INDENT = "Keys of one mapping begin in the same column, indented with spaces."
_WORDS: tuple[tuple[str, str, str], ...] = (
    (
        "another document",
        "A second document begins here.",
        "A stack file is one document: remove `---`.",
    ),
    (
        "quoted scalar",
        "This quote is not closed.",
        "Add the closing quote.",
    ),
    (
        "unknown escape character",
        "This escape is not known.",
        "Write `\\\\` for a backslash, or use single quotes.",
    ),
    (
        "cannot start any token",
        "This character cannot stand here.",
        "Indent with spaces, not tabs; a text that begins with @, %, ` or a tab needs quotes.",
    ),
    (
        "mapping values are not allowed",
        "This `:` stands where no key can be.",
        "A text with `: ` in it needs quotes; or the line is indented too far.",
    ),
    (
        "undefined alias",
        "This alias is defined nowhere before it is used.",
        "A text that begins with `*` needs quotes.",
    ),
    (
        "flow sequence",
        "A list in `[...]` is not written to its end here.",
        "Separate its items with `,` and close it with `]`.",
    ),
    (
        "flow mapping",
        "A mapping in `{...}` is not written to its end here.",
        "Separate its keys with `,` and close it with `}`.",
    ),
    (
        "flow node",
        "A value is missing here.",
        "A `[` or `{` before this place may not be closed.",
    ),
    (
        "could not find expected ':'",
        "A `:` after the key is missing.",
        "Write `key: value`.",
    ),
    (
        "expected key",
        "A key is expected here.",
        _INDENT,
    ),
    (
        "block mapping",
        "This does not fit the mapping it stands in.",
        _INDENT,
    ),
    (
        "block collection",
        "This does not fit the list it stands in.",
        "Items of one list begin with `- ` in the same column.",
    ),
)


def explain(path: Path, error: yaml.YAMLError) -> Problem:
    """The problem that an error of the parser stands for; the first words that fit hold."""
    if not isinstance(error, yaml.MarkedYAMLError):
        reason = getattr(error, "reason", str(error))
        return Problem(f"This is not YAML: {reason}.", Where(path))
    said = " ".join(part for part in (error.problem, error.context) if part)
    message, hint = f"This is not YAML: {said}.", None
    for part, words, advice in _WORDS:
        if part in said:
            message, hint = words, advice
            break
    never_closed = "end of stream" in said and error.context_mark is not None
    mark = error.context_mark if never_closed else error.problem_mark or error.context_mark
    where = Where(path, mark.line + 1, mark.column + 1) if mark is not None else Where(path)
    return Problem(message, where, hint)
