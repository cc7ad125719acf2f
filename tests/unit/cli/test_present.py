"""What verbs print for the result of a target, as text and as JSON."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lapwing.cli import present
from lapwing.cli.context import Context, Output
from lapwing.cli.output import Printer
from lapwing.desired.history import Entry, ServiceAt
from lapwing.observed.status import RolloutStatus, ServiceStatus, SlotStatus, Status, write
from lapwing.plan.diff import Change
from lapwing.settings import Settings
from lapwing.targets.base import DeployResult, Outcome, Rollout, StatusReport
from lapwing.targets.overview import EnvironmentOverview
from tests.json_output import validate

ROOT = Path(__file__).parents[3]
COMMIT = "0123456789abcdef" * 2 + "01234567"
CHANGE = Change(kind="service", name="api", action="update", before="api-1", after="api-2")
MACHINE = DeployResult(
    stack="shop",
    environment="local",
    target="machine",
    kind="deploy",
    outcome="succeeded",
    commit=COMMIT,
    changes=[CHANGE],
    rollout=Rollout(services=["api"], times={"switching": 1.5}),
    services={"api": ServiceAt(release="api-2", revision="r2")},
    seconds=2.25,
    url="https://shop.localhost:8585",
)
OBJECT = Change(kind="Deployment", name="shop-api", action="create")


def show(result: DeployResult, output: Output = "text") -> tuple[int, str, str]:
    """Print a result; returns the exit status, stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    context = Context(Settings(Path("/home")), Path(), Printer(out=out, err=err), output)
    status = present.deploy_result(context, result)
    return status, out.getvalue(), err.getvalue()


def with_(result: DeployResult, **values: Any) -> DeployResult:
    return msgspec.structs.replace(result, **values)


@pytest.mark.parametrize("other", [False, True])
def test_address_without_the_stack_is_for_a_single_stack(other: bool, tmp_path: Path) -> None:
    settings = Settings(tmp_path)
    if other:
        folder = settings.environment("blog", "local")
        folder.mkdir(parents=True)
        slot = SlotStatus(slot="blue", release="web-1", revision="r", ready=1, replicas=1)
        service = ServiceStatus(name="web", kind="web", phase="running", active=slot)
        write(folder, Status(stack="blog", environment="local", url="", services=[service]))
    out, err = io.StringIO(), io.StringIO()
    context = Context(settings, Path(), Printer(out=out, err=err), "text")
    assert present.deploy_result(context, with_(MACHINE, kind="up")) == 0
    assert ("while it is the only stack" in err.getvalue()) is not other
    assert "For a browser to trust it" in err.getvalue()


DRY_RUNS = {
    "machine": with_(MACHINE, outcome="dry-run", commit=None, rollout=None, seconds=0.0),
    "kubernetes": with_(
        MACHINE, target="kubernetes", outcome="dry-run", commit=None, rollout=None,
        changes=[CHANGE, OBJECT], url=None, seconds=0.1,
    ),
    "argocd": with_(
        MACHINE, target="argocd", outcome="dry-run", commit=None, rollout=None, seconds=0.0,
        url="https://shop.example",
    ),
}  # fmt: skip


@pytest.mark.parametrize("target", DRY_RUNS)
def test_dry_run_json_has_one_shape_for_every_target(target: str) -> None:
    status, out, _ = show(DRY_RUNS[target], "json")
    answer = json.loads(out)
    validate("deploy", answer)
    golden = ROOT / "tests/golden/deploy" / f"dry-run-{target}.json"
    assert (status, out) == (0, golden.read_text())
    assert set(answer) == set(json.loads(show(MACHINE, "json")[1]))
    assert answer["changes"][0] == {
        "kind": "service", "name": "api", "action": "update", "from": "api-1", "to": "api-2",
        "fields": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        ("succeeded", 0), ("held", 0), ("unchanged", 0), ("dry-run", 0), ("committed", 0),
        ("in-progress", 0), ("failed", 1), ("rolled-back", 1), ("aborted", 1), ("superseded", 1),
        ("detached", 130), ("interrupted", 130),
    ],
)  # fmt: skip
def test_outcome_decides_the_exit_status(outcome: Outcome, status: int) -> None:
    result = with_(MACHINE, outcome=outcome, reason="r", hint="Do this.")
    assert show(result)[0] == status
    found, out, _ = show(result, "json")
    assert found == status
    validate("deploy", json.loads(out))


def test_deploy_prints_the_url_at_the_end() -> None:
    _, out, err = show(MACHINE)
    assert out == "https://shop.localhost:8585\n"
    assert err == "Deployed 0123456789ab in 2.25 s; switched after 1.50 s.\n"


def test_paused_deployment_of_the_same_content_has_its_next_steps() -> None:
    paused = Rollout(services=["api"], preview="https://preview.shop.localhost:8585")
    reason = "deployment 0123456789ab of the same content is paused"
    _, out, err = show(with_(MACHINE, outcome="unchanged", reason=reason, rollout=paused))
    assert out.startswith("Preview: https://preview.shop.localhost:8585\n")
    assert err == (
        f"Nothing to deploy: {reason}.\n"
        "Run `lapwing promote -e local` to switch traffic, `lapwing abort -e local` to stop it.\n"
    )


