"""A desired state that was rewritten or damaged: what runs goes on, and it can be mended."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from .conftest import Yard

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("desired state"),
    pytest.mark.usefixtures("unnoticed"),
]


@pytest.fixture(autouse=True)
def deployable(yard: Yard) -> Iterator[None]:
    """Each test begins with two deployments, and afterwards one more is possible."""
    yard.good("older")
    yard.good("newer")
    yield
    yard.good("afterwards")
    assert yard.get().text == "afterwards"
    assert yard.status()["problem"] is None


def test_a_force_push_is_followed_and_the_old_history_is_kept(yard: Yard) -> None:
    git = yard.repository.git
    head = yard.repository.head()
    assert head is not None
    older = git.run("rev-parse", f"{head}~1")
    tree = git.run("rev-parse", f"{older}^{{tree}}")
    other = git.run("commit-tree", tree, "-m", "Another history")
    git.run("update-ref", "refs/heads/main", other)
    yard.until(lambda: yard.get().text == "older")
    yard.until(lambda: git.run("for-each-ref", "refs/lapwing/rewritten"))
    assert git.run("cat-file", "-t", head) == "commit"
    assert "was rewritten" in (yard.environment / "events.jsonl").read_text()


def test_a_branch_that_is_gone(yard: Yard) -> None:
    (yard.repository.path / "refs" / "heads" / "main").unlink()
    (yard.repository.path / "packed-refs").unlink(missing_ok=True)
    yard.until(lambda: "no branch `main`" in (yard.status()["problem"] or ""))
    assert yard.where.call("status").returncode == 1
    assert yard.get().text == "newer"
    yard.where.run("doctor", "--repair")
    yard.until(lambda: yard.status()["problem"] is None)
    assert yard.wanted() == yard.released()


def test_objects_that_are_gone(yard: Yard) -> None:
    shutil.rmtree(yard.repository.path / "objects")
    (yard.repository.path / "objects").mkdir()
    assert yard.get().text == "newer"
    done = yard.where.call("doctor")
    assert done.returncode == 1
    assert "desired state" in done.stdout
    said = yard.where.call("deploy")
    assert "Traceback" not in said.stderr
    said = yard.where.run("doctor", "--repair")
    assert "damaged" in said.stderr + said.stdout, "where the old one is kept is said"
    assert yard.where.run("doctor").returncode == 0


def test_garbage_where_a_document_should_be(yard: Yard) -> None:
    git = yard.repository.git
    head = yard.repository.head()
    data = b"{}\n"
    path = f"{yard.name}/local/document.json"
    lines = (
        f"commit refs/heads/main\ncommitter Eve <eve@localhost> 1 +0000\ndata 4\noops\n"
        f"from {head}\nM 100644 inline {path}\ndata {len(data)}\n"
    ).encode()
    git.run("fast-import", "--quiet", given=lines + data + b"\n")
    yard.until(lambda: "cannot be understood" in (yard.status()["problem"] or ""))
    assert yard.get().text == "newer"
    yard.where.run("doctor", "--repair")
    yard.until(lambda: yard.status()["problem"] is None)
