"""Write docs/schema/deploy.schema.json: the JSON of every verb that changes an environment.

`python -m docs.generate.deploy_schema` writes the file; a test compares it with the committed one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from lapwing.targets.base import DeployResult

FILE = Path(__file__).parents[1] / "schema/deploy.schema.json"


def deploy_schema() -> dict[str, Any]:
    """Return the JSON Schema of `DeployResult`; every key is always present."""
    schema: dict[str, Any] = msgspec.json.schema(DeployResult)
    for part in schema["$defs"].values():
        if "properties" in part:
            part["required"] = list(part["properties"])
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Result of lapwing deploy, up, promote, abort, rollback and down",
    }
    return head | schema


if __name__ == "__main__":
    FILE.write_text(json.dumps(deploy_schema(), indent=2) + "\n")
