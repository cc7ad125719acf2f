"""Snapshots of the working tree, with a real repository."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lapwing.errors import SourceError
from lapwing.server import source
from tests.installation import GIT

ENVIRON = {**os.environ, **GIT}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name in ("api/app.py", "web/index.html", "lapwing.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "First"]):
        subprocess.run(["git", *words], cwd=tmp_path, env=ENVIRON, check=True)
    return tmp_path


def test_files_that_changed_after_a_snapshot_are_refused(repository: Path) -> None:
    api, stack_file = repository / "api", repository / "lapwing.yaml"
    (api / "app.py").write_text("not committed yet")
    taken = source.take(repository, ENVIRON)
    source.check_unchanged(taken, (stack_file, api), ENVIRON)
    (repository / "web" / "index.html").write_text("of another service")
    source.check_unchanged(taken, (stack_file, api), ENVIRON)
    (api / "app.py").write_text("changed during the tests")
    (api / "new.py").write_text("new")
    with pytest.raises(SourceError, match=r"^api/app.py, api/new.py changed after the command"):
        source.check_unchanged(taken, (stack_file, api), ENVIRON)
