"""What is refused or reported of a Dockerfile before an engine builds it, and the written one."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import signal
import subprocess
import tarfile
from pathlib import Path

import psutil
import pytest

from lapwing.build.image.engine import running_engine
from lapwing.errors import BuildError
from lapwing.settings import Settings
from tests.deployed import until
from tests.installation import LAPWING
from tests.registries import digest_of

from .conftest import Stack

pytestmark = pytest.mark.xdist_group("image")


@pytest.fixture
def engine(stack: Stack) -> Stack:
    """A stack whose engine is a program that only fails: nothing here gets as far as a build."""
    tools = stack.installation.folder.parent / "tools"
    tools.mkdir()
    (tools / "docker").write_text(
        "#!/bin/sh\n[ $1 = version ] && exit\necho 'Step 1/2 : FROM nothing'\nexit 1\n"
    )
    (tools / "docker").chmod(0o755)
    stack.installation.environ["PATH"] = f"{tools}:{stack.installation.environ['PATH']}"
    return stack


def write(stack: Stack, dockerfile: str, build: str = "{path: ./api}", extra: str = "") -> None:
    stack.write(
        {
            "api/Dockerfile": dockerfile,
            "lapwing.yaml": f"stack: shop\nservices:\n  api: {{build: {build}, dockerfile: "
            f"Dockerfile, command: serve, route: /{extra}}}\n",
        }
    )


@pytest.mark.parametrize(
    ("build", "extra"),
    [
        ("{path: ./api, env: {NPM_TOKEN: abc}}", ""),
        ("{path: ./api, env: {LICENCE: abc}}", ", secrets: [LICENCE]"),
    ],
)
def test_secret_in_a_build_argument_is_refused(engine: Stack, build: str, extra: str) -> None:
    write(engine, "FROM scratch\n", build, extra)
    message = engine.fail()
    assert "is a secret. Build arguments stay readable in the history of the image." in message
    assert "abc" not in message


def test_copy_of_git_and_env_is_reported(engine: Stack) -> None:
    lines = [
        "COPY .git /src/.git", "COPY --chown=1:1 .env ./", 'COPY [".env.staging", "/app/"]',
        "ADD app \\", "  config/.env.local /app/", "COPY .env.example /app/",
        "COPY --from=first /app/.env.first /app/",
    ]  # fmt: skip
    write(engine, "\n".join(["FROM scratch", *lines, ""]))
    message = engine.fail()
    reported = [line.partition("api: Dockerfile copies ")[2] for line in message.splitlines()]
    names = [line.partition(" into the image, where everyone who pulls it")[0] for line in reported]
    assert list(filter(None, names)) == [".git", ".env", ".env.staging", "config/.env.local"]


def test_missing_dockerfile_is_an_error(engine: Stack) -> None:
    write(engine, "FROM scratch\n")
    engine.installation.git("rm", "-q", "-f", "api/Dockerfile")
    engine.write({"api/a": ""})
    assert "There is no Dockerfile in" in engine.fail()


def test_without_an_engine_the_error_says_how_to_get_one(stack: Stack) -> None:
    write(stack, "FROM scratch\n")
    git = stack.installation.folder.parent / "only-git"
    git.mkdir()
    import shutil

    (git / "git").symlink_to(shutil.which("git") or "")
    stack.installation.environ["PATH"] = str(git)
    message = stack.fail()
    assert "api: No container engine (docker, podman, buildah) is on the PATH." in message
    assert "apt-get install docker.io" in message


def test_engine_without_permission_says_how_to_get_it(engine: Stack) -> None:
    """The text is that of Docker 28; with --load, the engine is asked, too."""
    denied = "permission denied while trying to connect to the Docker daemon socket at unix:///a"
    docker = engine.installation.folder.parent / "tools" / "docker"
    docker.write_text(f"#!/bin/sh\necho '{denied}' >&2\nexit 1\n")
    write(engine, "FROM scratch\n")
    for message in (engine.fail(), engine.fail("--load")):
        assert f"Permission denied for the socket of the container engine {docker}." in message
        assert "sudo usermod -aG docker" in message


def test_podman_without_permission_gets_no_advice_for_docker(tmp_path: Path) -> None:
    """The text is that of Podman 4: it has no daemon, and no group."""
    podman, problem = tmp_path / "podman", "mkdir /run/user/0/libpod: permission denied"
    podman.write_text(f"#!/bin/sh\necho '{problem}' >&2\nexit 1\n")
    podman.chmod(0o755)
    with pytest.raises(BuildError, match=f"{podman} is not running") as raised:
        running_engine(Settings(home=tmp_path, environ={"PATH": str(tmp_path)}))
    assert raised.value.detail == problem
    assert "docker" not in (raised.value.hint or "")


def test_several_platforms_of_a_dockerfile_are_refused(engine: Stack) -> None:
    write(engine, "FROM scratch\n")
    message = engine.fail("--platform", "linux/amd64", "--platform", "linux/arm64")
    assert "one platform" in message


SERVICES = """\
stack: shop
registry: {registry}/team
services:
  site: {{build: ./site, static: ., route: /}}
  zapi: {{build: {{path: ./api, env: {{{env}}}}}, dockerfile: Dockerfile, command: serve}}
