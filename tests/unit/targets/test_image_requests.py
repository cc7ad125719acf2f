"""The outlines of the images of a stack."""

from __future__ import annotations

from pathlib import Path

from lapwing.settings import read
from lapwing.stack.load import load
from lapwing.targets.image_requests import outlines

STACK = """\
stack: shop
services:
  api:
    build: {path: ., env: {BASE: debian:13}}
    dockerfile: Dockerfile
    command: run
    route: /
environments:
  production: {target: kubernetes, registry: registry.example.com, domain: shop.example.com}
"""


def test_outline_of_dockerfile_uses_build_arguments_of_the_stack_file(tmp_path: Path) -> None:
    (tmp_path / "lapwing.yaml").write_text(STACK)
    (tmp_path / "Dockerfile").write_text("ARG BASE=python:3.13\nFROM ${BASE}\nCOPY . /app\n")
    loaded = load(tmp_path / "lapwing.yaml", "production")
    [found] = outlines(loaded, read({"LAPWING_HOME": str(tmp_path / "home")}))
    assert found.base == "debian:13"
