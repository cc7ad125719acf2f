"""Rules about `branches` of an environment."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lapwing.stack.branch_names import MAX_TEMPLATE_LENGTH
from lapwing.stack.environment import Environment
from lapwing.stack.ingress_rules import DOMAIN
from lapwing.stack.model import Stack
from lapwing.stack.source import Violation

SHARED = {
    "domain": "the environments of branches cannot share a host name",
    "domains": "the environments of branches cannot share a host name",
    "redirects": "the environments of branches cannot share a host name",
    "desired": "environments of branches cannot be pulled from a repository",
    "backup": "the data of branches is not backed up",
}
"""Keys that an environment with `branches` cannot have, and why."""


def check_branches(stack: Stack, environment: Environment) -> Iterator[Violation]:
    """`branches` is for a machine other than `local`, without keys that branches cannot share."""
    wanted = environment.branches
    if wanted is None:
        return
    name = next((n for n, e in stack.environments.items() if e is environment), "")
    if environment.target != "machine":
        hint = "Set `target: machine`, or remove `branches`."
        yield Violation("`branches` is only for `target: machine`.", ("branches",), hint, key=True)
        return
    if name == "local":
        hint = "Add another environment with `branches`, such as `preview`; without `host` it is "
        hint += "on this machine, too."
        message = "`local` cannot have `branches`."
        yield Violation(message, ("branches",), hint, key=True)
    if len(name) > MAX_TEMPLATE_LENGTH:
        message = f"The name of an environment with `branches` has at most {MAX_TEMPLATE_LENGTH} "
        message += "characters."
        hint = "Choose a shorter name, such as `preview`: the name of the branch is added to it."
        yield Violation(message, ("environments", name), hint, key=True)
    for key, why in SHARED.items():
        if getattr(environment, key) and key in environment.model_fields_set:
            hint = "Remove it."
            if key == "domain":
                hint = "Write `branches: {domain: DOMAIN}`: each is served at BRANCH.DOMAIN."
            message = f"`{key}` cannot be combined with `branches`: {why}."
            yield Violation(message, (key,), hint, key=True)
    if wanted.domain is not None and not re.fullmatch(DOMAIN, wanted.domain):
        hint = "Write the host name only, such as `preview.example.com`; `BRANCH.` is added to it."
        yield Violation(f"{wanted.domain!r} is not a domain.", ("branches", "domain"), hint)
