"""The JSON Schema of the stack file, for editors, made from the models. Pure, but for `main`.

Draft 2020-12. It allows the short forms as well, and the overlays of an environment: each overlay
is its model with nothing required and `null` allowed, as `null` removes a setting. Rules that need
more than one field are only in `lapwing check`.

`python -m lapwing.stack.schema --write docs` writes the published schema and the reference page; a
test compares both with the models.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from lapwing.stack import model, quantities

DIALECT = "https://json-schema.org/draft/2020-12/schema"
IDENTITY = "urn:lapwing:stack-file:1"
SCHEMA_FILE = Path("schema/stack.schema.json")
REFERENCE_FILE = Path("reference/stack-file.md")

_REFERENCE = "#/$defs/"


def json_schema() -> dict[str, Any]:
    """The schema of the whole file."""
    schema = _tidy(model.Stack.model_json_schema())
    definitions = schema["$defs"]
    overlays = definitions["Environment"]["properties"]
    for room, part in (("services", "Service"), ("resources", "Resource")):
        overlays[room]["additionalProperties"] = _overlay(definitions, part)
    return {"$schema": DIALECT, "$id": IDENTITY, "title": "Lapwing stack file", **schema}


def _overlay(definitions: dict[str, Any], part: str) -> dict[str, Any]:
    """A reference to the overlay of a definition, which is added with all that it refers to."""
    name = f"{part}Overlay"
    reference = {"$ref": _REFERENCE + name}
    if name in definitions:
        return reference
    definitions[name] = {}
    whole = definitions[part]
    definitions[name] = {
        "description": f"What of it is different in this environment. {whole['description']}",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            key: {
                "anyOf": [_in_overlay(definitions, value, inside_list=False), {"type": "null"}],
                "description": value["description"],
            }
            for key, value in whole["properties"].items()
        },
    }
    return reference


def _in_overlay(definitions: dict[str, Any], part: Any, *, inside_list: bool) -> Any:
    """A schema with its references led to overlays; items of a list stay whole, because a list
    replaces the one below it."""
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
    """What pydantic writes, without its titles, with defaults as people write them, closed where
    names have a pattern."""
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
    is_share = model.SHARE["pattern"] in patterns
    show = quantities.show_fraction if is_share else quantities.show_duration
    return show(field["default"])


def main() -> None:
    """Write the generated files below the folder of `--write`."""
    from lapwing.stack.reference import reference

    parser = argparse.ArgumentParser(prog="python -m lapwing.stack.schema")
    parser.add_argument("--write", type=Path, required=True, metavar="DOCS")
    folder: Path = parser.parse_args().write
    for name, text in ((SCHEMA_FILE, as_text()), (REFERENCE_FILE, reference())):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def as_text() -> str:
    """The schema as the published file has it."""
    return json.dumps(json_schema(), indent=2) + "\n"


if __name__ == "__main__":
    main()
