"""Keyless signatures without the library; tests/integration/image/test_keyless has the services."""

from __future__ import annotations

import importlib.util

import pytest

from lapwing.errors import KeylessError
from lapwing.registry import keyless
from lapwing.registry.keyless import Identity


def test_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(keyless, "find_spec", lambda n: None if n == "sigstore" else find(n))
    with pytest.raises(KeylessError) as caught:
        Identity("ops@example.com", "https://accounts.google.com")
    assert "pip install 'lapwing-deploy[keyless]'" in str(caught.value.hint)
