"""Turn the results of targets into text or JSON; every command that asks a target prints here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from lapwing.cli.context import Context
from lapwing.cli.status_text import AFTER_RESTORE, FAILURES, show_status, show_used
from lapwing.errors import DeploymentFailed
from lapwing.targets.base import DONE, Rollout, never_deployed

if TYPE_CHECKING:
    from lapwing.desired.history import Entry
    from lapwing.observed.checks import CheckResult
    from lapwing.observed.usage import Summary
    from lapwing.plan.diff import Change
    from lapwing.targets.base import DeployResult, EnvironmentRef, StatusReport
    from lapwing.targets.overview import EnvironmentOverview

DONE_TEXTS = {"rollback": "Rolled back", "promote": "Promoted", "abort": "Aborted"}


def deploy_result(context: Context, result: DeployResult) -> int:
    """Print the result of a verb that changes an environment; return the exit status."""
    if context.for_programs:
        context.printer.json(msgspec.to_builtins(result))
    elif result.outcome in FAILURES:
        context.printer.error(_failure(result))
    else:
        _show_result(context, result)
    if result.outcome in ("detached", "interrupted"):
        return 130
    return 0 if result.outcome in DONE else 1


def _failure(result: DeployResult) -> DeploymentFailed:
    commit = (result.commit or "")[:12]
    if result.target == "kubernetes":
        return DeploymentFailed(
            f"Deployment {commit} failed: {result.reason}", detail=result.detail, hint=result.hint
        )
    what, hint = FAILURES[result.outcome]
    if result.kind == "restore" and result.outcome != "superseded":
        hint = AFTER_RESTORE
    elif any(c.kind == "service" and c.before for c in result.changes):
        if result.outcome == "rolled-back":
            hint = "Traffic is on the previous release again."
        elif result.outcome in ("failed", "aborted"):
            hint += " The previous release keeps serving."
    hint = hint.format(environment=result.environment).strip()
    reason = result.reason or ""
    ending = f"was {reason}" if reason.startswith("aborted by ") else f"{what}: {reason}"
    return DeploymentFailed(
        f"Deployment {commit} {ending}",
        detail=result.detail,
        hint=" ".join(h for h in (hint, result.hint) if h),
    )


def _show_result(context: Context, result: DeployResult) -> None:
    printer = context.printer
    name, commit = result.environment, (result.commit or "")[:12]
    services = ", ".join(result.rollout.services) if result.rollout else ""
    match result.outcome:
        case "dry-run":
            for change in result.changes:
                printer.data(str(change))
            if not result.changes:
                printer.data("Nothing would change.")
        case "committed":
            for change in result.changes:
                printer.say(f"  {change}")
            printer.data(str(result.commit))
            who = "Argo CD applies it" if result.target == "argocd" else "its machine pulls it"
            printer.say(f"Committed for {name}; {who}.")
        case "held":
            what = f" ({services})" if services else ""
            printer.say(f"Deployment {commit} is paused; no client sees it yet{what}.")
            _show_paused(context, result)
        case "detached":
            ends = result.kind in ("down", "restore")
            abort = "" if ends else f", `lapwing abort -e {name}` to stop it"
            printer.say(
                f"\nDetached. Deployment {commit} continues in the background: run `lapwing status "
                f"-e {name}` to see its state{abort}."
            )
        case "interrupted":
            printer.say(f"\nInterrupted. Applied objects stay. {result.hint}")
        case "in-progress":
            printer.say(f"{result.kind}: {services}. Argo Rollouts continues.")
        case "unchanged":
            reason = result.reason or "what is in the folder is already running"
            what = "change" if result.kind == "maintenance" else "deploy"
            nothing = "" if result.kind == "down" else f"Nothing to {what}: "
            printer.say(f"{nothing}{reason}.")
            if result.target == "machine" and result.kind != "down" and result.rollout:
                _show_paused(context, result)
            _show_maintenance(context, result)
            _show_url(context, result)
        case _:
            printer.say(_success(result), style="green")
            _show_maintenance(context, result)
            _show_url(context, result)


def _show_paused(context: Context, result: DeployResult) -> None:
    """Print where a paused deployment can be seen, and the commands that end it."""
    printer, name = context.printer, result.environment
    if result.rollout and result.rollout.preview:
        printer.data(f"Preview: {result.rollout.preview}")
    printer.say(
        f"Run `lapwing promote -e {name}` to switch traffic, `lapwing abort -e {name}` to stop it."
    )


def _show_maintenance(context: Context, result: DeployResult) -> None:
    if result.target == "machine" and result.hint and result.kind in ("deploy", "up", "rollback"):
        context.printer.say(result.hint, style="yellow")


def _success(result: DeployResult) -> str:
    if result.kind == "down":
        return _stopped(result)
    rollout, commit = result.rollout or Rollout(), (result.commit or "")[:12]
    if result.kind == "maintenance":
        return f"{result.hint or 'Maintenance is off.'} Commit: {commit}."
    took = f"in {result.seconds:.2f} s"
    if "switching" in rollout.times:
        took += f"; switched after {rollout.times['switching']:.2f} s"
    remark = f"{result.reason.rstrip('.')}." if result.reason else ""
    if result.kind not in DONE_TEXTS:
        return f"Deployed {commit} {took}. {remark}".rstrip()
    is_undone = result.kind == "abort" or (result.kind == "rollback" and result.target == "machine")
    keeps = is_undone and "switching" not in rollout.times
    moves = [_move(c, result.kind, keeps) for c in result.changes if c.name in rollout.services]
    sentences = [f"{DONE_TEXTS[result.kind]} {took}.", "" if keeps else remark, *moves]
    return " ".join(s for s in [*sentences, f"Commit: {commit}."] if s)


def _move(change: Change, kind: str, keeps: bool) -> str:
    """Say which release of a service runs after promote, abort or rollback, and which does not.

    `keeps` is whether it ran before as well, because the deployment that is undone never switched.
    """
    name, before, after = change.name, change.before, change.after
    if after is None:
        return f"{name} is stopped."
    if before == after:
        return f"{name} has its {'new' if kind == 'promote' else 'earlier'} settings."
    if keeps:
        return f"{name} keeps running {after}; {before} is stopped."
    return f"{name} now runs {after}" + (f" instead of {before}." if before else ".")


def _stopped(result: DeployResult) -> str:
    removed = result.rollout.removed if result.rollout else []
    kinds = {name.partition(" ")[0] for name in removed}
    if "Cluster" in kinds:
        return f"Removed {removed[0]}."
    if kinds & {"PersistentVolumeClaim", "Namespace", "Volumes"}:
        return "Everything is removed, including the data."
    if result.target == "machine":
        return "Everything is stopped; data stays."
    return (
        f"Everything is stopped; volumes and generated secrets stay (`lapwing down -e "
        f"{result.environment} --volumes` removes them)."
    )


def _show_url(context: Context, result: DeployResult) -> None:
    if result.kind not in ("deploy", "up"):
        return
    port = context.settings.port
    if result.url:
        context.printer.data(result.url)
    elif result.target == "kubernetes":
        context.printer.say(
            f"Run `lapwing open -e {result.environment}` to reach it at https://localhost:{port}."
        )
    if result.kind == "up" and result.target == "machine" and result.environment == "local":
        authority = context.settings.certificates / "ca.pem"
        also = f"Also at https://localhost:{port} while it is the only stack. "
        context.printer.say(
            f"{also if _is_alone(context, result) else ''}For a browser to trust it, add "
            f"{authority} to its authorities; for curl, use --cacert."
        )


def _is_alone(context: Context, result: DeployResult) -> bool:
    """Return whether no other environment of this machine has services."""
    from lapwing.observed import status

    own = context.settings.environment(result.stack, result.environment)
    others = (found for folder, found in status.read_all(context.settings.home) if folder != own)
    return not any(s.active or s.idle for other in others for s in other.services)


def history(context: Context, ref: EnvironmentRef, entries: Sequence[Entry]) -> None:
    """Print deployments, newest first. Raises UsageError if there are none (in text)."""
    if context.for_programs:
        context.printer.json(msgspec.to_builtins(entries))
        return
    if not entries:
        raise never_deployed(ref)
    rows = [
        (e.commit[:12], e.time.replace("T", " ").rstrip("Z"), e.actor, e.outcome, e.message)
        for e in entries
    ]
    context.printer.table(("COMMIT", "TIME (UTC)", "ACTOR", "OUTCOME", "MESSAGE"), rows)
    newest = entries[0]
    if newest.reason and newest.outcome not in ("succeeded", "in-progress"):
        context.printer.say(f"Reason of {newest.commit[:12]}: {newest.reason}")


def status(context: Context, report: StatusReport) -> int:
    """Print what runs; return 0 if every service runs as desired, else 1."""
    found, failure = report.status, report.last_failure
    if context.for_programs:
        answer: dict[str, Any] = msgspec.to_builtins(found)
        answer["last_failure"] = failure and {
            key: getattr(failure, key) for key in ("commit", "time", "outcome", "reason")
        }
        if report.agent_running is not None:
            answer["agent"] = {"running": report.agent_running}
            answer["envoy"] = {"running": report.envoy_running}
            answer["used"] = {name: _used_data(used) for name, used in report.used.items()}
        context.printer.json(answer)
    else:
        show_status(context, report)
        show_used(context, {s.name: report.used[s.name] for s in found.services
                             if s.name in report.used})  # fmt: skip
    return 0 if report.healthy else 1


def overview(context: Context, found: Sequence[EnvironmentOverview]) -> None:
    """Print every environment of this machine."""
    if context.for_programs:
        context.printer.json({"environments": msgspec.to_builtins(found)})
    elif not found:
        context.printer.say("Nothing was deployed from this machine. Run `lapwing up` in a folder.")
    else:
        rows = [
            (
                e.stack,
                e.environment,
                e.state or ("on a cluster" if e.target == "kubernetes" else "unknown"),
                e.url or "-",
                e.folder or "-",
            )
            for e in found
        ]
        context.printer.table(("STACK", "ENVIRONMENT", "STATE", "ADDRESS", "FOLDER"), rows)


def _used_data(used: Summary) -> dict[str, float | None]:
    return {
        "cpu": used.cpu,
        "memory": used.memory,
        "requests": used.rate,
        "requests_max": used.rate_max,
        "hours": used.hours,
    }


def checks(context: Context, results: Sequence[CheckResult], backup: str | None = None) -> int:
    """Print checks, of a running stack or a backup; return 1 if one failed or was not possible."""
    if context.for_programs:
        data = msgspec.to_builtins(results)
        context.printer.json(data if backup is None else {"backup": backup, "checks": data})
    else:
        words = {True: "ok", False: "FAILED", None: "UNKNOWN"}
        rows = [(words[r.ok], r.check, r.seen) for r in results]
        context.printer.table(("", "CHECK", "RESULT"), rows)
        for result in results:
            if result.detail:
                lines = "\n".join(f"    {line}" for line in result.detail.splitlines())
                context.printer.data(f"\n{result.check}, last lines:\n{lines}")
    return 0 if all(r.ok for r in results) else 1
