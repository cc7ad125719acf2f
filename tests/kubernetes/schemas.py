"""The published schemas of what Lapwing renders, as kubeconform reads them.

`python -m tests.kubernetes.schemas DIR` reads them from the modules that their projects publish
(through the Go module cache) and writes `<group>/<kind>_<version>.json`, strict: an unknown key is
an error. Kubernetes' own come from its OpenAPI document, the others from their custom resource
definitions.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Json = dict[str, Any]
KUBERNETES = "k8s.io/kubernetes@v1.36.3"
CRDS = {
    "github.com/argoproj/argo-rollouts@v1.9.2": "manifests/crds",
    "github.com/argoproj/argo-cd/v3@v3.5.7": "manifests/crds",
    "github.com/external-secrets/external-secrets@v1.3.2": "config/crds/bases",
    "sigs.k8s.io/gateway-api@v1.5.1": "config/crd/standard",
    "github.com/kyverno/kyverno@v1.15.2": "config/crds/kyverno",
    "github.com/sigstore/policy-controller@v0.13.1": "config",
}
_DEFINITIONS = "#/definitions/"
_INT_OR_STRING: Json = {"oneOf": [{"type": "string"}, {"type": "integer"}]}
_QUANTITY: Json = {"oneOf": [{"type": "string"}, {"type": "number"}]}


def main() -> None:
    target = Path(sys.argv[1])
    written = 0
    for (group, kind, version), schema in [*kubernetes(), *custom()]:
        path = target / (group or version) / f"{kind.lower()}_{version}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(schema))
        written += 1
    print(f"{written} schemas in {target}")


def folder(module: str) -> Path:
    """The folder of a module in the Go module cache. A module that wants a newer Go is there all
    the same; only its schemas are read."""
    asked = subprocess.run(
        ["go", "mod", "download", "-json", module], cwd="/", capture_output=True, check=False
    )
    found: Json = json.loads(asked.stdout)
    if "Dir" not in found:
        raise SystemExit(f"{module}: {found.get('Error', 'cannot be fetched')}")
    return Path(found["Dir"])


def kubernetes() -> Iterator[tuple[tuple[str, str, str], Json]]:
    """Every kind of Kubernetes itself, with the definitions that it refers to."""
    document = json.loads((folder(KUBERNETES) / "api/openapi-spec/swagger.json").read_text())
    definitions = {name: _strict(body) for name, body in document["definitions"].items()}
    quantity = "io.k8s.apimachinery.pkg.api.resource.Quantity"
    definitions[quantity] = _QUANTITY
    definitions["io.k8s.apimachinery.pkg.util.intstr.IntOrString"] = _INT_OR_STRING
    for name, body in document["definitions"].items():
        for known in body.get("x-kubernetes-group-version-kind", []):
            needed = _closure(name, definitions)
            schema = {"$ref": f"{_DEFINITIONS}{name}", "definitions": needed}
            yield (known["group"], known["kind"], known["version"]), schema


def custom() -> Iterator[tuple[tuple[str, str, str], Json]]:
    """Every custom resource of the other projects."""
    for module, inside in CRDS.items():
        for path in sorted((folder(module) / inside).glob("*.yaml")):
            for found in yaml.load_all(path.read_text(), yaml.CSafeLoader):
                if not found or found.get("kind") != "CustomResourceDefinition":
                    continue
                spec = found["spec"]
                for version in spec["versions"]:
                    whole = version["schema"]["openAPIV3Schema"]
                    # Every object has these, whether or not its definition names them.
                    whole["properties"] = {
                        "apiVersion": {"type": "string"},
                        "kind": {"type": "string"},
                        "metadata": {"type": "object"},
                        **whole.get("properties", {}),
                    }
                    schema = _strict(whole)
                    yield (spec["group"], spec["names"]["kind"], version["name"]), schema


def _closure(name: str, definitions: dict[str, Json]) -> dict[str, Json]:
    needed: dict[str, Json] = {}
    waiting = [name]
    while waiting:
        one = waiting.pop()
        if one not in needed:
            needed[one] = definitions[one]
            waiting += list(_references(definitions[one]))
    return needed


def _references(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict):
        if isinstance(tree.get("$ref"), str):
            yield tree["$ref"].removeprefix(_DEFINITIONS)
        for value in tree.values():
            yield from _references(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _references(value)


ALTERNATIVES = ("allOf", "anyOf", "not", "oneOf")
"""Keys with further conditions of the same object, which do not name all of its keys."""


def _strict(tree: Any, *, keys_are_names: bool = False, is_condition: bool = False) -> Any:
    """The same schema, in which an object with known keys has no others."""
    if isinstance(tree, list):
        return [_strict(one, is_condition=is_condition) for one in tree]
    if not isinstance(tree, dict):
        return tree
    if not keys_are_names and tree.get("x-kubernetes-int-or-string"):
        return _INT_OR_STRING
    made = {
        k: _strict(
            v,
            keys_are_names=k == "properties",
            is_condition=is_condition or (not keys_are_names and k in ALTERNATIVES),
        )
        for k, v in tree.items()
    }
    if keys_are_names:
        return made
    is_open = tree.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in tree
    if isinstance(tree.get("properties"), dict) and not is_open and not is_condition:
        made["additionalProperties"] = False
    return {k: v for k, v in made.items() if k not in ("format", "description", "default")}


if __name__ == "__main__":
    main()
