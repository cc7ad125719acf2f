"""What is refused or reported of a Dockerfile before an engine builds it, and the written one."""

from __future__ import annotations

import pytest

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
    write(engine, "FROM scratch\nCOPY .git /src/.git\nCOPY --chown=1:1 .env ./\nCOPY app /app\n")
    message = engine.fail()
    assert "api: Dockerfile copies .git into the image, where everyone who pulls it" in message
    assert "api: Dockerfile copies .env into the image, where everyone who pulls it" in message
    assert "copies app" not in message


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
    assert "api: No container engine (docker, podman) is on the PATH." in message
    assert "apt-get install docker.io" in message


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
