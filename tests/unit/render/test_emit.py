"""Objects written as YAML are read back unchanged, and leaves keep their place."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from lapwing.render.kubernetes import emit
from lapwing.render.kubernetes.emit import Value
from lapwing.render.kubernetes.setting import Scope

NOT_PLAIN = [
    "=", "<<", "~", "null", "Null", "y", "n", "Yes", "NO", "On", "off", "TRUE", ".nan", ".NaN",
    ".inf", "-.INF", "+.inf", "7", "+7", "-7", "07", "0o7", "0x1F", "0b11", "1_000", "190:20:30",
    "190:20:30.15", ".5", "1.", "1.5e+3", "1e3", "2001-12-14", "2001-12-14t21:59:43.10-05:00",
    "2001-12-14 21:59:43.1 Z", "!a", "!!str", "&a", "*a", "?", "? a", "-", "- a", "-a", "@a", "`a",
    "%a", "|", ">", "[", "]", "{", "}", ",", "#", "a #b", ":", "a:", " a", "a ", "---", "...",
]  # fmt: skip
"""Text of every implicit type of YAML 1.1, and text that begins or ends like other syntax."""


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
        *NOT_PLAIN,
    ],
)
def test_yaml_text_round_trips(value: Any) -> None:
    tree = {"a": value, "b": [value, [value], {"c": value}], value: value}
    assert yaml.safe_load(emit.document(tree)) == tree


def test_leaf_keeps_its_place_between_pieces_of_text() -> None:
    tree = {"a": Scope.PREFIX, "b": [{"c": Scope.NAMESPACE}, Scope.MANAGER]}
    assert emit.pieces(tree) == [
        "a: ", Value(Scope.PREFIX, 2), "\n",
        "b:\n",
        "- c: ", Value(Scope.NAMESPACE, 4), "\n",
        "- ", Value(Scope.MANAGER, 2), "\n",
    ]  # fmt: skip
