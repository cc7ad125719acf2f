"""Groups of replicas in hierarchies that the agent's user may not look into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lapwing.agent import cgroups


def test_hierarchy_without_permission_has_no_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python raises PermissionError for a path in a folder that may not be entered."""

    def denied(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cgroups, "_hierarchies", lambda: [(tmp_path / "group", tmp_path)])
    monkeypatch.setattr(Path, "stat", denied)
    assert cgroups.remove("/home|shop/vps/api/blue-1/0")
