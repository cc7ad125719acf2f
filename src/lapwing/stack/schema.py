"""The JSON Schema of the stack file, for editors, generated from the models.

Draft 2020-12. It allows the short forms, and the overlays of an environment: each overlay is its
model with nothing required and `null` allowed, as `null` removes a setting. Rules about more than
one field are only in `lapwing check`.
"""

from __future__ import annotations

import json
from typing import Any

from lapwing.stack import fields, quantities
from lapwing.stack.model import Stack
from lapwing.stack.source import EXTENSION

DIALECT = "https://json-schema.org/draft/2020-12/schema"
IDENTITY = "urn:lapwing:stack-file:1"

_REFERENCE = "#/$defs/"


def json_schema() -> dict[str, Any]:
    """Generate the schema of the whole file."""
    schema = _tidy(Stack.model_json_schema())
    schema["patternProperties"] = {
        f"^{EXTENSION}": {"description": "Ignored: a place for anchors, as in Compose files."}
    }
    definitions = schema["$defs"]
    overlays = definitions["Environment"]["properties"]
    for section, part in (("services", "Service"), ("resources", "Resource")):
        overlays[section]["additionalProperties"] = _overlay(definitions, part)
    return {"$schema": DIALECT, "$id": IDENTITY, "title": "Lapwing stack file", **schema}


def _overlay(definitions: dict[str, Any], part: str) -> dict[str, Any]:
    """Return a reference to the overlay of a definition; add it with all that it refers to."""
    name = f"{part}Overlay"
    reference = {"$ref": _REFERENCE + name}
    if name in definitions:
        return reference
    definitions[name] = {}
    whole = definitions[part]
    definitions[name] = {
        "description": f"The settings that differ in this environment. {whole['description']}",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            key: {
                "anyOf": [_in_overlay(definitions, value, inside_list=False), {"type": "null"}],
                **({"description": about} if (about := value.get("description")) else {}),
            }
            for key, value in whole["properties"].items()
        },
    }
    return reference


def _in_overlay(definitions: dict[str, Any], part: Any, *, inside_list: bool) -> Any:
    """Point the references of a schema at overlays.

    Items of a list stay complete, because a list replaces the base's list.
    """
    if isinstance(part, list):
        return [_in_overlay(definitions, p, inside_list=inside_list) for p in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part and not inside_list:
        return _overlay(definitions, part["$ref"].removeprefix(_REFERENCE))
    changed = {
        key: _in_overlay(definitions, value, inside_list=inside_list or key == "items")
        for key, value in part.items()
        if key not in ("default", "description")
    }
    if "patternProperties" in changed and not inside_list:
        named = changed["patternProperties"]
        changed["patternProperties"] = {
            pattern: {"anyOf": [value, {"type": "null"}]} for pattern, value in named.items()
        }
    return changed


def _tidy(part: Any) -> Any:
    """Clean up pydantic's schema: no titles, readable defaults, no unknown names."""
    if isinstance(part, list):
        return [_tidy(p) for p in part]
    if not isinstance(part, dict):
        return part
    tidy = {key: _tidy(value) for key, value in part.items() if not _is_title(key, value)}
    if "gt" in tidy:
        tidy["exclusiveMinimum"] = tidy.pop("gt")
    if "patternProperties" in tidy:
        tidy["additionalProperties"] = False
    if tidy.get("default", 0) is None:
        del tidy["default"]
    if isinstance(tidy.get("default"), float):
        tidy["default"] = _as_written(tidy)
    return tidy


def _is_title(key: str, value: Any) -> bool:
    return key == "title" and isinstance(value, str)


def _as_written(field: dict[str, Any]) -> str:
    patterns = {field.get("pattern"), *(f.get("pattern") for f in field.get("anyOf", ()))}
    is_share = fields.PERCENTAGE["pattern"] in patterns
    show = quantities.show_fraction if is_share else quantities.show_duration
    return show(field["default"])


def as_text() -> str:
    """Return the text of the published schema file."""
    return json.dumps(json_schema(), indent=2) + "\n"
