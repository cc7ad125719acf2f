"""The models of how a release is tested, switched to and retired: health, smoke tests, analysis."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from lapwing.stack.fields import (
    Duration,
    HttpHost,
    NonEmpty,
    Percentage,
    RequestPath,
    StrictModel,
    UrlPath,
)


class Health(StrictModel):
    """Health checks of a replica."""

    path: UrlPath | None = Field(
        None,
        description="The path that answers 2xx or 3xx when healthy. Default: each worker "
        "process responds with a status below 500 (on Kubernetes: an open port).",
        examples=["/healthz"],
    )
    live: UrlPath | None = Field(
        None,
        description="The path for startup and liveness probes on Kubernetes, instead of `path`. It "
        "should not depend on a database, so that a database outage restarts no pod.",
        examples=["/version"],
    )
    host: HttpHost | None = Field(
        None,
        description="The Host header of health checks. Default: the domain of the environment.",
        examples=["app.example.com"],
    )
    interval: Duration = Field(5.0, ge=0.1, description="Time between two health checks.")
    timeout: Duration = Field(2.0, ge=0.1, description="Timeout of one health check.")
    start_timeout: Duration = Field(
        60.0, gt=0, description="Time a new replica has to become healthy."
    )
    settle: Duration = Field(1.0, description="A worker counts as healthy after running this long.")


class Smoke(StrictModel):
    """A smoke test of a new release before the switch: a request or a command."""

    get: RequestPath | None = Field(None, description="The path to request on the preview host.")
    expect: int = Field(200, ge=100, le=599, description="The expected HTTP status.")
    contains: str | None = Field(None, description="Text that the response must contain.")
    run: NonEmpty | None = Field(
        None,
        description="A command to run in the release, with LAPWING_PREVIEW_URL set. It must "
        "exit with status 0.",
    )
    timeout: Duration = Field(30.0, gt=0, description="Timeout of the test.")


class Analysis(StrictModel):
    """Limits for live traffic after the switch; exceeding one rolls back."""

    window: Duration = Field(
        10.0, gt=0, description="How long to analyze traffic after the switch."
    )
    max_error_rate: Percentage | None = Field(
        0.05, description="Maximum share of failed requests (5xx or no response)."
    )
    max_p95: Duration | None = Field(None, description="Maximum 95th percentile of the latency.")
    min_requests: int = Field(
        20,
        ge=1,
        description="With fewer requests than this, the limits are "
        "ignored, and on a machine the agent sends requests itself: to `health`, and without "
        "`smoke` also to `route`, where 5xx is an error unless the release before it responds with "
        "5xx, too.",
    )


def _unless_false(value: object) -> object:
    return None if value is False else value


class Rollout(StrictModel):
    """How a new release is tested and switched to, and how the old one is retired."""

    smoke: list[Smoke] = Field(default_factory=list, description="Smoke tests before the switch.")
    analysis: Annotated[
        Analysis | None,
        BeforeValidator(_unless_false, json_schema_input_type=Analysis | Literal[False]),
    ] = Field(
        default_factory=Analysis,
        description="Analysis after the switch; `false` turns it off, and with it every automatic "
        "rollback after the switch.",
    )
    hold: bool = Field(False, description="Pause before the switch until `lapwing promote`.")
    keep_old: Duration = Field(
        600.0, description="How long the old slot keeps running, for an instant rollback."
    )
    drain: Duration = Field(
        3600.0, description="How long an old replica may keep open connections (machine only)."
    )
    stop_grace: Duration = Field(
        10.0, description="Time between SIGTERM and SIGKILL when a replica stops."
    )


class Migrate(StrictModel):
    """A database migration that runs before a release starts."""

    run: NonEmpty = Field(description="The command to run once in the new release.")
    mode: Literal["online", "offline"] = Field(
        "online",
        description="`online`: the old release also works with the new schema. `offline`: all "
        "replicas are stopped while it runs, with `lapwing deploy --allow-downtime`.",
    )
