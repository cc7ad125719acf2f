"""Environments of branches: one declared environment with `branches` is the template of many.

    environments: preview: {target: machine, branches: {max: 5}}
    branch feature/login  ->  environment `preview_feature-login-df7c7aeb`, template `preview`

The name is derived from the branch, and nothing else is recorded: two branches never have the same
name, and whether the branch of an environment still exists is found by deriving the names of all
branches. `_` is not allowed in declared names, so a derived name is never a declared one.
"""

from __future__ import annotations

import hashlib
import re

from lapwing.errors import UsageError

SEPARATOR = "_"
MAX_NAME_LENGTH = 40
"""Characters of the name of an environment."""
MAX_TEMPLATE_LENGTH = 20
DIGEST_LENGTH = 8
_ENDS_LIKE_DIGEST = re.compile(rf"(^|-)[0-9a-f]{{{DIGEST_LENGTH}}}$")


def environment_of(template: str, branch: str) -> str:
    """Return the name of the environment of a branch."""
    return f"{template}{SEPARATOR}{slug(branch, MAX_NAME_LENGTH - len(template) - 1)}"


def split(environment: str) -> tuple[str, str | None]:
    """Split a name into its declared environment and the label of the branch, None without one."""
    template, separator, rest = environment.partition(SEPARATOR)
    return template, rest if separator else None


def template_of(environment: str) -> str:
    """Return the name of the declared environment that an environment is described by."""
    return split(environment)[0]


def slug(branch: str, length: int) -> str:
    """Return a DNS label for a branch: its name, or a similar one that ends with a digest of it.

    A branch whose name ends like a digest gets another one, so that no branch can take the label of
    another.
    """
    text = re.sub("[^a-z0-9]+", "-", branch.lower()).strip("-")
    if text == branch and len(text) <= length and not _ENDS_LIKE_DIGEST.search(text):
        return text
    digest = hashlib.sha256(branch.encode()).hexdigest()[:DIGEST_LENGTH]
    return f"{text[: length - DIGEST_LENGTH - 1].strip('-')}-{digest}".lstrip("-")


def check_chosen(environment: str, branches: object) -> None:
    """Check that a branch is given for an environment with `branches`, and for no other.

    `branches` is the value in the stack file, which need not be valid. Raises UsageError.
    """
    template, branch = split(environment)
    if branch is None and branches is not None:
        raise UsageError(
            f"`-e {template}` needs a branch: it has one environment for each branch.",
            hint=f"Add `--branch NAME`; `lapwing status -e {template}` lists them.",
        )
    if branch is not None and branches is None:
        raise UsageError(
            f"The environment `{template}` has no `branches`.",
            hint=f"Omit `--branch`, or add `branches: {{max: 5}}` to `{template}` in the file.",
        )
