"""Small sources in real git repositories, and a home to build them into."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lapwing import settings as lapwing_settings
from lapwing.build.builder import BuildResult, build
from lapwing.build.context import BuildRequest
from lapwing.settings import Settings

GIT = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.com",
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.com",
}


@dataclass
class Tree:
    """A git repository with files."""

    folder: Path

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.folder,
            env={**os.environ, **GIT},
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def commit(self) -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "A change")
        return self.git("rev-parse", "HEAD")


@dataclass
class Yard:
    """Builds a tree into a home."""

    tree: Tree
    settings: Settings
    heard: list[str] = field(default_factory=list)

    def build(self, **changes: object) -> BuildResult:
        wanted: dict[str, object] = {"stack": "s", "service": "api", "folder": self.tree.folder}
        request = BuildRequest(**{**wanted, **changes})  # type: ignore[arg-type]
        return build(request, self.settings, self.heard.append)

    def left(self) -> list[str]:
        """What unfinished builds and removals left in the home."""
        found = [*self.settings.home.rglob(".tmp-*"), *self.settings.home.rglob(".trash-*")]
        return [str(p) for p in found]

    def layers(self) -> list[Path]:
        return [p for p in self.settings.layers.glob("*") if not p.name.startswith(".")]

    def app(self, result: BuildResult) -> Path:
        release = result.release
        return self.settings.releases / release.stack / release.service / release.name / "app"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    folder = tmp_path / "source"
    folder.mkdir()
    made = Tree(folder)
    made.git("init", "-q", "-b", "main")
    return made


@pytest.fixture
def make_yard(tmp_path: Path, tree: Tree) -> Callable[[dict[str, str]], Yard]:
    """Commits files, and gives the place to build them."""

    def make(files: dict[str, str]) -> Yard:
        tree.write(files)
        tree.commit()
        environ = {**os.environ, "LAPWING_HOME": str(tmp_path / "home")}
        return Yard(tree, lapwing_settings.read(environ))

    return make
