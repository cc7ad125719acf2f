"""`lapwing init` on the folders of tests/golden/stack/init.

Each case is `folder/` and the expected `lapwing.yaml`. LAPWING_GOLDEN_WRITE=1 rewrites it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from lapwing.cli.check import command as check
from lapwing.cli.context import Context
from lapwing.cli.init import command
from lapwing.cli.output import Printer
from lapwing.errors import LapwingError, UsageError
from lapwing.settings import Settings
from lapwing.stack.compose import read
from lapwing.stack.detect import detect
from lapwing.stack.detect_files import read_files
from lapwing.stack.detect_volumes import volumes
from lapwing.stack.draft import text
from lapwing.stack.load import load
from lapwing.stack.program import name_from
from lapwing.stack.source import scalar

CASES = Path(__file__).parents[2] / "golden/stack/init"
COMMIT = "  {}. `git add lapwing.yaml && git commit -m 'Add lapwing.yaml'`"


def init(folder: Path, *arguments: str) -> None:
    """Run the command; let errors propagate."""
    context = Context(Settings(home=folder / "home"), folder, Printer(color=False))
    CliRunner().invoke(command, list(arguments), obj=context, catch_exceptions=False)


@pytest.mark.parametrize("case", sorted(p.name for p in CASES.iterdir()))
def test_init_writes_expected_file_that_loads(case: str, tmp_path: Path) -> None:
    folder = tmp_path / case
    shutil.copytree(CASES / case / "folder", folder)
    init(folder)
    written = (folder / "lapwing.yaml").read_text()
    expected = CASES / case / "lapwing.yaml"
    if os.environ.get("LAPWING_GOLDEN_WRITE"):
        expected.write_text(written)
    assert written == expected.read_text()
    context = Context(Settings(home=tmp_path / "home"), folder, Printer(color=False))
    checked = CliRunner().invoke(check, [], obj=context, catch_exceptions=False)
    assert checked.exit_code == 0


def test_init_keeps_existing_file_without_force(tmp_path: Path) -> None:
    shutil.copytree(CASES / "flask/folder", tmp_path, dirs_exist_ok=True)
    path = tmp_path / "lapwing.yaml"
    path.write_text("mine")
    with pytest.raises(UsageError, match="already exists"):
        init(tmp_path)
    assert path.read_text() == "mine"
    init(tmp_path, "--force")
    assert load(path).stack.services["app"].command == "gunicorn --threads 8 app:app"


def test_init_keeps_dangling_link(tmp_path: Path) -> None:
    shutil.copytree(CASES / "flask/folder", tmp_path, dirs_exist_ok=True)
    (tmp_path / "lapwing.yaml").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError):
        init(tmp_path)


def test_init_prints_the_next_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "package.json").write_text('{"scripts": {"start": "node ."}}')
    init(tmp_path)
    steps = capsys.readouterr().err.partition("Next:\n")[2].splitlines()
    assert "but no package-lock.json" in steps[0]
    assert "Run `npm install` and commit package-lock.json" in steps[0]
    assert steps[1].startswith("  2. `git init`")
    assert steps[2:] == [COMMIT.format(3), "  4. `lapwing up`"]
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "package-lock.json").write_text("{}")
    init(tmp_path, "--force")
    steps = capsys.readouterr().err.partition("Next:\n")[2].splitlines()
    assert steps[0].endswith("that the services need: package-lock.json, package.json")
    assert steps[1:] == [COMMIT.format(2), "  3. `lapwing up`"]


def test_init_names_only_the_stack_file_if_the_rest_is_committed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "apps"
    shutil.copytree(CASES / "flask/folder", folder)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=A", "-c", "user.email=a@example.com"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "First"]):
        subprocess.run([*git, *arguments], check=True)
    init(folder)
    steps = capsys.readouterr().err.partition("Next:\n")[2].splitlines()
    assert steps == [COMMIT.format(1), "  2. `lapwing up`"]


def test_init_does_not_recommend_to_commit_a_file_of_secrets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "flask"
    shutil.copytree(CASES / "flask/folder", folder)
    (folder / ".env").write_text("TOKEN=a\n")
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    init(folder)
    steps = capsys.readouterr().err.partition("Next:\n")[2].splitlines()
    assert "Do not commit .env: add it to .gitignore" in steps[0]
    assert "`git add` the uncommitted files" in steps[1]
    assert ".env" not in steps[1]


def test_init_notes_a_build_script_that_it_does_not_use(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"scripts": {"build": "cp src/index.html dist/"}}')
    (tmp_path / "src").mkdir()
    (tmp_path / "src/index.html").write_text("<p>")
    init(tmp_path)
    assert "the `build` script of package.json is not used" in (
        (tmp_path / "lapwing.yaml").read_text().replace("\n# ", " ")
    )


def test_init_writes_nothing_without_services(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No service detected"):
        init(tmp_path)
    with pytest.raises(LapwingError):
        init(tmp_path, "not-there")
    assert list(tmp_path.iterdir()) == []


def test_init_writes_nothing_that_check_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(CASES / "flask/folder", tmp_path, dirs_exist_ok=True)
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr("lapwing.stack.draft.draft", lambda _: "stack: shop\nservices: {}\n")
    with pytest.raises(LapwingError, match="would be invalid") as refused:
        init(tmp_path)
    assert "`services` is empty" in str(refused.value.detail)
    assert sorted(tmp_path.iterdir()) == before


def test_invalid_files_become_notes() -> None:
    found = detect("x", {"package.json": "{", "api/package.json": "[1]", "compose.yaml": "a: ["})
    assert found.services == []
    assert any("compose.yaml" in note for note in found.notes)


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (
            b"services:\n  web: {build: .}\n x: [\n",
            "not a valid Compose file; ignored: invalid YAML in",
        ),
        (b"services: {web: {build: .}}\n# \xff", "not read, because it is"),
    ],
)
def test_init_reports_compose_file_that_it_ignores(
    content: bytes, note: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "compose.yaml").write_bytes(content)
    with pytest.raises(UsageError, match="No service detected") as caught:
        init(tmp_path)
    assert f"compose.yaml: {note}" in str(caught.value.detail)
    shutil.copytree(CASES / "flask/folder", tmp_path, dirs_exist_ok=True)
    capsys.readouterr()
    init(tmp_path)
    assert f"compose.yaml: {note}" in capsys.readouterr().err
    assert f"# compose.yaml: {note}" in (tmp_path / "lapwing.yaml").read_text()


@pytest.mark.parametrize(
    ("limits", "resources"),
    [
        ("cpus: 0.0001", "cpu: 1m"),
        ("cpus: .5", "cpu: 500m"),
        ("cpus: '0'", None),
        ("cpus: 0.0", None),
        ("cpus: 1e-5", None),
        ("cpus: -1", None),
        ("cpus: .nan", None),
        ("mem_limit: 1.5g", "memory: 1536Mi"),
        ("mem_limit: 0.5 GiB", "memory: 512Mi"),
        ("mem_limit: 1", "memory: 1Mi"),
        ("mem_limit: 1.0", "memory: 1Mi"),
        ("mem_limit: 0", None),
        ("mem_limit: -1", None),
        ("mem_limit: 2tb", "memory: 2097152Mi"),
        ("mem_limit: ${LIMIT:-1g}", None),
        ("deploy: {resources: {limits: {cpus: 0.0004, memory: 100k}}}", "memory: 1Mi, cpu: 1m"),
    ],
)
def test_limits_of_compose_become_valid_resources(
    limits: str, resources: str | None, tmp_path: Path
) -> None:
    shutil.copytree(CASES / "flask/folder", tmp_path, dirs_exist_ok=True)
    (tmp_path / "compose.yaml").write_text(f"services:\n  shop:\n    build: .\n    {limits}\n")
    init(tmp_path)  # Refuses to write a file that is invalid.
    written = (tmp_path / "lapwing.yaml").read_text()
    found = [line.strip() for line in written.splitlines() if line.strip().startswith("resources:")]
    assert found == ([f"resources: {{{resources}}}"] if resources else [])


@pytest.mark.parametrize(
    "compose",
    [
        "services: 3",
        "services: {a: {build: ., depends_on: 5}}",
        "services: {a: {build: ., volumes: 3, ports: x, command: [1, {}]}}",
        "services: {a: {build: {}, environment: {A: [1], 2: b}, volumes: [{}, 3, 'a:/']}}",
        "services: {1: {image: [redis]}}",
        "services: {redis: {image: redis}, b: {environment: 3}}",
    ],
)
def test_unusual_compose_files_are_tolerated(compose: str) -> None:
    read({"compose.yaml": compose}, [])


def test_init_merges_chosen_compose_files(tmp_path: Path) -> None:
    shutil.copytree(CASES / "compose-include-and-override/folder", tmp_path, dirs_exist_ok=True)
    init(tmp_path, "-f", "compose.yaml")
    assert load(tmp_path / "lapwing.yaml").stack.services["shop"].env["MODE"] == "production"
    chosen = "COMPOSE_FILE='compose.yaml:mail/../extra.yml'\nPASSWORD=of-nobody\n"
    (tmp_path / ".env").write_text(chosen)
    (tmp_path / "extra.yml").write_text("services: {shop: {environment: [MODE=extra]}}")
    init(tmp_path, "--force")
    assert load(tmp_path / "lapwing.yaml").stack.services["shop"].env["MODE"] == "extra"
    assert "of-nobody" not in "".join(read_files(tmp_path).values())


def test_init_adds_services_of_chosen_profile(tmp_path: Path) -> None:
    shutil.copytree(CASES / "compose-profiles/folder", tmp_path, dirs_exist_ok=True)
    init(tmp_path, "--profile", "nightly")
    stack = load(tmp_path / "lapwing.yaml").stack
    assert sorted(stack.services) == ["batch", "web"]
    assert sorted(stack.resources) == ["archive", "cache"]
    (tmp_path / ".env").write_text("COMPOSE_PROFILES=*\n")
    init(tmp_path, "--force")
    assert sorted(load(tmp_path / "lapwing.yaml").stack.services) == ["batch", "console", "web"]


def test_init_refuses_unknown_profile(tmp_path: Path) -> None:
    shutil.copytree(CASES / "flask/folder", tmp_path / "flask")
    with pytest.raises(UsageError, match="no profile 'nope' as there is no Compose file"):
        init(tmp_path / "flask", "--profile", "nope")
    shutil.copytree(CASES / "compose-profiles/folder", tmp_path / "shop")
    with pytest.raises(UsageError, match="no profile 'nope' in the Compose files") as caught:
        init(tmp_path / "shop", "--profile", "nightly", "--profile", "nope")
    assert "nightly" in str(caught.value.hint)
    assert not (tmp_path / "shop/lapwing.yaml").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1", "other.yaml: not a Compose file: no `services`"),
        ("services:\n  a: [\n", "other.yaml: not a Compose file: invalid YAML in line 3"),
        ("- a", "other.yaml: not a Compose file: not a mapping"),
        ("services: &a {x: *a}", "other.yaml: not a Compose file: an alias"),
        (f"services: {{}} # {'x' * 300_000}", "other.yaml: not read, because"),
    ],
)
def test_init_refuses_chosen_file_that_it_cannot_use(
    text: str, message: str, tmp_path: Path
) -> None:
    shutil.copytree(CASES / "flask/folder", tmp_path, dirs_exist_ok=True)
    (tmp_path / "other.yaml").write_text(text)
    with pytest.raises(UsageError, match=message):
        init(tmp_path, "-f", "other.yaml")
    assert not (tmp_path / "lapwing.yaml").exists()


def test_init_takes_absolute_path_of_compose_file(tmp_path: Path) -> None:
    shutil.copytree(CASES / "flask/folder", tmp_path, dirs_exist_ok=True)
    other = tmp_path / "other.yaml"
    other.write_text("services: {shop: {build: ., environment: {MODE: extra}}}")
    init(tmp_path, "-f", str(other))
    assert load(tmp_path / "lapwing.yaml").stack.services["shop"].env["MODE"] == "extra"


@pytest.mark.parametrize(
    "compose",
    [
        "services: &a {x: *a}",
        "services: {web: &a {build: ., environment: [*a]}}",
        "services: {web: &a {build: ., environment: !override {x: *a}}}",
    ],
)
def test_compose_file_that_contains_itself_becomes_a_note(compose: str) -> None:
    notes: list[str] = []
    assert not read({"compose.yaml": compose}, notes).services
    assert len(notes) == 1


@pytest.mark.parametrize(
    ("given", "command"),
    [
        ("gunicorn -w 4 -b 0.0.0.0:80 --reload app:app", "gunicorn -w 4 app:app"),
        ("gunicorn --bind=0.0.0.0:80 other:app", "gunicorn other:app"),
        ("gunicorn app:app && date", None),
        ("python app.py", None),
    ],
)
def test_compose_command_is_kept_or_noted(given: str, command: str | None) -> None:
    files = {
        "requirements.txt": "flask\ngunicorn\n",
        "app.py": "from flask import Flask\napp = Flask(__name__)\n",
        "compose.yaml": f'services: {{web: {{build: ., ports: ["80:80"], command: "{given}"}}}}',
    }
    service = detect("shop", files).services[0]
    own = "gunicorn --threads 8 app:app"
    assert service.command == (command or own)
    replaced = f"command: `{given}` of the Compose file is replaced by `{own}`."
    assert (replaced in service.notes) is (command is None)


@pytest.mark.parametrize("name", ["gone.yaml", "../outside.yaml", "link.yaml"])
def test_init_refuses_compose_file_that_is_not_in_folder(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    shutil.copytree(CASES / "flask/folder", folder)
    (tmp_path / "outside.yaml").write_text("services: {db: {image: redis}}")
    (folder / "link.yaml").symlink_to(tmp_path / "outside.yaml")
    with pytest.raises(UsageError, match=name):
        init(folder, "-f", name)


@pytest.mark.parametrize(
    "compose",
    [
        "include: [compose.yaml]\nservices: {web: {build: .}}",
        "services: {web: {build: ., extends: web}}",
        "services: {web: {build: ., extends: other}, other: {extends: {service: web}}}",
        "services: {web: {build: ., extends: {file: compose.yaml, service: web}}}",
        "services: {web: {build: ., extends: 3, profiles: 4, command: !reset null}}\ninclude: 5",
        "include: [{path: 3}, 4, {project_directory: a}]\nservices: {web: {build: !reset null}}",
    ],
)
def test_circular_and_invalid_references_of_compose_files_end(compose: str) -> None:
    read({"compose.yaml": compose}, [])


@pytest.mark.parametrize("case", ["django-and-compose", "compose-shared-folder"])
def test_compose_passwords_are_not_copied(case: str) -> None:
    files = {"compose.yaml": (CASES / case / "folder/compose.yaml").read_text()}
    assert "not-a-real-one" in files["compose.yaml"]
    assert "not-a-real-one" not in repr(read(files, []))


@pytest.mark.parametrize(
    "value",
    ["dist", "gunicorn app:app", "a: b", "x #y", "yes: ", "true", "8", "- a", "it's", 'say "a"',
     "@x", "tab\there", "é", "*", "npm start", "a:", "&& b", "uvicorn a:b --port $PORT"],
)  # fmt: skip
def test_yaml_text_is_quoted_when_needed(value: str) -> None:
    import yaml

    node = yaml.compose(f"key: {text(value)}")
    read_back = node.value[0][1]
    assert scalar(read_back.value, plain=read_back.style is None) == value


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("My Shop", "my-shop"),
        ("2048", "stack"),
        ("a_b", "a-b"),
        ("x" * 60, "x" * 40),
        ("", "stack"),
    ],
)
def test_service_names_are_normalized(given: str, name: str) -> None:
    assert name_from(given, "stack") == name


@pytest.mark.parametrize(
    ("module", "line", "path"),
    [
        ("app.py", 'DB = join(dirname(__file__), "data", "notes.db")', "data/notes.db"),
        ("app.py", 'DB = Path(__file__).parent / "data" / "notes.db"', "data/notes.db"),
        ("app/main.py", 'DB = Path(__file__).with_name("notes.db")', "app/notes.db"),
        ("app.py", 'URL = "sqlite:///var/notes.db"', "var/notes.db"),
        ("app.py", 'URL = f"sqlite:///{BASE}/notes.db"', "notes.db"),
        ("app.py", 'connect("./notes.sqlite3")', "notes.sqlite3"),
        ("app.py", 'connect("/var/lib/notes.db")', None),
    ],
)  # fmt: skip
def test_sqlite_file_gets_a_volume_at_its_path(module: str, line: str, path: str | None) -> None:
    found = volumes(".", {module: f"import sqlite3\n{line}\n"})
    assert found == ({"data": f"./{path}"} if path else {})
