"""One ship for all crashes of a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.installation import installation
from tests.integration.crash.ship import Ship


@pytest.fixture(scope="module")
def ship(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ship]:
    """Each crash has to leave it whole."""
    root: Path = tmp_path_factory.mktemp("crash")
    with installation(root) as where:
        yield Ship(where)
