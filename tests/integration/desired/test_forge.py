"""The desired state on a real Gitea, over HTTP and with a token."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lapwing.desired.remote import TOKEN, Remote
from lapwing.desired.repository import DesiredRepository
from lapwing.errors import DesiredStateError
from lapwing.plan.model import Deployment, Document
from tests.gitea import Gitea
from tests.installation import GIT
from tests.integration.release.conftest import forge

__all__ = ["forge"]

pytestmark = [pytest.mark.xdist_group("gitea")]


def deployed(repository: DesiredRepository) -> str:
    document = Document(
        stack="shop", environment="test", deployment=Deployment(actor="tester"), target="kubernetes"
    )
    return repository.commit(document, expected=repository.newest("shop", "test"), files={})


def test_a_token_from_the_environment_pushes(forge: Gitea, tmp_path: Path) -> None:
    url = forge.repository("desired")
    home = os.environ | GIT
    commit = Remote(url, tmp_path / "one", home | {TOKEN: forge.token}).commit(deployed)
    again = Remote(url, tmp_path / "two", home | {TOKEN: forge.token})
    again.fetch()
    assert again.repository.newest("shop", "test") == commit


def test_a_token_that_is_none_is_told_and_not_shown(forge: Gitea, tmp_path: Path) -> None:
    url = forge.repository("desired-closed")
    remote = Remote(url, tmp_path / "home", os.environ | GIT | {TOKEN: "swordfish"})
    with pytest.raises(DesiredStateError) as caught:
        remote.commit(deployed)
    told = f"{caught.value.message} {caught.value.hint} {caught.value.detail}"
    assert "Authentication failed" in told or "could not read" in told
    assert "swordfish" not in told