def test_second_down_prints_that_the_stack_is_stopped() -> None:
    reason = "shop/local is already stopped"
    stopped = with_(MACHINE, kind="down", outcome="unchanged", reason=reason, changes=[])
    assert show(with_(stopped, rollout=None)) == (0, "", "shop/local is already stopped.\n")


def test_local_cluster_has_no_url_but_a_command() -> None:
    result = with_(MACHINE, target="kubernetes", environment="kind", url=None)
    _, out, err = show(result)
    assert out == ""
    assert "Run `lapwing open -e kind` to reach it at https://localhost:8585." in err


def test_failed_deployment_is_an_error_with_reason_and_hint() -> None:
    result = with_(MACHINE, outcome="failed", reason="no answer", detail="line", hint="Fix it.")
    _, out, err = show(result)
    assert out == ""
    assert err == (
        "error: Deployment 0123456789ab was rejected: no answer\n    line\n"
        "  It received no requests. The previous release keeps serving. Fix it.\n"
    )


def test_failed_first_deployment_names_no_previous_release() -> None:
    first = msgspec.structs.replace(CHANGE, before=None)
    for outcome in ("failed", "rolled-back"):
        _, _, err = show(with_(MACHINE, outcome=outcome, reason="no answer", changes=[first]))
        assert "previous release" not in err


def test_aborted_deployment_names_who_aborted_it_once() -> None:
    _, _, err = show(with_(MACHINE, outcome="aborted", reason="aborted by ada"))
    assert "Deployment 0123456789ab was aborted by ada\n" in err


def test_deployment_during_maintenance_prints_how_to_end_it() -> None:
    assert "Maintenance is on." in show(with_(MACHINE, hint="Maintenance is on."))[2]


@pytest.mark.parametrize("hint", [None, "Maintenance is on."])
def test_maintenance_result_names_its_state(hint: str | None) -> None:
    _, _, err = show(with_(MACHINE, kind="maintenance", hint=hint))
    assert err == f"{hint or 'Maintenance is off.'} Commit: 0123456789ab.\n"


@pytest.mark.parametrize("outcome", ["failed", "rolled-back", "aborted"])
def test_failed_start_after_a_restore_names_no_release_that_serves(outcome: Outcome) -> None:
    """A restore stops the environment first, so there is none."""
    _, _, err = show(with_(MACHINE, kind="restore", outcome=outcome, reason="no answer"))
    assert "release" not in err
    assert "The environment stays stopped, and clients get the maintenance page." in err
    assert f"`lapwing deploy -e {MACHINE.environment}`" in err


def test_status_of_a_cluster_without_url_names_the_command() -> None:
    slot = SlotStatus(slot="blue", release="1", revision="", replicas=1, ready=1)
    service = ServiceStatus(name="api", kind="web", phase="running", active=slot)
    found = Status(stack="shop", environment="kind", url="", services=[service])
    out = io.StringIO()
    context = Context(Settings(Path("/home")), Path(), Printer(out=out, err=io.StringIO()))
    report = StatusReport(found, open_hint="lapwing open -e kind")
    assert present.status(context, report) == 0
    assert out.getvalue().startswith("shop/kind  run `lapwing open -e kind` to reach it\n")
    assert "None" not in out.getvalue()
    report = replace(report, status=msgspec.structs.replace(found, url="https://shop.example"))
    out.truncate(0)
    present.status(context, report)
    assert "https://shop.example" in out.getvalue()


def test_status_calls_a_deployment_on_hold_paused() -> None:
    slot = SlotStatus(slot="blue", release="1", revision="", replicas=1, ready=1)
    service = ServiceStatus(name="api", kind="web", phase="held", active=slot)
    rollout = RolloutStatus(commit="0123456789abcdef", state="holding", services=["api"])
    found = Status(stack="shop", environment="local", url="", services=[service], rollout=rollout)
    out = io.StringIO()
    context = Context(Settings(Path("/home")), Path(), Printer(out=out, err=io.StringIO()))
    present.status(context, StatusReport(found))
    assert "api      paused  blue" in out.getvalue()
    assert "Deployment 0123456789ab: paused, api\n" in out.getvalue()
    assert "hold" not in out.getvalue()


@pytest.mark.parametrize(("count", "shown"), [(1, "(1 restart) "), (2, "(2 restarts) ")])
def test_status_counts_restarts(count: int, shown: str) -> None:
    slot = SlotStatus(slot="blue", release="1", revision="", replicas=1, ready=1, restarts=count)
    service = ServiceStatus(name="api", kind="web", phase="running", active=slot)
    found = Status(stack="shop", environment="local", url="", services=[service])
    out = io.StringIO()
    context = Context(Settings(Path("/home")), Path(), Printer(out=out, err=io.StringIO()))
    present.status(context, StatusReport(found))
    assert f"running {shown}" in out.getvalue()


