"""The part of the stack file that describes how a service is built."""

from __future__ import annotations

from pydantic import Field

from lapwing.stack.fields import Duration, NonEmpty, StrictModel, Text, Variable


class Build(StrictModel):
    """How a service is built from source."""

    path: NonEmpty = Field(description="The source folder, relative to the stack file.")
    base: NonEmpty | None = Field(
        None,
        description="The base image of its image. Default: `python:<version>-slim` for Python, "
        "`node:22-slim` (or 24, 20, as `engines` requires) for Node.js. See `lapwing image pin`.",
        examples=["registry.example/team/python:3.12-slim"],
    )
    python: Text | None = Field(
        None, description='The Python version to use, such as `"3.12"`.', examples=["3.12"]
    )
    extras: list[NonEmpty] = Field(
        default_factory=list,
        description="Groups of `[project.optional-dependencies]` of pyproject.toml to install, as "
        "in `uv sync --extra NAME`. Default: none.",
        examples=[["postgres"]],
    )
    groups: list[NonEmpty] = Field(
        default_factory=list,
        description="Groups of `[dependency-groups]` of pyproject.toml to install, as in "
        "`uv sync --group NAME`. Default: none (with uv.lock, `default-groups` except `dev`).",
        examples=[["worker"]],
    )
    script: NonEmpty = Field("build", description="The npm script that builds a Node.js source.")
    run: NonEmpty | None = Field(
        None,
        description="The shell command that completes the build, after the dependencies are "
        "installed and after `script`. It runs in a copy of the source, and the files that it "
        "writes are part of the release. Not for a Dockerfile, which has `RUN`.",
        examples=["python manage.py collectstatic --noinput"],
    )
    env: dict[Variable, Text] = Field(
        default_factory=dict,
        description="Environment variables for the build only. Not for secrets.",
    )
    target: NonEmpty | None = Field(
        None,
        description="The stage of the Dockerfile to build. Default: the last one.",
        examples=["runtime"],
    )
    secrets: list[Variable] = Field(
        default_factory=list,
        description="Environment variables of the `lapwing` command that steps of the Dockerfile "
        "can read: `RUN --mount=type=secret,id=NAME` has the value in `/run/secrets/NAME`. The "
        "value is in no layer. Docker needs BuildKit. With `host`, the server builds: set them in "
        "its `/etc/lapwing/environment.local`.",
        examples=[["NPM_TOKEN"]],
    )
    test: NonEmpty | None = Field(
        None,
        description="The test command. `lapwing ship` runs it in a copy of the source, with the "
        "release's programs on the PATH; it must exit with status 0.",
        examples=["uv run pytest"],
    )
    timeout: Duration = Field(600.0, gt=0, description="Timeout of the build, and of its test.")
