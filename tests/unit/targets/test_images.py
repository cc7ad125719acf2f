"""Pushes of images that are refused before a build."""

from __future__ import annotations

from pathlib import Path

import pytest

from lapwing.errors import UsageError
from lapwing.settings import Settings
from lapwing.stack.load import load
from lapwing.targets.images import ImageOptions, make_images


def test_push_without_attestations_is_refused_with_keyless_signatures(tmp_path: Path) -> None:
    """The signatures are attestations, so the images would be unsigned."""
    (tmp_path / "web").mkdir()
    (tmp_path / "lapwing.yaml").write_text(
        "stack: shop\nregistry: registry.example/team\n"
        "services: {web: {build: ./web, static: ., route: /}}\n"
        "signing: {keyless: {identity: ops@example.com, issuer: 'https://accounts.google.com'}}\n"
    )
    loaded = load(tmp_path / "lapwing.yaml", "local")
    options = ImageOptions(push=True, attestations=False)
    reports: list[str] = []
    with pytest.raises(UsageError, match="would push unsigned images") as refused:
        make_images(loaded, Settings(home=tmp_path / "home", environ={}), options, reports.append)
    assert "Omit `--no-attestations`" in str(refused.value.hint)
    assert not reports