def test_status_shows_why_the_last_deployment_was_rejected() -> None:
    failure = Entry(
        commit="0123456789abcdef", time="2026-01-01T00:00:00Z", actor="ada", message="deploy",
        kind="deploy", services={}, changed=(), outcome="failed", reason="api did not start.\nlog",
    )  # fmt: skip
    report = StatusReport(Status(stack="shop", environment="local", url=""), last_failure=failure)
    out = io.StringIO()
    printer = Printer(out=out, err=io.StringIO())
    present.status(Context(Settings(Path("/home")), Path(), printer), report)
    assert "Last deployment 0123456789ab was rejected: api did not start.\n" in out.getvalue()
    out.truncate(0)
    out.seek(0)
    present.status(Context(Settings(Path("/home")), Path(), printer, "json"), report)
    answer = json.loads(out.getvalue())
    validate("status", answer)
    assert answer["last_failure"]["outcome"] == "failed"


@pytest.mark.parametrize("running", [True, False])
def test_status_reports_that_envoy_is_not_running(running: bool) -> None:
    slot = SlotStatus(slot="blue", release="1", revision="", replicas=1, ready=1)
    service = ServiceStatus(name="api", kind="web", phase="running", active=slot)
    found = Status(stack="shop", environment="local", url="https://a:1", services=[service])
    report = StatusReport(found, agent_running=True, envoy_running=running)
    out = io.StringIO()
    printer = Printer(out=out, err=io.StringIO())
    context = Context(Settings(Path("/home")), Path(), printer)
    assert present.status(context, report) == (0 if running else 1)
    assert ("Envoy is not running" in out.getvalue()) is not running
    out.truncate(0)
    out.seek(0)
    context = Context(Settings(Path("/home")), Path(), printer, "json")
    assert present.status(context, report) == (0 if running else 1)
    answer = json.loads(out.getvalue())
    validate("status", answer)
    assert answer["envoy"] == {"running": running}


def test_all_environments_are_listed() -> None:
    out, err = io.StringIO(), io.StringIO()
    context = Context(Settings(Path("/home")), Path(), Printer(out=out, err=err))
    present.overview(context, [])
    assert out.getvalue() == ""
    assert "Nothing was deployed" in err.getvalue()
    machine = EnvironmentOverview(
        stack="shop", environment="local", target="machine", state="paused", url="https://a:1",
        folder="/shop",
    )  # fmt: skip
    cluster = EnvironmentOverview(stack="shop", environment="kind", target="kubernetes")
    present.overview(context, [machine, cluster])
    assert out.getvalue().splitlines() == [
        "STACK  ENVIRONMENT  STATE         ADDRESS      FOLDER",
        "shop   local        paused        https://a:1  /shop",
        "shop   kind         on a cluster  -            -",
    ]


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "running"),
        ({"services": []}, "stopped"),
        ({"services": [], "stopping": {"api": 9.0}}, "stopping"),
        ({"stopping": {"api": 9.0}}, "running"),
        ({"problem": "Envoy does not answer."}, "degraded"),
        ({"rollout": RolloutStatus(commit="c", state="holding")}, "paused"),
        ({"rollout": RolloutStatus(commit="c", state="testing")}, "deploying"),
    ],
)
def test_state_of_an_environment(changes: dict[str, Any], state: str) -> None:
    slot = SlotStatus(slot="blue", release="1", revision="", replicas=1, ready=1)
    service = ServiceStatus(name="api", kind="web", phase="running", active=slot)
    found = Status(stack="shop", environment="local", url="", services=[service])
    assert StatusReport(msgspec.structs.replace(found, **changes)).state == state


@pytest.mark.parametrize(
    ("kind", "times", "change", "told"),
    [
        ("promote", {}, CHANGE, "api now runs api-2 instead of api-1."),
        ("rollback", {"switching": 0.1}, CHANGE, "api now runs api-2 instead of api-1."),
        ("rollback", {}, CHANGE, "api keeps running api-2; api-1 is stopped."),
        ("abort", {}, CHANGE, "api keeps running api-2; api-1 is stopped."),
        ("abort", {}, Change(kind="service", name="api", action="delete", before="api-1"),
         "api is stopped."),
        ("rollback", {}, Change(kind="service", name="api", action="update", before="a", after="a"),
         "api has its earlier settings."),
        ("promote", {}, Change(kind="service", name="api", action="create", after="api-1"),
         "api now runs api-1."),
    ],
)  # fmt: skip
def test_success_names_the_releases(
    kind: Any, times: dict[str, float], change: Change, told: str
) -> None:
    job = Change(kind="service", name="migrate", action="update", before="m-1", after="m-2")
    rollout = Rollout(services=["api"], times=times)
    result = msgspec.structs.replace(MACHINE, kind=kind, changes=[change, job], rollout=rollout)
    err = io.StringIO()
    context = Context(Settings(Path("/home")), Path(), Printer(out=io.StringIO(), err=err))
    assert present.deploy_result(context, result) == 0
    assert err.getvalue().endswith(f" s. {told} Commit: 0123456789ab.\n")
    assert "migrate" not in err.getvalue()
