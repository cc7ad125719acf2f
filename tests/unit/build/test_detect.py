"""Which builder takes a source, by the names of its files."""

from __future__ import annotations

import pytest

from lapwing.build.detect import detect
from lapwing.errors import BuildError

NODE = ("package.json", "package-lock.json")


@pytest.mark.parametrize(
    ("files", "static", "kind"),
    [
        (("requirements.txt", "app.py"), False, "python"),
        (("pyproject.toml",), False, "python"),
        (("uv.lock", "pyproject.toml"), False, "python"),
        (NODE, False, "node"),
        (NODE, True, "node"),
        (("requirements.txt", *NODE), False, "python"),
        (("requirements.txt", *NODE), True, "node"),
        (("index.html",), True, "plain"),
        (("requirements.txt", "index.html"), True, "plain"),
    ],
)
def test_kind(files: tuple[str, ...], static: bool, kind: str) -> None:
    assert detect(files, static=static) == kind


def test_only_the_top_of_the_folder_counts() -> None:
    with pytest.raises(BuildError) as caught:
        detect(("sub/requirements.txt", "main.go"), static=False)
    for name in ("uv.lock", "requirements.txt", "pyproject.toml", "package.json"):
        assert name in str(caught.value.hint)


def test_no_lock() -> None:
    with pytest.raises(BuildError, match=r"package-lock\.json") as caught:
        detect(("package.json",), static=True)
    assert "npm install" in str(caught.value.hint)


@pytest.mark.parametrize("lock", ["yarn.lock", "pnpm-lock.yaml", "bun.lock", "bun.lockb"])
def test_locks_of_other_package_managers(lock: str) -> None:
    assert detect(("package.json", lock), static=True) == "node"


def test_modules_in_git() -> None:
    with pytest.raises(BuildError, match="node_modules") as caught:
        detect((*NODE, "node_modules/react/index.js"), static=True)
    assert ".gitignore" in str(caught.value.hint)
