"""The reference page of the stack file, made from the JSON Schema and the rules. Pure.

Every description on the page is written once, at the field or the rule that it describes.
"""

from __future__ import annotations

from typing import Any

from lapwing.stack import model, scanning
from lapwing.stack.rules import RULES
from lapwing.stack.schema import json_schema

_FORMS = {
    model.DURATION["pattern"]: "duration",
    model.SIZE["pattern"]: "size",
    model.CPU["pattern"]: "cpu",
    model.SHARE["pattern"]: "share",
    model.MONEY["pattern"]: "money",
    scanning.DAY["pattern"]: "day",
    model.NAME: "name",
    model.VARIABLE: "variable",
    model.PATH: "path",
    model.REQUEST: "path",
}
_TYPES = {"string": "text", "integer": "number", "number": "number", "boolean": "true or false"}
_PARTS = (
    "Service", "Build", "Health", "Replicas", "Needs", "Rollout", "Smoke", "Analysis",
    "Resource", "Environment", "Cloud", "Usage", "Release", "Forge", "Mirrored",
    "Scan", "Accepted",
)  # fmt: skip

_HEAD = """\
# The stack file

<!-- Made by `make docs` from src/lapwing/stack/model.py and rules.py. Change those. -->

`lapwing.yaml` says what a stack is. `lapwing init` writes a first one, `lapwing check` checks it.
Unknown keys are refused. Editors that know JSON Schema complete and check it with
[stack.schema.json](../schema/stack.schema.json).

```yaml
stack: company-inc
services:
  api:
    build: ./api
    command: gunicorn app:app
    route: /api
    health: /api/healthz
    replicas: 2
    needs: [db]
  web:
    build: ./web
    static: dist
    route: /
resources:
  db: {kind: mongodb, version: "8"}
```

## Forms of values

| form | written as |
|---|---|
| duration | `500ms`, `30s`, `10m`, `1h30m`, `2d`, or a number of seconds |
| size | `512Mi`, `10Gi` (powers of 1024), `1G` (powers of 1000), or a number of bytes |
| cpu | `250m` (thousandths of a core), `0.5`, `2` |
| share | `1%`, or a number from 0 to 1 |
| money | `250` or `249.50`, US dollars |
| day | `2027-03-31` |
| name | lower-case letters, digits and hyphens, beginning with a letter, at most 40 |
| variable | letters, digits and underscores, not beginning with a digit |
| path | begins with `/` |

YAML is read by version 1.2: `no`, `on` and `1:30` are text. A version such as `8.10` stays as it is
written, with or without quotes. A key that is written twice is refused.
"""

_OVERLAYS = """
## What differs in an environment

`services` and `resources` of an environment hold only what differs there. Maps are merged key by
key, lists and single values are replaced, and `null` removes a setting, so that its default holds.

```yaml
environments:
  staging:
    services:
      api: {replicas: 1, env: {LOG_LEVEL: debug}}
```

Every environment is checked each time, whichever one is deployed.
"""


_RELEASES = """
## A project that is no stack

`lapwing release` also releases a library or a tool. Its file is `lapwing-release.yaml`, with the
sections `registry`, `release` and `mirror` as above:

```yaml
project: lapwing
release:
  policy: stated
  version_file: src/lapwing/__init__.py
```
"""


def reference() -> str:
    """The page, in Markdown."""
    schema = json_schema()
    text = _HEAD + _table("The file", schema)
    for part in _PARTS:
        text += _table(part, schema["$defs"][part])
    text += _OVERLAYS + _RELEASES + "\n## What is checked besides\n\n"
    return text + "".join(f"- {_first_paragraph(rule.__doc__)}\n" for rule in RULES)


def _table(title: str, part: dict[str, Any]) -> str:
    required = part.get("required", [])
    rows = "".join(
        f"| `{key}` | {_form(field)} | {_default(field, key in required)} | {_meaning(field)} |\n"
        for key, field in part["properties"].items()
    )
    about = "\n".join(part["description"].splitlines())
    return (
        f"\n## {title}\n\n{about}\n\n| key | form | default | meaning |\n|---|---|---|---|\n{rows}"
    )


def _form(field: dict[str, Any]) -> str:
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        whole = name.removesuffix("Overlay")
        return (
            f"[{name}](#{name.lower()})"
            if whole == name
            else f"part of [{whole}](#{whole.lower()})"
        )
    if "anyOf" in field:
        forms = [_form(f) for f in field["anyOf"] if f.get("type") != "null"]
        return " or ".join(dict.fromkeys(forms))
    if "enum" in field:
        return ", ".join(f"`{v}`" for v in field["enum"])
    if "const" in field:
        return "`false`" if field["const"] is False else f"`{field['const']}`"
    if field.get("pattern") in _FORMS:
        return _FORMS[field["pattern"]]
    return _collection(field)


def _collection(field: dict[str, Any]) -> str:
    if field["type"] == "array":
        return f"list of {_form(field['items'])}"
    if field["type"] == "object":
        inner = [*field.get("patternProperties", {}).values(), field.get("additionalProperties")]
        return f"names to {_form(inner[0])}"
    return _TYPES[field["type"]]


def _default(field: dict[str, Any], required: bool) -> str:
    if required:
        return "required"
    default = field.get("default")
    if default is None:
        return ""
    if isinstance(default, list):
        return f"`[{', '.join(default)}]`"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _meaning(field: dict[str, Any]) -> str:
    text: str = field["description"].replace("\n", " ").replace("|", "\\|")
    examples = ", ".join(f"`{e}`" for e in field.get("examples", ()))
    return f"{text} Example: {examples}." if examples and examples not in text else text


def _first_paragraph(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split())
