"""The program uv."""

from __future__ import annotations

import sys

import pytest
import uv as package
from uv._find_uv import UvNotFound

from lapwing.build.python import uv
from lapwing.errors import BuildError


def test_missing_uv_is_reported_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    def find() -> str:
        raise UvNotFound("Could not find the uv binary in any of these:\n - /usr/bin\n")

    monkeypatch.setattr(package, "find_uv_bin", find)
    with pytest.raises(BuildError) as missing:
        uv()
    assert missing.value.message == "The program `uv` was not found in its Python package."
    assert missing.value.hint is not None
    assert f"{sys.executable} -m pip install --force-reinstall uv" in missing.value.hint
    assert missing.value.detail is not None
    assert missing.value.detail.endswith(" - /usr/bin")
