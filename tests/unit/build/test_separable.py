"""Whether a Node source's modules can be shared between releases."""

from __future__ import annotations

from typing import Any

import pytest

from lapwing.build.node import separable


@pytest.mark.parametrize(
    ("package", "packages", "answer"),
    [
        ({}, {"": {}, "node_modules/a": {"resolved": "https://host/a.tgz"}}, True),
        ({"scripts": {"build": "x", "prepare": "husky"}}, {}, True),
        ({"scripts": {"postinstall": "patch-package"}}, {}, False),
        ({"workspaces": ["packages/*"]}, {}, False),
        ({}, {"node_modules/a": {"resolved": "libs/a", "link": True}}, False),
        ({}, {"node_modules/a": {"resolved": "file:libs/a.tgz"}}, False),
        ({"scripts": None}, {}, True),
    ],
)
def test_separable(package: dict[str, Any], packages: dict[str, Any], answer: bool) -> None:
    assert separable(package, {"packages": packages}) is answer
