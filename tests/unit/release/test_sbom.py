"""The SBOM: its components, the same bytes each time, and CycloneDX's schema."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import jsonschema
import pytest
import referencing
from referencing.jsonschema import DRAFT7

from lapwing.errors import ReleaseError
from lapwing.release.sbom import image_component, read_components, sbom
from lapwing.stack.image import parse
from tests.needs import require

SHA512 = hashlib.sha512(b"x").digest()
UV = """
version = 1
[[package]]
name = "shop"
version = "0.1.0"
source = { editable = "." }
[[package]]
name = "Flask_Thing"
version = "3.0.0"
source = { registry = "https://index.example/simple" }
"""
REQUIREMENTS = """\
# pinned
Flask[async]==3.0.0 \\
    --hash=sha256:aaaa
-r more/dev.txt
gunicorn >= 20
zope.interface===6.0 ; python_version > "3.8"  # why
-e ./local
"""
NPM = {
    "lockfileVersion": 3,
    "packages": {
        "": {"name": "web", "version": "1.0.0"},
        "packages/own": {"name": "own", "version": "1.0.0"},
        "node_modules/own": {"resolved": "packages/own", "link": True},
        "node_modules/@scope/pkg": {
            "version": "1.2.3",
            "integrity": "sha512-" + base64.b64encode(SHA512).decode(),
        },
        "node_modules/a/node_modules/b": {"version": "2.0.0-rc.1+x", "integrity": "sha1-aaaa"},
        "node_modules/tool": {"version": "1.0.0", "dev": True},
    },
}


def below(**files: str) -> list[str]:
    named = {name.replace("__", "/").replace("_", "."): text for name, text in files.items()}
    return [component.purl for component in read_components(named.get)]


def test_lock_files() -> None:
    assert below(uv_lock=UV, requirements_txt=REQUIREMENTS) == ["pkg:pypi/flask-thing@3.0.0"]
    more = "pytest==8.0\n-r ../requirements.txt"
    assert below(requirements_txt=REQUIREMENTS, more__dev_txt=more) == [
        "pkg:pypi/flask@3.0.0",
        "pkg:pypi/pytest@8.0",
        "pkg:pypi/zope-interface@6.0",
    ]
    found = read_components({"package-lock.json": json.dumps(NPM)}.get)
    assert [(c.purl, c.sha512) for c in found] == [
        ("pkg:npm/%40scope/pkg@1.2.3", SHA512.hex()),
        ("pkg:npm/b@2.0.0-rc.1%2Bx", None),
    ]
    assert below() == []


@pytest.mark.parametrize(
    ("name", "text"),
    [("uv.lock", "["), ("package-lock.json", "{"), ("package-lock.json", "[]"),
     ("package-lock.json", '{"packages": {"node_modules/a": 1}}')],
)  # fmt: skip
def test_invalid_lock_file(name: str, text: str) -> None:
    with pytest.raises(ReleaseError, match=name):
        read_components({name: text}.get)


def test_image_purls() -> None:
    assert image_component(parse("redis:7")).purl == "pkg:docker/redis@7"
    found = image_component(parse("ghcr.io/a/b@sha256:" + "0" * 64)).purl
    assert found == f"pkg:docker/a/b@sha256%3A{'0' * 64}?repository_url=ghcr.io"


def document() -> bytes:
    python = read_components({"requirements.txt": REQUIREMENTS}.get)
    node = read_components({"package-lock.json": json.dumps(NPM)}.get)
    services = {"api": python, "worker": python, "web": node, "none": []}
    return sbom(
        "shop", "1.2.3", ("a" * 40, 1_700_000_000), services, [image_component(parse("redis:7"))]
    )


def test_sbom_is_reproducible() -> None:
    assert document() == document()
    found = json.loads(document())
    assert found["metadata"]["timestamp"] == "2023-11-14T22:13:20Z"
    references = [c["bom-ref"] for c in found["components"]]
    assert len(references) == len(set(references))
    known = {*references, "shop@1.2.3"}
    for edge in found["dependencies"]:
        assert edge["ref"] in known
        assert set(edge.get("dependsOn", ())) <= known


def test_sbom_matches_published_schema() -> None:
    folder = Path(require("cyclonedx-schema"))
    schemas = {file.name: json.loads(file.read_text()) for file in folder.glob("*.json")}
    named = [(f"http://cyclonedx.org/schema/{name.replace('.SNAPSHOT', '')}", schema)
             for name, schema in schemas.items()]  # fmt: skip
    named += [(f"http://cyclonedx.org/schema/{name}", schema) for name, schema in schemas.items()]
    registry = referencing.Registry().with_resources(
        [(name, DRAFT7.create_resource(schema)) for name, schema in named]
    )
    whole = schemas["bom-1.6.SNAPSHOT.schema.json"]
    validator = jsonschema.Draft7Validator(whole, registry=registry)
    validator.validate(json.loads(document()))
    broken = {**json.loads(document()), "serialNumber": "1"}
    assert not validator.is_valid(broken)
