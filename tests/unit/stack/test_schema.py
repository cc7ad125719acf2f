"""The published schema and reference page match the models."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest

from lapwing.stack import schema
from lapwing.stack.reference import REFERENCE_FILE, SCHEMA_FILE, reference
from lapwing.stack.rules import RULES

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    whole = schema.json_schema()
    jsonschema.Draft202012Validator.check_schema(whole)
    return jsonschema.Draft202012Validator(whole)


def test_published_files_are_up_to_date() -> None:
    assert (DOCS / SCHEMA_FILE).read_text() == schema.as_text(), "run `make docs`"
    assert (DOCS / REFERENCE_FILE).read_text() == reference(), "run `make docs`"


def test_reference_page_lists_every_rule() -> None:
    page = reference()
    for rule in RULES:
        assert rule.__doc__, rule.__name__
        assert " ".join(rule.__doc__.split("\n\n")[0].split()) in page


@pytest.mark.parametrize(
    "service",
    [
        {"build": "./api", "command": "run", "route": "/", "replicas": 2, "health": "/healthz"},
        {"build": {"path": ".", "timeout": "5m"}, "replicas": {"min": 1, "max": 2, "cpu": "70%"}},
        {"build": ".", "rollout": {"analysis": False, "keep_old": 30}},
        {"build": ".", "env": {"PORTS": 8080, "MODE": "fast"}},
    ],
)
def test_schema_accepts_short_and_long_forms(
    validator: jsonschema.Draft202012Validator, service: dict[str, object]
) -> None:
    validator.validate({"stack": "shop", "services": {"api": service}})


def test_schema_accepts_extension_keys_at_the_top_level_only(
    validator: jsonschema.Draft202012Validator,
) -> None:
    service = {"build": ".", "command": "run"}
    validator.validate({"stack": "shop", "services": {"a": service}, "x-env": {"A": 1}})
    nested = {"a": {**service, "x-env": {}}}
    assert not validator.is_valid({"stack": "shop", "services": nested})


@pytest.mark.parametrize(
    "service",
    [
        {"build": ".", "replica": 2},
        {"build": ".", "route": "api"},
        {"build": ".", "timeout": "soon"},
        {"build": ".", "timeout": 0},
        {"build": ".", "kind": "server"},
        {"build": ".", "env": {"NOT A NAME": "x"}},
        {"build": {"timeout": "5m"}},
    ],
)
def test_schema_refuses_invalid_values(
    validator: jsonschema.Draft202012Validator, service: dict[str, object]
) -> None:
    assert not validator.is_valid({"stack": "shop", "services": {"api": service}})


def test_schema_of_overlay_requires_nothing_and_allows_null(
    validator: jsonschema.Draft202012Validator,
) -> None:
    def with_overlay(overlay: object) -> dict[str, object]:
        return {
            "stack": "shop",
            "services": {"api": {"build": "."}},
            "environments": {"staging": {"services": {"api": overlay}}},
        }

    assert validator.is_valid(with_overlay({"command": None, "build": {"timeout": "5m"}}))
    assert not validator.is_valid(with_overlay({"comand": None}))
    assert not validator.is_valid(with_overlay({"build": {"pyton": "3.12"}}))
