"""What a source is, by a real git."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lapwing.build.source import copy, read_source
from lapwing.errors import SourceError
from lapwing.system.git import read_change

from .conftest import Tree

ENVIRON = dict(os.environ)


def test_what_git_ignores_is_no_source(tree: Tree) -> None:
    tree.write({".gitignore": "node_modules/\n*.log\n", "a.py": "", "new.py": ""})
    tree.write({"node_modules/x/index.js": "", "a.log": ""})
    assert read_with_commit(tree).files == (".gitignore", "a.py", "new.py")
    tree.write({"untracked.py": ""})
    assert "untracked.py" in read_source(tree.folder, ENVIRON).files


def test_the_revision_and_its_changes(tree: Tree) -> None:
    tree.write({"api/a.py": "1", "web/b.ts": "1"})
    commit = tree.commit()
    assert read_source(tree.folder / "api", ENVIRON).revision == commit[:12]
    tree.write({"api/a.py": "2"})
    assert read_source(tree.folder / "api", ENVIRON).revision == f"{commit[:12]}-dirty"
    assert read_source(tree.folder / "web", ENVIRON).revision == commit[:12]


def test_files_left_out_are_no_source_and_no_change(tree: Tree) -> None:
    tree.write({"a.py": "1", "deploy/[x].yaml": "1"})
    commit = tree.commit()
    before = read_source(tree.folder, ENVIRON, ["deploy/[x].yaml"])
    assert before.files == ("a.py",)
    tree.write({"deploy/[x].yaml": "2"})
    tree.commit()
    after = read_source(tree.folder, ENVIRON, ["deploy/[x].yaml"])
    assert after.digest == before.digest
    assert read_change(tree.folder, ENVIRON, ["deploy/[x].yaml"]).commit == commit
    assert read_change(tree.folder, ENVIRON).commit != commit


def test_the_digest_is_of_names_kinds_and_contents(tree: Tree) -> None:
    tree.write({"a": "1", "b": "2"})
    digests = [read_with_commit(tree).digest]
    tree.write({"a": "2", "b": "1"})
    digests.append(read_with_commit(tree).digest)
    (tree.folder / "a").chmod(0o755)
    digests.append(read_with_commit(tree).digest)
    (tree.folder / "a").rename(tree.folder / "c")
    digests.append(read_with_commit(tree).digest)
    (tree.folder / "b").unlink()
    digests.append(read_with_commit(tree).digest)
    assert len(set(digests)) == len(digests)


def test_the_digest_is_not_of_time_place_or_commit(tree: Tree, tmp_path: Path) -> None:
    tree.write({"a": "1"})
    before = read_with_commit(tree)
    os.utime(tree.folder / "a", (1, 1))
    tree.commit()
    tree.folder.rename(tmp_path / "moved")
    after = read_source(tmp_path / "moved", ENVIRON)
    assert after.digest == before.digest
    assert after.revision != before.revision


def test_names_with_new_lines_and_other_letters(tree: Tree, tmp_path: Path) -> None:
    names = ["a\nb.py", 'quote".py', "ü é 漢.py", " space ", "-n"]
    tree.write({name: name for name in names})
    (tree.folder / os.fsdecode(b"latin-\xe9.py")).write_text("x")
    source = read_with_commit(tree)
    assert set(names) < set(source.files)
    copy(source, tmp_path / "copy")
    assert (tmp_path / "copy" / "a\nb.py").read_text() == "a\nb.py"
    assert (tmp_path / "copy" / os.fsdecode(b"latin-\xe9.py")).exists()


def test_links_stay_links_and_programs_programs(tree: Tree, tmp_path: Path) -> None:
    tree.write({"sub/run.sh": "#!/bin/sh\n"})
    (tree.folder / "sub" / "run.sh").chmod(0o755)
    (tree.folder / "link").symlink_to("sub/run.sh")
    (tree.folder / "folder").symlink_to("sub")
    copy(read_with_commit(tree), tmp_path / "copy")
    assert (tmp_path / "copy" / "link").readlink() == Path("sub/run.sh")
    assert (tmp_path / "copy" / "folder").is_symlink()
    assert os.access(tmp_path / "copy" / "sub" / "run.sh", os.X_OK)


@pytest.mark.parametrize("target", ["../outside", "/etc/passwd", "sub/../../x"])
def test_a_link_that_leads_out(tree: Tree, target: str) -> None:
    tree.write({"sub/a": ""})
    (tree.folder / "link").symlink_to(target)
    with pytest.raises(SourceError, match="outside of the source folder") as caught:
        read_with_commit(tree)
    assert target in caught.value.message


def test_links_in_a_circle_stay_links(tree: Tree, tmp_path: Path) -> None:
    """They lead nowhere, as a link to a missing file does."""
    for name, target in (("self", "self"), ("one", "other"), ("other", "one"), ("here", ".")):
        (tree.folder / name).symlink_to(target)
    copy(read_with_commit(tree), tmp_path / "copy")
    assert str((tmp_path / "copy" / "one").readlink()) == "other"
    assert str((tmp_path / "copy" / "self").readlink()) == "self"


def test_a_change_during_the_copy(tree: Tree, tmp_path: Path) -> None:
    tree.write({"a": "1", "b": "1"})
    source = read_with_commit(tree)
    tree.write({"b": "2"})
    with pytest.raises(SourceError, match="changed while it was built"):
        copy(source, tmp_path / "one")
    (tree.folder / "b").unlink()
    with pytest.raises(SourceError, match="changed while it was built"):
        copy(source, tmp_path / "two")


def test_no_repository(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    environ = {**ENVIRON, "GIT_CEILING_DIRECTORIES": str(tmp_path)}
    with pytest.raises(SourceError, match="not in a git repository") as caught:
        read_source(tmp_path / "plain", environ)
    assert "git init" in str(caught.value.hint)


def test_no_commit(tree: Tree) -> None:
    tree.write({"a": ""})
    with pytest.raises(SourceError, match="no commit yet") as caught:
        read_source(tree.folder, ENVIRON)
    assert "git commit" in str(caught.value.hint)


def test_no_files(tree: Tree) -> None:
    tree.commit()
    with pytest.raises(SourceError, match="no files"):
        read_source(tree.folder, ENVIRON)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no folder"):
        read_source(tmp_path / "nowhere", ENVIRON)


def test_a_submodule_is_part_of_the_source(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    lib = Tree(tmp_path / "lib")
    lib.git("init", "-q", "-b", "main")
    lib.write({"lib.py": "1"})
    lib.commit()
    tree.write({"a.py": ""})
    tree.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(lib.folder), "lib")
    tree.commit()
    before = read_source(tree.folder, ENVIRON)
    assert "lib/lib.py" in before.files
    tree.write({"lib/lib.py": "2"})
    after = read_source(tree.folder, ENVIRON)
    assert after.digest != before.digest
    assert after.revision.endswith("-dirty")
    tree.git("submodule", "deinit", "-q", "-f", "lib")
    with pytest.raises(SourceError, match="not checked out") as caught:
        read_source(tree.folder, ENVIRON)
    assert "git submodule update" in str(caught.value.hint)


def test_from_within_a_git_hook(tree: Tree, tmp_path: Path) -> None:
    tree.write({"a.py": ""})
    commit = tree.commit()
    hook = {**ENVIRON, "GIT_DIR": str(tmp_path / "other"), "GIT_INDEX_FILE": "/nonexistent"}
    assert read_source(tree.folder, hook).revision == commit[:12]


def test_a_pipe_is_no_source(tree: Tree) -> None:
    tree.write({"a": "", "b": ""})
    tree.commit()
    (tree.folder / "b").unlink()
    os.mkfifo(tree.folder / "b")
    with pytest.raises(SourceError, match="not a file that can be copied"):
        read_source(tree.folder, ENVIRON)


def read_with_commit(tree: Tree):  # type: ignore[no-untyped-def]
    tree.commit()
    return read_source(tree.folder, ENVIRON)
