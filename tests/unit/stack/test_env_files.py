"""`env_file`: variables of dotenv files in `env` of a service."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lapwing.errors import StackFileError, UsageError
from lapwing.settings import Settings
from lapwing.stack.load import LoadedStack, environments, load
from lapwing.targets.sources import check_env_files

STACK = """\
stack: shop
services:
  api: {image: "shop/api:1", route: /, env: {MODE: stack}, env_file: [a.env, config/b.env]}
  web: {image: "shop/web:1", route: /web}
environments:
  production:
    target: kubernetes
    services: {api: {env_file: p.env}}
"""


def written(folder: Path, **files: str) -> Path:
    """Write a stack file and dotenv files; those not given are empty."""
    path = folder / "lapwing.yaml"
    path.write_text(STACK)
    (folder / "config").mkdir(exist_ok=True)
    for name, file in (("a", "a.env"), ("b", "config/b.env"), ("p", "p.env")):
        (folder / file).write_text(files.get(name, ""))
    return path


def problems(path: Path) -> list[str]:
    with pytest.raises(StackFileError) as refused:
        load(path)
    return [f"{p.where.file.name}:{p.where.line}: {p.message}" for p in refused.value.problems]


def test_files_are_read_in_order_and_env_overrides_them(tmp_path: Path) -> None:
    first = (
        "\ufeff# Comment\n\nexport ONE=1 # one\nMODE=file\nBOTH=a\n"
        "QUOTED=\"a # b\\n'c'\" # d\nSINGLE='$x \\n'\nEMPTY=\n SPACED = text \n"
        'LINES="1\n2"\nURL=https://a.example/?x=1#y\r\nDOLLAR=${HOME}\n'
    )
    found = load(written(tmp_path, a=first, b="BOTH=b")).stack.services
    assert found["api"].env == {
        "MODE": "stack",
        "ONE": "1",
        "BOTH": "b",
        "QUOTED": "a # b\n'c'",
        "SINGLE": "$x \\n",
        "EMPTY": "",
        "SPACED": "text",
        "LINES": "1\n2",
        "URL": "https://a.example/?x=1#y",
        "DOLLAR": "${HOME}",
    }
    assert found["web"].env == {}


def test_environment_has_a_file_in_place_of_the_others(tmp_path: Path) -> None:
    path = written(tmp_path, a="A=1", p="P=1")
    expected = {"P": "1", "MODE": "stack"}
    [production] = environments(path)
    for loaded in (production, load(path, "production")):
        assert loaded.stack.services["api"].env == expected
    (tmp_path / "p.env").unlink()
    assert load(path).stack.services["api"].env == {"A": "1", "MODE": "stack"}
    with pytest.raises(StackFileError, match="does not exist"):
        load(path, "production")
    environments(path, env_files=False)


def test_problems_name_the_line_and_no_value(tmp_path: Path) -> None:
    lines = (
        "GOOD=1\n\n"
        "no equals hunter2\n"
        "A.B=hunter2\n"
        "SHELL_VARIABLE\n"
        "STRIPE=sk_live_hunter2hunter2\n"
        "ADMIN_PASSWORD=hunter2\n"
        "PORT=1\n"
        "DB_HOST=${db.host}\n"
        'OPEN="hunter2\n'
    )
    assert problems(written(tmp_path, a=lines)) == [
        "a.env:3: This line is not `NAME=value`.",
        "a.env:4: This line is not `NAME=value`.",
        "a.env:5: `SHELL_VARIABLE` has no value.",
        "a.env:6: `STRIPE` looks like a secret.",
        "a.env:7: `ADMIN_PASSWORD` looks like a secret.",
        "a.env:10: This line is not `NAME=value`.",
        "a.env:8: `PORT` is set by Lapwing.",
        "a.env:9: `db` is not in `needs` of `api`.",
    ]


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "does not exist"), (b"A=\0", "binary file"), (b"A=\xff", "not UTF-8")],
)
def test_unreadable_file_is_refused(content: bytes | None, problem: str, tmp_path: Path) -> None:
    path = written(tmp_path)
    (tmp_path / "a.env").unlink()
    if content is not None:
        (tmp_path / "a.env").write_bytes(content)
    [found] = problems(path)
    assert problem in found


def test_only_committed_files_are_deployed_except_to_local(tmp_path: Path) -> None:
    path = written(tmp_path, p="A=1")
    settings = Settings(home=tmp_path / "home")

    def git(*arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True, capture_output=True)

    def check(environment: str = "production") -> LoadedStack:
        loaded = load(path, environment)
        check_env_files(loaded, settings)
        return loaded

    git("init", "-q")
    check("local")
    for state in ("untracked", "ignored"):
        (tmp_path / ".gitignore").write_text("p.env\n" if state == "ignored" else "")
        with pytest.raises(UsageError, match=r"p\.env has uncommitted changes, or git ignores it"):
            check()
    (tmp_path / ".gitignore").write_text("")
    git("add", "-A")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "a")
    check()
    (tmp_path / "p.env").write_text("A=2")
    with pytest.raises(UsageError, match="uncommitted"):
        check()


def test_lines_that_end_in_crlf_are_counted_once(tmp_path: Path) -> None:
    path = written(tmp_path)
    (tmp_path / "a.env").write_bytes(b"GOOD=1\r\n\r\nA.B=1\r\n")
    assert problems(path) == ["a.env:3: This line is not `NAME=value`."]


def test_links_and_files_outside_of_the_repository_are_refused_at_the_key(tmp_path: Path) -> None:
    """Except for `local`, to which uncommitted files are deployed as well."""
    repository, outside = tmp_path / "repository", tmp_path / "outside.env"
    (repository / ".git").mkdir(parents=True)
    path = written(repository)
    outside.write_text("A=1")
    for file, expected in (
        ("link.env", "The path 'link.env' contains a symbolic link."),
        ("folder/a.env", "The path 'folder/a.env' contains a symbolic link."),
        ("../outside.env", "The file '../outside.env' is outside of the repository."),
        (str(outside), f"The file {str(outside)!r} is outside of the repository."),
    ):
        (repository / "link.env").unlink(missing_ok=True)
        (repository / "link.env").symlink_to("../outside.env")
        (repository / "folder").unlink(missing_ok=True)
        (repository / "folder").symlink_to(".")
        path.write_text(STACK.replace("p.env", file))
        with pytest.raises(StackFileError) as refused:
            environments(path)
        [problem] = refused.value.problems
        assert (problem.message, problem.where.line) == (expected, 8)
        path.write_text(STACK.replace("a.env, config/b.env", file).replace("p.env", "a.env"))
        load(path)


def test_static_service_has_no_env_file(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_text(
        "stack: shop\nservices:\n  web: {build: ., static: dist, route: /, env_file: a.env}\n"
    )
    assert problems(path) == [
        "lapwing.yaml:3: A static service has no process, so it cannot have `env_file`."
    ]
