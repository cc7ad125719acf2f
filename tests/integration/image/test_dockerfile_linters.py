"""hadolint and checkov accept the generated Dockerfile of every kind of source."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.dockerfiles import dockerfile_of
from tests.needs import require

PROJECT = """
[project]
name = "api"
[project.optional-dependencies]
postgres = ["psycopg"]
"""
PACKAGE = '{"scripts": {"build": "vite build"}}'
SOURCES: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "hashes": ({"requirements.txt": "six==1.17.0 --hash=sha256:0\n"}, {"run": "python make.py"}),
    "unlocked": ({"requirements.txt": "six\n"}, {"env": {"COLOR": "blue"}}),
    "uv": ({"pyproject.toml": PROJECT, "uv.lock": "version = 1"}, {"extras": ("postgres",)}),
    "pyproject": ({"pyproject.toml": PROJECT}, {"secrets": ["LICENCE"]}),
    "npm": ({"package.json": PACKAGE, "package-lock.json": "{}"}, {}),
    "several-lines": (
        {"package.json": "{}", "package-lock.json": "{}"},
        {"run": "for f in a b; do\n  cat $f\ndone\n"},
    ),
}

EXCEPTIONS = {
    "DL3059": "Separate RUN instructions show which command failed, and the layers of the build "
    "stage are not in the image.",
}
"""Rules of hadolint that are not followed, with the reason."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders with the Dockerfile of each source."""
    top = tmp_path_factory.mktemp("dockerfiles")
    for name, (files, options) in SOURCES.items():
        (top / name).mkdir()
        text = dockerfile_of(top / name, files, "serve --port $PORT", **options)
        (top / name / "Dockerfile").write_text(text)
    return top


def test_hadolint_reports_nothing(folder: Path) -> None:
    files = sorted(folder.glob("*/Dockerfile"))
    assert len(files) == len(SOURCES)
    ignored = [word for rule in EXCEPTIONS for word in ("--ignore", rule)]
    checked = subprocess.run(
        [require("hadolint"), "--format", "json", *ignored, *files],
        capture_output=True,
        check=False,
    )
    assert json.loads(checked.stdout) == []
    assert checked.returncode == 0


def test_hadolint_finds_a_fault(folder: Path, tmp_path: Path) -> None:
    """The test above would fail for this change."""
    text = (folder / "hashes" / "Dockerfile").read_text()
    file = tmp_path / "Dockerfile"
    file.write_text(text.replace("USER 65532:65532", "USER root"))
    checked = subprocess.run([require("hadolint"), file], capture_output=True, check=False)
    assert b"Last USER should not be root" in checked.stdout


def test_checkov_reports_nothing(folder: Path) -> None:
    checked = subprocess.run(
        [require("checkov"), "--framework", "dockerfile", "--compact", "--quiet", "--output",
         "json", "--directory", folder],
        capture_output=True, check=False,
    )  # fmt: skip
    report = json.loads(checked.stdout)
    assert [(f["file_path"], f["check_id"]) for f in report["results"]["failed_checks"]] == []
    assert report["summary"]["passed"] > 10 * len(SOURCES)
    assert report["summary"]["parsing_errors"] == 0
