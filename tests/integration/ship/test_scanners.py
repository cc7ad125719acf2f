"""The real scanners, offline, with small databases of their own forms."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lapwing.build.scan import Finding, Grype, Scanner, Severity, Trivy
from lapwing.errors import ScanError
from tests.installation import Installation
from tests.needs import require
from tests.scanners import LODASH, WERKZEUG, Known, grype_database, trivy_database

UV_LOCK = """\
version = 1
requires-python = ">=3.11"

[[package]]
name = "shop"
version = "0.1.0"
source = { virtual = "." }
dependencies = [{ name = "werkzeug" }]

[[package]]
name = "werkzeug"
version = "3.0.2"
source = { registry = "https://packages.example/simple" }
"""
PACKAGE_LOCK = """\
{"name": "page", "version": "1.0.0", "lockfileVersion": 3, "requires": true, "packages": {
  "": {"name": "page", "version": "1.0.0", "dependencies": {"lodash": "^4.17.10"}},
  "node_modules/lodash": {"version": "4.17.10"}}}
"""
LOCKS = {
    "a/requirements.txt": "werkzeug==3.0.1\nflask==3.0.0\n",
    "b/uv.lock": UV_LOCK,
    "c/package-lock.json": PACKAGE_LOCK,
    "d/requirements.txt": "werkzeug==3.0.3\n",
}
Database = Callable[[Path, list[Known]], dict[str, str]]


@pytest.fixture(params=["trivy", "grype"])
def scanner(request: pytest.FixtureRequest) -> tuple[str, Database]:
    """A scanner's name and how its database is made."""
    name: str = request.param
    require(name)
    return name, {"trivy": trivy_database, "grype": grype_database}[name]


def start(name: str, folder: Path, variables: dict[str, str]) -> Scanner:
    kind = {"trivy": Trivy, "grype": Grype}[name]
    home = folder / "home"
    home.mkdir(exist_ok=True)
    return kind(require(name), {"PATH": os.environ["PATH"], "HOME": str(home), **variables})


def expected(name: str, known: Known, version: str) -> Finding:
    """Trivy calls a vulnerability by its CVE, Grype by its advisory; each knows the other name."""
    first, other = (known.cve, known.ghsa) if name == "trivy" else (known.ghsa, known.cve)
    severity: Severity = "high" if known is WERKZEUG else "critical"
    return Finding(first, known.package, version, severity, known.fixed, (other,))


def test_scanner_reads_lock_files(scanner: tuple[str, Database], tmp_path: Path) -> None:
    name, database = scanner
    variables = database(tmp_path / "database", [WERKZEUG, LODASH])
    for path, text in LOCKS.items():
        (tmp_path / "source" / path).parent.mkdir(parents=True)
        (tmp_path / "source" / path).write_text(text)
    found = start(name, tmp_path, variables).scan(tmp_path / "source")
    assert sorted(found, key=lambda f: (f.package, f.version)) == [
        expected(name, LODASH, "4.17.10"),
        expected(name, WERKZEUG, "3.0.1"),
        expected(name, WERKZEUG, "3.0.2"),
    ]


def test_missing_database_is_an_error(scanner: tuple[str, Database], tmp_path: Path) -> None:
    """It is not a scan without findings."""
    name, database = scanner
    variables = database(tmp_path / "database", [])
    for path in (tmp_path / "database").rglob("*"):
        if path.is_file():
            path.unlink()
    (tmp_path / "source").mkdir()
    with pytest.raises(ScanError, match="Nothing was shipped") as caught:
        start(name, tmp_path, variables).scan(tmp_path / "source")
    assert caught.value.detail


STACK = """\
stack: shop
services:
  web: {build: ./web, static: ., route: /}
scan:
  fail_on: high
  accept:
    - {id: %s, until: %s, reason: the debugger is off}
"""


@pytest.mark.parametrize("named", ["cve", "ghsa"])
def test_ship_fails_until_finding_is_accepted(
    scanner: tuple[str, Database], named: str, tmp_path: Path
) -> None:
    """By either name of it, and not after its last day. The scanners' own lists are not read."""
    name, database = scanner
    place = Installation(tmp_path / "ci")
    only = tmp_path / "bin"
    only.mkdir()
    (only / name).symlink_to(require(name))
    place.environ["PATH"] = f"{only}:/usr/bin:/bin"
    place.environ |= database(tmp_path / "database", [WERKZEUG])
    identity = getattr(WERKZEUG, named)
    files = {"web/index.html": "<h1>shop</h1>", "web/tools/requirements.txt": "werkzeug==3.0.1\n"}
    ignored = {
        ".trivyignore": f"{WERKZEUG.cve}\n{WERKZEUG.ghsa}\n",
        ".grype.yaml": f"ignore: [{{vulnerability: {WERKZEUG.ghsa}}}]\n",
    }
    place.write({"lapwing.yaml": STACK % (identity, "2026-01-31"), **files, **ignored})
    failed = place.run("ship", status=1)
    assert ".trivyignore is ignored" in failed.stderr
    first = expected(name, WERKZEUG, "3.0.1").id
    assert f"{name} found 1 vulnerabilities of severity high or above" in failed.stderr
    assert f"werkzeug 3.0.1: {first}, fixed in 3.0.3" in failed.stderr
    assert "was accepted until 2026-01-31: the debugger is off" in failed.stderr
    assert not (place.home / "desired.git").exists()
    place.write({"lapwing.yaml": STACK % (identity, "2999-12-31")})
    done = place.json("ship")
    assert done["commit"]
    assert [(f["package"], f["accepted_until"]) for f in done["findings"]] == [
        ("werkzeug", "2999-12-31")
    ]
