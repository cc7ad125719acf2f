"""The logins with which a cluster pulls images: those that this machine has for their registries.

They are copied to a Secret in the cluster and are neither in git nor in manifests. A login that
expires soon is not copied: a pod that starts tomorrow would have no use for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from lapwing.registry.credentials import Credentials, Login
from lapwing.settings import Settings
from lapwing.stack.image import HUB, HUB_LOGIN, Reference, parse

SHORT_LIVED_USERS = frozenset(
    {"oauth2accesstoken", "_dcgcloud_token", "AWS", "00000000-0000-0000-0000-000000000000"}
)
"""User names of access tokens that are valid for hours: Google Cloud, AWS and Azure."""


class Logins:
    """The logins of this machine for registries; each is looked up once."""

    def __init__(self, settings: Settings) -> None:
        self._credentials = Credentials(settings)
        self._reported: set[str] = set()

    def find(self, images: Iterable[str], report: Callable[[str], None]) -> dict[str, Login]:
        """Return the logins for the registries of images, by their key in Docker's config.json.

        Raises RegistryLoginError if there is one that cannot be read.
        """
        found: dict[str, Login] = {}
        for reference in map(parse, images):
            if _is_public(reference):
                continue
            login = asyncio.run(self._credentials.login(reference.api, reference.repository))
            if login is None:
                continue
            if login.identity or login.user in SHORT_LIVED_USERS:
                self._report_once(reference.registry, report)
                continue
            key = HUB_LOGIN if reference.registry == HUB else reference.registry
            # A registry may have a login for each repository.
            found[key if found.get(key, login) == login else reference.name] = login
        return found

    def _report_once(self, registry: str, report: Callable[[str], None]) -> None:
        if registry not in self._reported:
            self._reported.add(registry)
            report(
                f"The login for {registry} expires, so it is not copied to the cluster: give the "
                "nodes access to the registry."
            )


def _is_public(reference: Reference) -> bool:
    """Return whether anyone can pull an image: an official one, or one that nodes have already."""
    official = reference.registry == HUB and reference.repository.startswith("library/")
    return official or reference.registry == "localhost"