"""


@pytest.mark.parametrize(
    ("env", "arguments", "engine_status", "message"),
    [
        ("", ["--platform", "linux/amd64", "--platform", "linux/arm64"], 0, "one platform"),
        ("", [], 1, "zapi: The container engine"),
        ("A_TOKEN: abc", [], 0, "zapi: The build argument A_TOKEN is a secret"),
        ("", ["-o", "missing/image.tar"], 0, "missing/image.tar cannot be written: No such file"),
    ],
)
def test_nothing_is_pushed_if_a_later_image_cannot_be_built(
    engine: Stack, env: str, arguments: list[str], engine_status: int, message: str
) -> None:
    docker = engine.installation.folder.parent / "tools" / "docker"
    docker.write_text(f"#!/bin/sh\necho no daemon >&2\nexit {engine_status}\n")
    text = SERVICES.format(registry=engine.server.host, env=env)
    files = {"site/index.html": "a", "api/Dockerfile": "FROM scratch\n", "lapwing.yaml": text}
    engine.write(files)
    said = engine.fail("--push", *arguments)
    assert message in said
    assert "building site" not in said
    assert engine.server.manifest("team/site", "latest") is None


ENGINE = """\
#!/bin/sh
case $1 in
build)
    echo "$DATABASE"
    while [ $# -gt 1 ]; do [ "$1" = --iidfile ] && [ -e ID ] && cp ID "$2"; shift; done ;;
save) cp ARCHIVE "$3" ;;
esac
"""
CONFIG = {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": ["sha256:0"]}}
ENTRY = {"Config": "config.json", "Layers": ["layer.tar"]}


def archive(files: dict[str, object]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as made:
        for name, content in files.items():
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            made.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def install_engine(stack: Stack, saved: bytes, identity: str | None = "sha256:1") -> None:
    """An engine that saves the given archive, and writes the ID of an image if it has one."""
    tools = stack.installation.folder.parent / "tools"
    script = ENGINE.replace("ARCHIVE", f"{tools}/saved").replace("ID", f"{tools}/id")
    (tools / "docker").write_text(script)
    (tools / "saved").write_bytes(saved)
    if identity is not None:
        (tools / "id").write_text(identity)


@pytest.mark.parametrize(
    "saved",
    [
        b"",
        b"not an archive",
        archive({}),
        archive({"manifest.json": []}),
        archive({"manifest.json": [ENTRY]}),
        archive({"manifest.json": [ENTRY], "config.json": {}}),
        archive({"manifest.json": [{**ENTRY, "Layers": []}], "config.json": CONFIG}),
        archive({"manifest.json": [ENTRY], "config.json": CONFIG, "layer.tar": 1}),
        archive({"manifest.json": [ENTRY], "config.json": CONFIG, "layer.tar": "a" * 9999})[:3000],
        archive({"manifest.json": [ENTRY], "config.json": CONFIG, "layer.tar": b"\x1f\x8b\x08bad"}),
    ],
)
def test_damaged_archive_of_the_engine_is_an_error(engine: Stack, saved: bytes) -> None:
    install_engine(engine, saved)
    write(engine, "FROM scratch\n")
    assert "api: The archive that the engine saved is damaged: " in engine.fail()
    assert not list((engine.installation.home / "images").glob("engine-*"))


def test_layers_may_be_compressed_in_the_archive(engine: Stack) -> None:
    """Docker's containerd image store, the default of Docker 29, saves the compressed layers."""
    layer = archive({"file": "content"})
    config = {**CONFIG, "rootfs": {"type": "layers", "diff_ids": [digest_of(layer)] * 2}}
    entry = {"Config": "config.json", "RepoTags": None, "Layers": ["packed", "plain"]}
    files = {"manifest.json": [entry], "config.json": config}
    saved = archive({**files, "packed": gzip.compress(layer), "plain": layer})
    install_engine(engine, saved)
    write(engine, "FROM scratch\n")
    registry = f"{engine.server.host}/packed"
    digest = engine.build("--push", "--registry", registry)["api"]["digest"]
    manifest = engine.server.manifest("packed/api", digest)
    assert manifest is not None
    for described in manifest["layers"]:
        blob = engine.server.blob("packed/api", described["digest"])
        assert blob is not None
        assert gzip.decompress(blob) == layer


def test_engine_without_an_image_id_is_an_error(engine: Stack) -> None:
    install_engine(engine, b"", identity=None)
    write(engine, "FROM scratch\n")
    assert "built the image but wrote no image ID" in engine.fail()


def test_password_in_a_url_of_a_build_argument_is_refused(engine: Stack) -> None:
    install_engine(engine, b"")
    write(engine, "FROM scratch\n", "{path: ./api, env: {DATABASE: 'db://me:tiger12@host/'}}")
    assert "The build argument DATABASE is a secret" in engine.fail()
    logs = [path for path in (engine.installation.home / "logs").rglob("*") if path.is_file()]
    assert not any("tiger12" in path.read_text() for path in logs)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_build_leaves_no_process_and_no_file(engine: Stack, number: int) -> None:
    tools = engine.installation.folder.parent / "tools"
    script = f"[ $1 = version ] && exit\necho $$ > {tools}/new; mv {tools}/new {tools}/pid\n"
    (tools / "docker").write_text(f"#!/bin/sh\n{script}exec sleep 1000\n")
    write(engine, "FROM scratch\n")
    (tools / "tmp").mkdir()
    command = subprocess.Popen(
        [LAPWING, "image", "build"],
        cwd=engine.installation.folder,
        env={**engine.installation.environ, "TMPDIR": str(tools / "tmp")},
    )
    try:
        until((tools / "pid").exists, "the build")
        build = psutil.Process(int((tools / "pid").read_text()))
        assert list((tools / "tmp").iterdir())
        command.send_signal(number)
        assert command.wait(60) == 130
        assert not build.is_running()
        assert not list((tools / "tmp").iterdir())
    finally:
        command.kill()
        command.wait()
        with contextlib.suppress(FileNotFoundError, psutil.NoSuchProcess):
            psutil.Process(int((tools / "pid").read_text())).kill()
