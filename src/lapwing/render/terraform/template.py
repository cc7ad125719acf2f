"""Terraform configuration from templates: `templates/*.yaml`, one for each concern.

A template is Terraform's JSON syntax (https://developer.hashicorp.com/terraform/language/syntax/json)
written as YAML, which is easier to read. `//` is a comment there, inside the body of a block; it
must not be in the value of an attribute. `<name>` is replaced by a value, in keys too; where a text
is nothing else, the value may be of any type, and a key whose value is None is left out. Values are
not searched again. Text of the stack file that is not restricted to a pattern goes through
`literal`.
"""

from __future__ import annotations

import functools
from typing import Any

from lapwing.render.addresses import DATABASES, NODES
from lapwing.render.terraform.cloud import Project
from lapwing.system.package_data import NAME, fill, read
from lapwing.system.yaml_loader import read_yaml

Body = dict[str, Any]


def render(template: str, project: Project, **values: Any) -> Body:
    """Render a template with the names of a project and further values."""
    values |= {
        "folder": project.folder,
        "identity": project.identity,
        "region": project.region,
        "stack": project.stack,
        "shared": project.shared,
        "nodes": NODES,
        "databases": DATABASES,
    }
    rendered: Body = _fill(_read(template), values)
    return rendered


def merge(*bodies: Body) -> Body:
    """Merge trees; where two have the same key, mappings are merged and the later value wins."""
    merged: Body = {}
    for body in bodies:
        for key, value in body.items():
            known = merged.get(key)
            both = isinstance(known, dict) and isinstance(value, dict)
            merged[key] = merge(known, value) if both else value  # type: ignore[arg-type]
    return merged


def literal(text: str) -> str:
    """Escape text of the stack file, which Terraform would read as a template otherwise."""
    return text.replace("${", "$${").replace("%{", "%%{")


@functools.cache
def _read(template: str) -> Any:
    text = read("render.terraform", f"templates/{template}.yaml")
    return read_yaml(text)


def _fill(tree: Any, values: dict[str, Any]) -> Any:
    if isinstance(tree, dict):
        filled = {_fill(key, values): _fill(value, values) for key, value in tree.items()}
        return {k: v for k, v in filled.items() if v is not None or tree.get(k, "") is None}
    if isinstance(tree, list):
        return [_fill(item, values) for item in tree]
    if not isinstance(tree, str):
        return tree
    if whole := NAME.fullmatch(tree):
        return values[whole[1]]
    return fill(tree, **values)
