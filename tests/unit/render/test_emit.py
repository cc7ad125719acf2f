"""Objects written as YAML are read back unchanged, and leaves keep their place."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from lapwing.render.kubernetes import emit
from lapwing.render.kubernetes.emit import Value
from lapwing.render.kubernetes.setting import Scope


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
def test_yaml_text_round_trips(value: Any) -> None:
    tree = {"a": value, "b": [value, {"c": value}]}
    assert yaml.safe_load(emit.document(tree)) == tree


def test_leaf_keeps_its_place_between_pieces_of_text() -> None:
    tree = {"a": Scope.PREFIX, "b": [{"c": Scope.NAMESPACE}, Scope.MANAGER]}
    assert emit.pieces(tree) == [
        "a: ", Value(Scope.PREFIX, 2), "\n",
        "b:\n",
        "- c: ", Value(Scope.NAMESPACE, 4), "\n",
        "- ", Value(Scope.MANAGER, 2), "\n",
    ]  # fmt: skip
