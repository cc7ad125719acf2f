"""The SBOM: its components, the same bytes each time, and CycloneDX's schema."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
from pathlib import Path

import jsonschema
import pytest
import referencing
from referencing.jsonschema import DRAFT7

from lapwing.errors import ReleaseError
from lapwing.release.sbom import (
    image_component,
    installed_components,
    may_lack_packages,
    read_components,
    sbom,
)
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


def write_layer(path: Path, files: dict[str, str]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def test_packages_that_layers_install_are_listed(tmp_path: Path) -> None:
    venv = "opt/venv/lib/python3.12/site-packages/"
    metadata = "Metadata-Version: 2.1\nName: {}\nVersion: {}\n\nName: other\n"
    dependencies = write_layer(
        tmp_path / "1",
        {
            f"{venv}Flask_Thing-3.0.dist-info/METADATA": metadata.format("Flask_Thing", "3.0"),
            f"{venv}old-1.dist-info/METADATA": metadata.format("old", "1"),
            f"{venv}pkg/_vendor/six-1.dist-info/METADATA": metadata.format("six", "1"),
            "usr/lib/python3/dist-packages/gpg-2.dist-info/METADATA": metadata.format("gpg", "2"),
        },
    )
    program = write_layer(
        tmp_path / "2",
        {
            f"{venv}.wh.old-1.dist-info": "",
            f"{venv}shop-1.dist-info/direct_url.json": '{"url": "file:///src", "dir_info": {}}',
            f"{venv}shop-1.dist-info/METADATA": metadata.format("shop", "1"),
            f"{venv}fork-1.dist-info/direct_url.json": '{"url": "https://git.example/fork"}',
            f"{venv}fork-1.dist-info/METADATA": metadata.format("fork", "1"),
        },
    )
    assert [each.purl for each in installed_components([dependencies, program])] == [
        "pkg:pypi/flask-thing@3.0",
        "pkg:pypi/fork@1",
        "pkg:pypi/gpg@2",
    ]


@pytest.mark.parametrize(
    ("files", "unknown"),
    [
        ({"requirements.txt": "flask==3\n"}, True),
        ({"requirements.txt": "flask==3 --hash=sha256:aa\n"}, False),
        ({"requirements.txt": "flask==3\n", "uv.lock": UV}, False),
        ({"package-lock.json": json.dumps(NPM)}, False),
    ],
)
def test_incomplete_lock_files_are_recognized(files: dict[str, str], unknown: bool) -> None:
    assert may_lack_packages(files.get) == unknown


def test_image_purls() -> None:
    assert image_component(parse("redis:7")).purl == "pkg:docker/redis@7"
    found = image_component(parse("ghcr.io/a/b@sha256:" + "0" * 64)).purl
    assert found == f"pkg:docker/a/b@sha256%3A{'0' * 64}?repository_url=ghcr.io"


def document() -> bytes:
    python = read_components({"requirements.txt": REQUIREMENTS}.get)
    node = read_components({"package-lock.json": json.dumps(NPM)}.get)
    services = {"api": python, "worker": python, "web": node, "none": []}
    images = [image_component(parse("redis:7"))]
    return sbom("shop", "1.2.3", ("a" * 40, 1_700_000_000), services, images, ["worker", "api"])


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
    incomplete = ["shop@1.2.3#api", "shop@1.2.3#worker"]
    assert found["compositions"] == [{"aggregate": "unknown", "dependencies": incomplete}]


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
