"""Rules about environment variables: conflicts, secrets, references to resources."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lapwing.errors import did_you_mean
from lapwing.stack.cloud import is_managed
from lapwing.stack.environment import Environment
from lapwing.stack.model import Service, Stack
from lapwing.stack.resource_reference import PARTS, references, variable_of
from lapwing.stack.source import KeyPath, Violation

RESERVED = {"PORT", "HOST", "PATH", "GUNICORN_CMD_ARGS"}


def is_reserved(variable: str) -> bool:
    """Whether Lapwing itself sets a variable."""
    return variable in RESERVED or variable.startswith("LAPWING_")


def check_variables(stack: Stack, _: Environment) -> Iterator[Violation]:
    """A variable is set once, and not by Lapwing itself."""
    for name, service in stack.services.items():
        at: KeyPath = ("services", name)
        urls: dict[str, str] = {}
        for index, need in enumerate(service.needs):
            if need not in stack.resources:
                continue
            variable = stack.resources[need].variable or variable_of(need)
            if urls.setdefault(variable, need) != need:
                message = f"`{variable}` is the URL of both `{urls[variable]}` and `{need}`."
                hint = f"Set `variable:` of `{need}` to another name."
                yield Violation(message, (*at, "needs", index), hint)
        yield from _check_env(service, urls, at)
        for index, secret in enumerate(service.secret_names):
            path = (*at, "secrets", index)
            if is_reserved(secret):
                yield Violation(f"`{secret}` is set by Lapwing.", path, "Use another name.")
            if secret in urls:
                message = f"`{secret}` is the URL of `{urls[secret]}`; it is not a secret to set."
                hint = "Remove it here; LAPWING_RESOURCE_<NAME>_URL sets a URL of your own."
                yield Violation(message, path, hint)


def _check_env(service: Service, urls: dict[str, str], at: KeyPath) -> Iterator[Violation]:
    for variable in service.env:
        path = (*at, "env", variable)
        if variable in service.secret_names:
            message = f"`{variable}` is both in `env` and in `secrets`."
            yield Violation(message, path, "Keep it in `secrets`.", key=True)
        if is_reserved(variable):
            message = f"`{variable}` is set by Lapwing."
            yield Violation(message, path, "Use another name.", key=True)
        if variable in urls:
            hint = f"Set `variable:` of `{urls[variable]}` to another name."
            yield Violation(f"`{variable}` is the URL of `{urls[variable]}`.", path, hint, key=True)


def check_resource_names(stack: Stack, _: Environment) -> Iterator[Violation]:
    """No resource has the name of a service, or a variable that Lapwing sets."""
    for name, resource in stack.resources.items():
        if name in stack.services:
            message = f"`{name}` is the name of both a service and a resource."
            yield Violation(message, ("resources", name), "Rename one of them.", key=True)
        if is_reserved(resource.variable or ""):
            message = f"`{resource.variable}` is set by Lapwing."
            yield Violation(message, ("resources", name, "variable"), "Use another name.")


def check_command_secrets(stack: Stack, _: Environment) -> Iterator[Violation]:
    """No command contains a secret: every user of the machine can read commands with `ps`."""
    for name, service in stack.services.items():
        for secret in service.secret_names:
            if service.command and re.search(rf"\$\{{?{secret}\b", service.command):
                message = f"The command contains the secret `{secret}`; `ps` would show its value."
                hint = "Read the secret from the environment in the program."
                yield Violation(message, ("services", name, "command"), hint)


def check_references(stack: Stack, environment: Environment) -> Iterator[Violation]:
    """A reference such as `${db.host}` names a resource in `needs`, and a part of it."""
    for name, service in stack.services.items():
        for variable, value in service.env.items():
            at: KeyPath = ("services", name, "env", variable)
            for resource, part in references(value):
                if resource not in service.needs:
                    near = did_you_mean(resource, service.needs)
                    hint = near or f"Add it to `needs` of `{name}`, or remove the reference."
                    yield Violation(f"`{resource}` is not in `needs` of `{name}`.", at, hint)
                elif part not in PARTS:
                    known = ", ".join(f"`{p}`" for p in PARTS)
                    hint = did_you_mean(part, PARTS) or f"Parts: {known}."
                    yield Violation(f"`{resource}` has no part `{part}`.", at, hint)
                elif resource in stack.resources and is_managed(
                    stack.resources[resource], environment
                ):
                    message = f"`{resource}` is managed: its URL is a secret and has no parts."
                    hint = "Read its URL from the variable, or keep the parts in `secrets`."
                    yield Violation(message, at, hint)
