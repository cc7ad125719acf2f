"""The schema of a Terraform provider, from the library that its schema was published as.

The providers themselves cannot be had from package registries as programs, but their schemas can:
`@cdktf/provider-google` and `@cdktf/provider-mongodbatlas` on npm are generated from them, and the
`.jsii` file of each tells every resource, block and argument, its type, and whether it is required.
This reads that file and writes what `provider/main.go` serves to a real Terraform.

What is lost: which arguments exclude each other, and which values an argument may have. `ADDED` has
arguments of later versions, with their source.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

_LINK = re.compile(r"/docs/(resources|data-sources)/(\w+)#(\w+) ")
_LINK_OF_PROVIDER = re.compile(r"/docs#(\w+) ")
_META = {"connection", "count", "dependsOn", "forEach", "lifecycle", "provider", "provisioners"}

ADDED: dict[str, dict[str, Any]] = {
    # Since version 2.3: docs/resources/advanced_cluster.md, "Auto-Scaling with Effective Fields".
    "mongodbatlas_advanced_cluster": {"use_effective_fields": {"type": "bool"}},
    # Documented since version 2.9: docs/guides/gcp-privatelink-port-mapping-migration.md of the
    # provider's repository.
    "mongodbatlas_privatelink_endpoint": {"port_mapping_enabled": {"type": "bool"}},
}


def schema(jsii: Path, provider: str) -> dict[str, Any]:
    """Resources, data sources and the provider's own block."""
    types: dict[str, Any] = json.loads(jsii.read_text())["types"]
    found: dict[str, Any] = {"provider": {}, "resources": {}, "data": {}}
    for name, config in types.items():
        if not name.endswith("Config") or "cdktf.TerraformMetaArguments" not in config.get(
            "interfaces", ()
        ):
            continue
        link = next(filter(None, map(_link, config.get("properties", ()))), None)
        if link is None:
            continue
        room, kind, _ = link
        block = _block(types, config, top=True)
        _add_outputs(block, types.get(name.removesuffix("Config"), {}), config)
        full = f"{provider}_{kind}"
        block["attributes"] |= ADDED.get(full, {})
        block["attributes"].setdefault("id", {"type": "string", "computed": True})
        found["resources" if room == "resources" else "data"][full] = block
    own = next(
        (
            t
            for n, t in types.items()
            if n.endswith(".provider." + _camel(provider) + "ProviderConfig")
        ),
        None,
    )
    found["provider"] = _block(types, own) if own else {"attributes": {}, "blocks": {}}
    found["provider"]["attributes"].pop("alias", None)
    return found


def _camel(provider: str) -> str:
    return provider[:1].upper() + provider[1:]


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()


def _text(member: dict[str, Any]) -> str:
    docs = member.get("docs", {})
    return f"{docs.get('summary', '')} {docs.get('remarks', '')}"


def _link(member: dict[str, Any]) -> tuple[str, str, str] | None:
    links = _LINK.findall(_text(member))
    return links[-1] if links else None


def _block(
    types: dict[str, Any], interface: dict[str, Any], *, top: bool = False
) -> dict[str, Any]:
    block: dict[str, Any] = {"attributes": {}, "blocks": {}}
    for member in interface.get("properties", ()):
        own = _LINK_OF_PROVIDER.search(_text(member))
        link = _link(member)
        if top and member["name"] in _META:
            continue
        name = _snake(member["name"])
        if link is not None:
            name = link[2]
        elif own is not None:
            name = own[1]
        required = not member.get("optional", False)
        mode, inner = _shape(member["type"])
        if mode == "attribute":
            block["attributes"][name] = {"type": inner, "required": required}
        else:
            nested = types.get(inner)
            if nested is not None:
                one = mode == "one" and name != "timeouts"
                block["blocks"][name] = {
                    "mode": "single" if name == "timeouts" else "list",
                    "min": int(required),
                    "max": int(one),
                    "block": _block(types, nested),
                }
    return block


def _shape(kind: dict[str, Any]) -> tuple[str, Any]:
    """`attribute` and its type, or `one` or `many` and the name of the nested block."""
    if "union" in kind:
        others = [t for t in kind["union"]["types"] if t.get("fqn") != "cdktf.IResolvable"]
        return _shape(others[0])
    if "primitive" in kind:
        simple = {"string": "string", "number": "number", "boolean": "bool"}
        return "attribute", simple.get(kind["primitive"], "dynamic")
    if "collection" in kind:
        mode, inner = _shape(kind["collection"]["elementtype"])
        if mode != "attribute":
            return "many", inner
        return "attribute", ["map" if kind["collection"]["kind"] == "map" else "list", inner]
    if kind.get("fqn", "").startswith("cdktf."):
        return "attribute", "bool"
    return "one", kind["fqn"]


def _add_outputs(block: dict[str, Any], class_: dict[str, Any], config: dict[str, Any]) -> None:
    """What the cloud tells and nobody writes: properties of the class that are not arguments."""
    written = {m["name"] for m in config.get("properties", ())}
    for member in class_.get("properties", ()):
        name = member["name"]
        if member.get("static") or name in written or name.endswith("Input") or name in _META:
            continue
        snake = _snake(name)
        if snake not in block["blocks"] and snake not in block["attributes"]:
            kind = member["type"]
            simple = kind.get("primitive") or "collection" in kind
            inner = _shape(kind)[1] if simple else "dynamic"
            block["attributes"][snake] = {"type": inner, "computed": True}


def as_text(found: dict[str, Any]) -> str:
    """What `provider/main.go` reads."""
    return json.dumps(found)
