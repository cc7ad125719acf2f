"""Objects written as YAML are read back as they were."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from lapwing.render.kubernetes import emit


@pytest.mark.parametrize(
    "value",
    [
        "\U00010000",
        "a\U0001f426b",
        "\\ud83d\\udc26",
        "on",
        "1e3",
        "a: b",
        "x\ny\n",
        "x\n\n",
        "\t",
        "",
    ],
)
def test_text_is_read_back(value: Any) -> None:
    tree = {"a": value, "b": [value, {"c": value}]}
    assert yaml.safe_load(emit.document(tree)) == tree
