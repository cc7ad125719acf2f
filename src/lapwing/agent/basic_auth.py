"""The users of basic authentication, which are in the encrypted store, for Envoy's routes."""

from __future__ import annotations

from collections.abc import Callable

from lapwing.agent.state import EnvironmentState
from lapwing.desired.secrets import SecretStore
from lapwing.errors import LapwingError, SecretError
from lapwing.plan.htpasswd import NO_USERS, htpasswd
from lapwing.plan.model import Document, SecretVersion

Users = Callable[[EnvironmentState, SecretVersion], str]
"""Returns the users of a secret of an environment as htpasswd lines."""


def no_users(_state: EnvironmentState, _given: SecretVersion) -> str:
    """Return no users."""
    return NO_USERS


def users_in(secrets: SecretStore) -> Users:
    """Return the users in a store: none, if a secret was removed or has become unreadable."""

    def users(state: EnvironmentState, given: SecretVersion) -> str:
        try:
            value = secrets.get(state.stack, state.environment, given.secret, given.version)
            return htpasswd(value)
        except (SecretError, ValueError):
            return NO_USERS

    return users


def check(document: Document, secrets: SecretStore) -> None:
    """Check the users of a document before it is deployed: without services, it needs none.

    Raises SecretError.
    """
    if not document.services:
        return
    for given in document.basic_auth:
        check_users(document.stack, document.environment, given, secrets)


def check_users(stack: str, environment: str, given: SecretVersion, secrets: SecretStore) -> None:
    """Check that Envoy accepts the users of a secret. Raises SecretError."""
    value = secrets.get(stack, environment, given.secret, given.version)
    try:
        htpasswd(value)
    except ValueError as error:
        raise SecretError(
            f"Secret {given.secret} of `access` cannot be used: {error}.",
            hint=f"Set it with `lapwing secret set {given.secret} -e {environment}`: one "
            "`name:password` per line.",
        ) from None


def problem(document: Document, secrets: SecretStore) -> str | None:
    """Return why clients cannot log in to what a document describes; None if they can."""
    try:
        check(document, secrets)
    except LapwingError as error:
        text = f"Clients cannot log in after the next change of the routes: {error}"
        return f"{text} {error.hint or ''}".rstrip()
    return None


def replace_removed(document: Document, secrets: SecretStore) -> Document:
    """Return a document with the current version of each secret of `access` that was removed.

    Raises SecretError if the store is damaged.
    """
    if not document.basic_auth:
        return document
    current = secrets.current(document.stack, document.environment)

    def present(given: SecretVersion) -> SecretVersion:
        try:
            secrets.get(document.stack, document.environment, given.secret, given.version)
        except SecretError:
            version = current.get(given.secret, given.version)
            return SecretVersion(secret=given.secret, version=version)
        return given

    return document.replace_users(present)
