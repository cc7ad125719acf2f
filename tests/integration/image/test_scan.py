"""Images are scanned before they are pushed.

The scanner is a program of the test, which records its arguments and the image that it was given;
the reports of the real ones are read in tests/unit/build/test_scan.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.registries import digest_of

from .conftest import Stack

pytestmark = pytest.mark.xdist_group("image")

STACK = """\
stack: shop
registry: {host}/{folder}
services:
  web: {{build: ./web, static: ., route: /}}
environments:
  production: {{target: kubernetes, domain: shop.example}}
"""
SCANNER = """\
#!/bin/sh
printf '%s\\n' "$@" > {folder}/arguments
for last; do :; done
cp -r "${{last#oci-dir:}}" {folder}/image
cat {folder}/report.json
"""
TRIVY = {
    "VulnerabilityID": "CVE-2024-5535",
    "PkgName": "libssl3",
    "InstalledVersion": "3.0.13",
    "FixedVersion": "3.0.15",
    "Severity": "CRITICAL",
}
GRYPE = {
    "vulnerability": {
        "id": "CVE-2024-5535",
        "severity": "Critical",
        "fix": {"versions": ["3.0.15"]},
    },
    "artifact": {"name": "libssl3", "version": "3.0.13"},
}
REPORTS: dict[str, Any] = {
    "trivy": {"SchemaVersion": 2, "Results": [{"Vulnerabilities": [TRIVY]}]},
    "grype": {"matches": [GRYPE]},
}
ARGUMENTS = {
    "trivy": ["image", "--quiet", "--format", "json", "--scanners", "vuln", "--input"],
    "grype": ["-o", "json"],
}


@pytest.fixture
def shop(stack: Stack, tmp_path: Path) -> Stack:
    stack.folder = tmp_path.name.replace("_", "-")[:40].rstrip("-")
    text = STACK.format(host=stack.server.host, folder=stack.folder)
    stack.write({"lapwing.yaml": text, "web/index.html": "shop"})
    stack.installation.environ["PATH"] = f"{tmp_path}/bin:/usr/bin:/bin"
    return stack


def install_scanner(name: str, folder: Path) -> None:
    (folder / "bin").mkdir()
    (folder / "report.json").write_text(json.dumps(REPORTS[name]))
    (folder / "bin" / name).write_text(SCANNER.format(folder=folder))
    (folder / "bin" / name).chmod(0o755)


@pytest.mark.parametrize("name", ["trivy", "grype"])
def test_image_with_a_severe_finding_is_not_pushed_until_it_is_accepted(
    shop: Stack, tmp_path: Path, name: str
) -> None:
    install_scanner(name, tmp_path)
    text = (shop.installation.folder / "lapwing.yaml").read_text()
    shop.write({"lapwing.yaml": f"{text}scan: {{fail_on: high}}\n"})
    message = shop.fail("-e", "production", "--push")
    assert f"{name} found 1 vulnerabilities of severity high or above" in message
    assert "critical libssl3 3.0.13: CVE-2024-5535, fixed in 3.0.15" in message
    assert shop.server.manifest(f"{shop.folder}/web", "latest") is None
    *arguments, layout = (tmp_path / "arguments").read_text().splitlines()
    assert arguments == ARGUMENTS[name]
    assert layout.startswith("oci-dir:/" if name == "grype" else "/")
    check_layout(tmp_path / "image")
    accepted = "{id: CVE-2024-5535, until: 2999-12-31, reason: no TLS}"
    shop.write({"lapwing.yaml": f"{text}scan: {{fail_on: high, accept: [{accepted}]}}\n"})
    done = shop.installation.run("image", "build", "-e", "production", "--push")
    assert "accepted until 2999-12-31: critical libssl3" in done.stderr
    shop.server.whole(f"{shop.folder}/web", "latest")


def check_layout(folder: Path) -> None:
    """An OCI layout with one image, which has each of its blobs."""

    def read(digest: str) -> bytes:
        content = (folder / "blobs" / digest.replace(":", "/")).read_bytes()
        assert digest_of(content) == digest
        return content

    [entry] = json.loads((folder / "index.json").read_bytes())["manifests"]
    manifest = json.loads(read(entry["digest"]))
    for blob in (manifest["config"], *manifest["layers"]):
        read(blob["digest"])


def test_images_are_scanned_only_if_the_stack_file_has_scan(shop: Stack, tmp_path: Path) -> None:
    assert shop.build("-e", "production", "--push")["web"]["pushed"]
    text = (shop.installation.folder / "lapwing.yaml").read_text()
    shop.write({"lapwing.yaml": f"{text}scan: {{fail_on: high}}\n"})
    assert "No vulnerability scanner" in shop.fail("-e", "production", "--push")
    assert shop.build("-e", "production")["web"]["digest"], "nothing is pushed, nothing is scanned"
