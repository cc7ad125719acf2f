"""What a deployment to a machine needs is found before anything is built."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lapwing.desired.repository import DesiredRepository
from lapwing.desired.secrets import SecretStore
from lapwing.errors import RequirementsError, SecretError
from lapwing.settings import Settings
from lapwing.stack.load import LoadedStack, load
from lapwing.targets import bundles, requirements, sources

STACK = """
stack: shop
services:
  api:
    build: .
    command: run
    route: /
    needs: [db, cache]
    secrets: [TOKEN, OTHER, {name: SESSION_KEY, generate: 24}]
resources:
  db: {kind: mongodb}
  cache: {kind: redis}
"""
WHERE = ("shop", "local")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sources, "build", lambda *_: pytest.fail("nothing may be built"))
    return Settings(home=tmp_path / "home", environ={})


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedStack:
    path = tmp_path / "lapwing.yaml"
    path.write_text(STACK)
    return load(path)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    return folder


def commit(folder: Path) -> None:
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.com"]
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-qm", "A change"], check=True)


def test_all_missing_requirements_are_reported_at_once(
    loaded: LoadedStack, settings: Settings
) -> None:
    with pytest.raises(RequirementsError, match="5 requirements") as missing:
        bundles.plan(loaded, settings, actor="a")
    lines = str(missing.value.detail).splitlines()
    assert [line.partition(".")[0] for line in lines] == [
        "No mongodb server for resource db was found on this machine",
        "No redis server for resource cache was found on this machine",
        "Secret TOKEN of api is not set",
        "Secret OTHER of api is not set",
        f"api: {loaded.folder} is not in a git repository",
    ]
    assert "lapwing secret set TOKEN" in lines[2]
    assert SecretStore(settings.secrets).current(*WHERE) == {}
    assert DesiredRepository(settings.desired).newest(*WHERE) is None


def test_check_finds_everything_that_prevents_a_build(tmp_path: Path, repository: Path) -> None:
    (repository / "lapwing.yaml").write_text(
        "stack: shop\nservices:\n"
        "  api: {build: ./api, command: run, route: /api, secrets: [TOKEN]}\n"
        "  old: {build: ./old, command: node ., route: /old}\n"
        "  web: {build: ./web, static: dist, route: /}\n"
        "  mail: {build: ./mail, command: run}\n"
        "  good: {build: ./good, command: run}\n"
    )
    for name, text in {
        "api/poetry.lock": "", "old/package.json": '{"engines": {"node": "16"}}',
        "old/package-lock.json": "{}", "web/package.json": "{}", "good/requirements.txt": "",
        "mail/README": "",
    }.items():  # fmt: skip
        (repository / name).parent.mkdir(exist_ok=True)
        (repository / name).write_text(text)
    commit(repository)
    settings = Settings(home=tmp_path / "home", environ={})
    loaded = load(repository / "lapwing.yaml")
    found = requirements.missing_requirements(loaded, settings)
    assert [str(problem).partition(",")[0] for problem in found] == [
        "Secret TOKEN of api is not set.",
        "api: poetry.lock is not supported",
        "old: engines.node of package.json requires Node 16. On the PATH: none; Lapwing can "
        "install v24.19.0.",
        "web: There is a package.json",
        "mail: The language of the source is not recognized.",
    ]
    with pytest.raises(RequirementsError) as refused:
        bundles.plan(loaded, settings, actor="a")
    assert len(str(refused.value.detail).splitlines()) == len(found)
    assert not settings.releases.exists()


def test_uncommitted_changes_are_described(tmp_path: Path, repository: Path) -> None:
    (repository / "lapwing.yaml").write_text(STACK.partition("    needs")[0])
    (repository / "requirements.txt").write_text("")
    commit(repository)
    settings = Settings(home=tmp_path / "home", environ={})
    loaded = load(repository / "lapwing.yaml")
    assert sources.describe_uncommitted(loaded, settings, (), "1234") is None
    for name in ("a", "b", "c", "d", "e"):
        (repository / f"{name}.py").write_text("")
    assert sources.describe_uncommitted(loaded, settings, (), "1234-dirty") == (
        "Uncommitted changes are deployed: a.py, b.py, c.py and 2 more. The revision is 1234-dirty."
    )


def test_uncommitted_changes_beside_a_dockerfile_are_described(
    tmp_path: Path, repository: Path
) -> None:
    text = "stack: shop\nservices:\n  api: {dockerfile: api/Dockerfile, route: /}\n"
    (repository / "lapwing.yaml").write_text(text)
    (repository / "api").mkdir()
    (repository / "api" / "Dockerfile").write_text("FROM scratch\nUSER 1000\n")
    commit(repository)
    (repository / "api" / "main.go").write_text("")
    (repository / "elsewhere").write_text("")
    settings = Settings(home=tmp_path / "home", environ={})
    loaded = load(repository / "lapwing.yaml")
    assert sources.describe_uncommitted(loaded, settings, (), "1234-dirty") == (
        "Uncommitted changes are deployed: api/main.go. The revision is 1234-dirty."
    )


def test_values_are_generated_only_where_the_stack_file_says_so(
    loaded: LoadedStack, settings: Settings
) -> None:
    store = SecretStore(settings.secrets)
    urls = {"LAPWING_RESOURCE_DB_URL": "mongodb://db", "LAPWING_RESOURCE_CACHE_URL": "redis://c"}
    settings = Settings(home=settings.home, environ=urls)
    store.set(*WHERE, "OTHER", "given")
    with pytest.raises(SecretError, match="TOKEN of api is not set"):
        requirements.find_requirements(loaded, settings, None, ["api"])
    assert "SESSION_KEY" not in store.current(*WHERE)
    store.set(*WHERE, "TOKEN", "given")
    found = requirements.find_requirements(loaded, settings, None, ["api"])
    value = store.get(*WHERE, "SESSION_KEY", found.secrets["SESSION_KEY"])
    assert len(value) == 24
    assert found.secrets == requirements.find_requirements(loaded, settings, None, ["api"]).secrets
