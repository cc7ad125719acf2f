"""What a Python source needs, read from its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from lapwing.build.dependencies import Dependencies, read_dependencies, satisfies
from lapwing.errors import BuildError


def read(folder: Path, **files: str) -> Dependencies:
    """Read from files, whose names are given with _ for the dot before the suffix."""
    names = {name.replace("__", "/").replace("_", "."): text for name, text in files.items()}
    for name, text in names.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return read_dependencies(folder, set(names))


@pytest.mark.parametrize(
    ("wanted", "answer"),
    [
        ("3.11", True),
        ("3.11.7", True),
        ("3.1", False),
        ("3.12", False),
        (">=3.11", True),
        (">= 3.11.8", False),
        (">=3.8,<4", True),
        (">=3.8,<3.11", False),
        ("~=3.10", True),
        ("~=3.10.2", False),
        ("==3.11.*", True),
        ("==3.11", False),
        ("!=3.11.*", False),
        ("!=3.11.6", True),
        ("<=3.11.7", True),
        (">3.11.7", False),
        ("pypy3.10", False),
        ("", False),
    ],
)
def test_satisfies(wanted: str, answer: bool) -> None:
    assert satisfies((3, 11, 7), wanted) is answer


def test_the_most_exact_file_is_used(tmp_path: Path) -> None:
    project = '[project]\nname = "a"\ndependencies = ["six"]\nrequires-python = ">=3.11"\n'
    found = read(tmp_path, pyproject_toml=project)
    assert (found.lock, found.python, found.local) == ("pyproject.toml", ">=3.11", False)
    found = read(tmp_path, pyproject_toml=project, requirements_txt="six\n")
    assert found.lock == "requirements.txt"
    found = read(tmp_path, pyproject_toml=project, requirements_txt="six\n", uv_lock="version = 1")
    assert (found.lock, found.files) == ("uv.lock", ("uv.lock", "pyproject.toml"))


def test_included_files_count(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        requirements_txt="-r more/web.txt\n",
        more__web_txt="-c pins.txt\nsix==1 --hash=sha256:00\n",
        more__pins_txt="",
        other_txt="",
    )
    assert sorted(found.files) == ["more/pins.txt", "more/web.txt", "requirements.txt"]
    assert found.hashed


def test_an_included_file_that_is_not_in_the_source(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"\.\./common\.txt"):
        read(tmp_path, requirements_txt="-r ../common.txt\n")


@pytest.mark.parametrize("line", ["./libs/a", "a @ file:libs/a", "./libs/a[extra]", "."])
def test_a_package_in_the_source(tmp_path: Path, line: str) -> None:
    assert read(tmp_path, requirements_txt=line).local


@pytest.mark.parametrize("line", ["six", "six>=1.0 # ./not", "git+https://host/a.git"])
def test_a_package_from_elsewhere(tmp_path: Path, line: str) -> None:
    assert not read(tmp_path, requirements_txt=line).local


@pytest.mark.parametrize("line", ["../shared", "/opt/a", "a @ file:///opt/a", "./x/../../a"])
def test_a_package_outside_of_the_source(tmp_path: Path, line: str) -> None:
    with pytest.raises(BuildError, match="outside of the service's folder"):
        read(tmp_path, requirements_txt=line)


def test_an_editable_package(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="editable") as caught:
        read(tmp_path, requirements_txt="-e ./libs/a\n")
    assert "without -e" in str(caught.value.hint)


def test_paths_in_a_uv_lock(tmp_path: Path) -> None:
    own = '[[package]]\nname = "me"\nsource = { editable = "." }\n'
    assert not read(tmp_path, uv_lock=own, pyproject_toml="").local
    inside = '[[package]]\nname = "a"\nsource = { editable = "libs/a" }\n'
    assert read(tmp_path, uv_lock=own + inside, pyproject_toml="").local
    with pytest.raises(BuildError, match=r"\.\./a"):
        read(tmp_path, uv_lock=inside.replace("libs/a", "../a"), pyproject_toml="")


@pytest.mark.parametrize("content", [b"[project\n", b"\xff\xfe\x00"])
def test_a_broken_pyproject(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pyproject.toml").write_bytes(content)
    with pytest.raises(BuildError, match=r"pyproject\.toml is not valid"):
        read_dependencies(tmp_path, {"pyproject.toml"})


PROJECT = """
[project]
name = "shop"
version = "1"
[project.optional-dependencies]
Post_Gres = ["psycopg"]
[dependency-groups]
worker = ["rq"]
"""


@pytest.mark.parametrize("lock", ["pyproject.toml", "uv.lock"])
def test_extras_and_groups_are_arguments_of_uv(tmp_path: Path, lock: str) -> None:
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "uv.lock").write_text("version = 1")
    files = {"pyproject.toml", lock}
    found = read_dependencies(tmp_path, files, ["post-gres"], ["worker"])
    assert found.chosen == ("--extra=post-gres", "--group=worker")
    assert read_dependencies(tmp_path, files).chosen == ()
    with pytest.raises(BuildError, match=r"mysql is not in \[project\.optional-dependencies\]"):
        read_dependencies(tmp_path, files, ["mysql"])
    with pytest.raises(BuildError, match=r"dev is not in \[dependency-groups\]") as refused:
        read_dependencies(tmp_path, files, [], ["dev"])
    assert refused.value.hint == "It has: worker."


def test_extras_beside_requirements_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "requirements.txt").write_text("six\n")
    with pytest.raises(BuildError, match=r"names post-gres, but requirements\.txt is installed"):
        read_dependencies(tmp_path, {"pyproject.toml", "requirements.txt"}, ["post-gres"])


def test_the_python_version_file_comes_first(tmp_path: Path) -> None:
    (tmp_path / ".python-version").write_text("\n3.12\n")
    (tmp_path / "requirements.txt").touch()
    assert read_dependencies(tmp_path, {"requirements.txt", ".python-version"}).python == "3.12"


@pytest.mark.parametrize("option", ["-r", "-c", "--requirement", "--constraint"])
def test_includes_in_continued_lines_count(tmp_path: Path, option: str) -> None:
    found = read(
        tmp_path, requirements_txt=f"# note \\\n{option}\\\n  base.txt\n", base_txt="six\n"
    )
    assert found.files == ("requirements.txt", "base.txt")
    assert found.rewritten == {"requirements.txt": f"# note \\\n{option} base.txt\n"}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_includes_count_in_every_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "requirements.txt").write_text("-r base.txt\r\nsix\r\n", encoding)
    (tmp_path / "base.txt").write_text("flask\n", encoding)
    found = read_dependencies(tmp_path, {"requirements.txt", "base.txt"})
    assert found.files == ("requirements.txt", "base.txt")
    assert found.rewritten == {}


def test_python_version_may_have_comments(tmp_path: Path) -> None:
    (tmp_path / ".python-version").write_text("# pinned\n\n3.12  # as in production\n3.11\n")
    (tmp_path / "requirements.txt").touch()
    assert read_dependencies(tmp_path, {".python-version", "requirements.txt"}).python == "3.12"


@pytest.mark.parametrize("name", ["poetry.lock", "pdm.lock", "Pipfile.lock", "Pipfile"])
def test_lock_files_of_other_tools_are_refused_by_name(tmp_path: Path, name: str) -> None:
    project = '[project]\nname = "a"\ndependencies = ["six"]\n'
    (tmp_path / "pyproject.toml").write_text(project)
    for files in ({name}, {name, "pyproject.toml"}):
        with pytest.raises(BuildError, match=f"{name} is not supported") as caught:
            read_dependencies(tmp_path, files)
        assert "requirements.txt" in str(caught.value.hint)
    (tmp_path / "requirements.txt").write_text("six\n")
    files = {name, "pyproject.toml", "requirements.txt"}
    assert read_dependencies(tmp_path, files).lock == "requirements.txt"


def test_poetry_dependencies_without_a_lock_are_refused(tmp_path: Path) -> None:
    poetry = '[tool.poetry.dependencies]\npython = "^3.11"\nflask = "^3.0"\n'
    with pytest.raises(BuildError, match=r"\[tool\.poetry\.dependencies\]"):
        read(tmp_path, pyproject_toml=poetry)
    read(tmp_path, pyproject_toml=poetry, requirements_txt="flask\n")
    read(tmp_path, pyproject_toml='[project]\nname = "a"\ndependencies = ["flask"]\n' + poetry)


def test_sources_by_path_count_and_stay_inside(tmp_path: Path) -> None:
    source = '[project]\nname = "a"\n[tool.uv.sources]\nown = {path = "%s"}\n'
    assert read(tmp_path, pyproject_toml=source % "libs/own").local
    with pytest.raises(BuildError, match="outside of the service's folder"):
        read(tmp_path, pyproject_toml=source % "../own")


def test_dynamic_dependencies_depend_on_the_whole_source(tmp_path: Path) -> None:
    dynamic = '[project]\nname = "a"\ndynamic = ["version", "dependencies"]\n'
    assert read(tmp_path, pyproject_toml=dynamic).local


@pytest.mark.parametrize(
    ("project", "package"),
    [
        ('[project]\nname = "a"\n', False),
        ('[project]\nname = "a"\n[build-system]\n', True),
        ("[build-system]\n[tool.ruff]\n", False),
        ('[project]\nname = "a"\n[build-system]\n[tool.uv]\npackage = false\n', False),
        ("[build-system]\n[tool.poetry]\npackage-mode = false\n", False),
        ("[build-system]\n[tool.poetry]\n", True),
    ],
)
def test_what_is_a_package(tmp_path: Path, project: str, package: bool) -> None:
    assert read(tmp_path, pyproject_toml=project, requirements_txt="").package is package
