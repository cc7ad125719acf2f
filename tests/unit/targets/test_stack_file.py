"""One command reads the stack file once."""

from __future__ import annotations

from pathlib import Path

import pytest

from lapwing.cli.main import run
from lapwing.stack import source
from lapwing.stack.source import Source

STACK = """
stack: shop
services: {api: {image: "shop/api:1", route: /}}
environments:
  argo:
    target: kubernetes
    domain: shop.example
    cloud: {provider: gcp, region: us-central1}
    repository: "@REPOSITORY@"
  kind: {target: kubernetes}
"""


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["deploy", "-e", "argo", "--dry-run"], 0),
        (["rollback", "-e", "argo"], 1),
        (["deploy", "-e", "kind", "--dry-run"], 1),
        (["deploy", "--dry-run"], 1),
        (["status"], 1),
    ],
    ids=str,
)
def test_stack_file_is_read_once(
    arguments: list[str], status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import subprocess

    bare = tmp_path / "desired.git"
    subprocess.run(["git", "init", "-q", "--bare", str(bare)], check=True)
    (tmp_path / "lapwing.yaml").write_text(STACK.replace("@REPOSITORY@", str(bare)))
    monkeypatch.setenv("LAPWING_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LAPWING_ACTOR", "tester")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none")
    reads: list[Path] = []
    read = source.read

    def count(path: Path) -> Source:
        reads.append(path)
        return read(path)

    monkeypatch.setattr(source, "read", count)
    assert run(["-C", str(tmp_path), *arguments]) == status
    assert reads == [tmp_path / "lapwing.yaml"]
