"""A Dockerfile for a service that cannot be built without one, as a starting point to change.

It makes what the image builder makes: the same folders, user, variables and command. The build
stage has compilers; the runtime stage has only what it made. The lock file is copied and installed
before the source, so a changed line installs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from lapwing.build.dependencies import Dependencies, read_dependencies
from lapwing.build.detect import detect
from lapwing.build.image import config as configs
from lapwing.build.image.builder import ImageRequest
from lapwing.build.managers import choose, read_json
from lapwing.build.source import Source
from lapwing.errors import BuildError
from lapwing.system.secret_names import is_secret

IGNORE = """\
.git
.env
.env.*
**/__pycache__
**/node_modules
.venv
"""
"""The content of the .dockerignore file that belongs to the Dockerfile."""
_COMPILERS = """\
# hadolint ignore=DL3008
RUN apt-get update \\
 && apt-get install -y --no-install-recommends build-essential \\
 && rm -rf /var/lib/apt/lists/*
"""


def render_dockerfile(
    request: ImageRequest, source: Source, base: str, secrets: Sequence[str] = ()
) -> str:
    """Render the Dockerfile of a service on a base image. Raises BuildError for a static one.

    `secrets` are names of variables that no build argument may have.
    """
    build = request.build
    if build.static is not None:
        raise BuildError(
            f"{build.service}: a static service is built without a Dockerfile.",
            hint=f"Run `lapwing image build {build.service}`.",
        )
    python = detect(set(source.files), static=False) == "python"
    stages = _python(request, source) if python else _node(request, source)
    arguments = "".join(
        f"# {name} is a secret: a build argument stays readable in the history of the image.\n"
        if is_secret(name, value, secrets)
        else f"ARG {name}\n"
        for name, value in build.env.items()
    )
    return (
        f"# Written by `lapwing image dockerfile {build.service}`: change it as you need.\n"
        f"FROM {base} AS build\n{_COMPILERS}{arguments}{stages.build}\n"
        f"FROM {base}\n{_runtime(request, stages)}"
    )


class _Stages:
    """The commands of the build stage, and what the runtime stage takes from it."""

    def __init__(self, build: str, copied: Sequence[str], variables: Mapping[str, str]) -> None:
        self.build = build
        self.copied = copied
        self.variables = variables


def _python(request: ImageRequest, source: Source) -> _Stages:
    build = request.build
    needs = read_dependencies(source.folder, set(source.files), build.extras, build.groups)
    variables = {
        "PATH": "/opt/venv/bin:$PATH",
        "VIRTUAL_ENV": "/opt/venv",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    copied = ". ." if needs.local else f"{' '.join(needs.files)} ./"
    steps = [
        f"RUN pip install --no-cache-dir uv=={version('uv')}",
        "ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_PYTHON_DOWNLOADS=never \\\n"
        "    UV_PROJECT_ENVIRONMENT=/opt/venv VIRTUAL_ENV=/opt/venv PATH=/opt/venv/bin:$PATH",
        "WORKDIR /app",
        "RUN uv venv /opt/venv",
        f"COPY {copied}",
        f"RUN {_install(needs)}",
        "COPY . .",
    ]
    if needs.package:
        steps.append("RUN uv pip install --no-deps .")
    if request.build.run is not None:
        steps.append(_run(request.build.run))
    steps.append("RUN python -m compileall -q --invalidation-mode unchecked-hash .")
    return _Stages("\n".join(steps) + "\n", ("/opt/venv", "/app"), variables)


def _run(command: str) -> str:
    """Return the instruction of a shell command; several lines are an argument of the shell.

    A heredoc would be easier to read, but Docker without BuildKit rejects it.
    """
    command = command.strip()
    return "RUN " + (json.dumps(["/bin/sh", "-c", command]) if "\n" in command else command)


def _install(needs: Dependencies) -> str:
    chosen = "".join(f" {argument}" for argument in needs.chosen)
    if needs.lock == "uv.lock":
        return f"uv sync --frozen --no-dev --no-install-project --no-editable{chosen}"
    hashes = "--require-hashes " if needs.hashed else ""
    return f"uv pip install {hashes}-r {needs.lock}{chosen}"


def _node(request: ImageRequest, source: Source) -> _Stages:
    package = read_json(source.folder / "package.json")
    manager = choose(package, source.folder, source.files)
    if manager.name != "npm":
        raise BuildError(
            f"{request.build.service}: a Dockerfile is written for npm only, and the source has "
            f"the {manager.lock} of {manager.name}.",
            hint="Write one by hand and set `dockerfile:` of the service.",
        )
    listed = [n for n in ("package.json", "package-lock.json", ".npmrc") if n in source.files]
    steps = ["WORKDIR /app", f"COPY {' '.join(listed)} ./", "RUN npm ci --include=dev", "COPY . ."]
    if request.build.script in (package.get("scripts") or {}):
        steps.append(f"RUN npm run {request.build.script}")
    if request.build.run is not None:
        steps.append(_run(request.build.run))
    steps.append("RUN npm prune --omit=dev")
    variables = {"PATH": "/app/node_modules/.bin:$PATH", "NODE_ENV": "production"}
    return _Stages("\n".join(steps) + "\n", ("/app",), variables)


def _runtime(request: ImageRequest, stages: _Stages) -> str:
    user = request.user or configs.USER
    own = {"HOME": "/tmp", **configs.listening(request.port), **stages.variables}  # noqa: S108
    env = " \\\n    ".join(f"{name}={value}" for name, value in own.items())
    lines = [
        f'LABEL org.opencontainers.image.title="{request.build.service}"',
        f"ENV {env}",
        "WORKDIR /app",
        *(f"COPY --from=build {path} {path}" for path in stages.copied),
        f"USER {user}:{user}",
    ]
    if request.port is not None:
        lines.append(f"EXPOSE {request.port}")
    # Lapwing and Kubernetes check the health of the service by `health` of the stack file.
    lines += ["HEALTHCHECK NONE", "ENTRYPOINT []"]
    lines.append(f"CMD {json.dumps(configs.exec_form(request.command or ''))}")
    return "\n".join(lines) + "\n"
