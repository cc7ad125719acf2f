"""Risks that the stack file shows.

The rules cover production environments, by name; without one, all environments under review. Each
rule is a generator; to add a rule, write a function and add it to `RULES`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal

from lapwing.cost.alternatives import is_production
from lapwing.cost.ledger import Estimate
from lapwing.cost.report import span
from lapwing.inventory.autopilot import fit
from lapwing.review.finding import Finding, Severity, Subject
from lapwing.stack.cloud import PROJECT_ID, project_of
from lapwing.stack.load import LOCAL, LoadedStack
from lapwing.stack.model import Service
from lapwing.stack.resource_reference import expand
from lapwing.stack.source import KeyPath
from lapwing.system.secret_names import is_secret

DATABASES = ("mongodb", "mysql", "postgres")


@dataclass(frozen=True, slots=True)
class Risk:
    """A risk: its rule, the path in the file, the evidence, and the advice."""

    rule: str
    path: KeyPath
    evidence: str
    advice: str
    severity: Severity = Severity.WARNING


Rule = Callable[[LoadedStack, Estimate], Iterator[Risk]]


def risks(subject: Subject, costs: dict[str, Estimate]) -> Iterator[Finding]:
    """Apply every rule; `costs` is the estimate of each environment alone.

    In the developer's `local` a risk is only informational, except for secrets.
    """
    production = [s for s in subject.stacks if is_production(s.environment)]
    for loaded in production or subject.stacks:
        name = loaded.environment
        for risk in (r for rule in RULES for r in rule(loaded, costs[name])):
            is_local = name == LOCAL and risk.rule != "secret-in-env"
            severity = Severity.INFO if is_local else risk.severity
            evidence = f"{subject.position(name, risk.path)}: {risk.evidence}"
            yield Finding(f"risk/{risk.rule}", severity, name, evidence, risk.advice)


def _web_services(loaded: LoadedStack) -> Iterator[tuple[str, Service]]:
    return ((n, s) for n, s in loaded.stack.services.items() if s.kind == "web")


def web_service_settings(loaded: LoadedStack, _: Estimate) -> Iterator[Risk]:
    """Report missing replicas, health checks, smoke tests and analysis."""
    failure = "a crash" if loaded.settings.target == "machine" else "a crash or a node failure"
    for name, service in _web_services(loaded):
        path: KeyPath = ("services", name)
        if service.replicas.min == 1:
            advice = f"Set `replicas: 2`, so that {failure} fails no request."
            yield Risk("single-replica", (*path, "replicas"), f"`{name}` has one replica", advice)
        if service.health.path is None:
            advice = (
                "Add `health: /healthz`, a path that answers 2xx only when the service can work."
            )
            yield Risk("no-health-check", (*path, "health"), f"`{name}` has no health path", advice)
        if not service.rollout.smoke:
            advice = (
                "Add `rollout: {smoke: [{get: /path, expect: 200}]}` with the most common request."
            )
            yield Risk("no-smoke-test", (*path, "rollout"), f"`{name}` has no smoke test", advice)
        if service.rollout.analysis is None:
            advice = "Remove `analysis: false`, so that a bad release rolls back automatically."
            evidence = f"`{name}` has no analysis after the switch"
            yield Risk("no-analysis", (*path, "rollout", "analysis"), evidence, advice)


def no_backup(loaded: LoadedStack, _: Estimate) -> Iterator[Risk]:
    """Report databases without a backup."""
    for name, resource in loaded.stack.resources.items():
        if resource.kind in DATABASES and not resource.backup:
            path = ("resources", name, "backup")
            evidence = f"`{name}` ({resource.kind}) has no backup"
            advice = "Configure backups, test a restore, then set `backup: true`."
            yield Risk("no-backup", path, evidence, advice, Severity.CRITICAL)


def budget(loaded: LoadedStack, cost: Estimate) -> Iterator[Risk]:
    """Report a missing budget, or an estimate above it."""
    if loaded.settings.cloud is None:
        return
    limit = loaded.settings.budget
    estimate = f"the estimate is {span(cost.low, cost.high)} US dollars per month"
    if limit is None:
        advice = "Set `budget:`; `lapwing cost` then compares the estimate with it."
        yield Risk("no-budget", ("budget",), f"no budget is set; {estimate}", advice)
    elif cost.high > Decimal(str(limit)):
        most = Decimal(str(limit))
        likely = Severity.WARNING if (cost.expected or 0) > most else Severity.INFO
        severity = Severity.CRITICAL if cost.low > most else likely
        evidence = f"{estimate}, the budget {limit:,.2f}"
        advice = "See the savings options of `lapwing cost`, or raise the budget."
        yield Risk("over-budget", ("budget",), evidence, advice, severity)


def secrets_in_env(loaded: LoadedStack, _: Estimate) -> Iterator[Risk]:
    """Report secrets in plain text. Their values are not printed."""
    for name, service in loaded.stack.services.items():
        variables: dict[tuple[str, ...], str] = {("env", k): v for k, v in service.env.items()}
        if service.build is not None:
            variables |= {("build", "env", k): v for k, v in service.build.env.items()}
        for path, written in variables.items():
            variable = path[-1]
            value = expand(written, lambda _resource, _part: "")  # A reference reveals no secret.
            if is_secret(variable, value):
                evidence = f"`{variable}` of `{name}` looks like a secret in plain text"
                advice = (
                    f"Move it to `secrets`, run `lapwing secret set {variable}` with a new value, "
                    "and revoke the old one: it is in the git history."
                )
                where = ("services", name, *path)
                yield Risk("secret-in-env", where, evidence, advice, Severity.CRITICAL)


def pod_requests(loaded: LoadedStack, _: Estimate) -> Iterator[Risk]:
    """Report pods without resource requests, or with requests that Autopilot refuses."""
    if loaded.settings.cloud is None:
        return
    for name, service in loaded.stack.services.items():
        if service.kind == "job":
            continue
        requests = service.resources
        pod = fit(requests.cpu, requests.memory)
        path, evidence = ("services", name, "resources"), f"`{name}`: {pod.note}"
        if pod.refused:
            advice = "Use more and smaller replicas."
            yield Risk("refused-size", path, evidence, advice, Severity.CRITICAL)
        elif requests.cpu is None or requests.memory is None:
            advice = (
                "Set `resources`, such as `{cpu: 250m, memory: 512Mi}`; Autopilot bills requests, "
                "not usage."
            )
            yield Risk("no-requests", path, evidence, advice)


def spot_in_production(loaded: LoadedStack, _: Estimate) -> Iterator[Risk]:
    """Report spot nodes in production: they may be preempted with 25 seconds notice."""
    if loaded.settings.spot and is_production(loaded.environment):
        evidence = f"`{loaded.environment}` runs on spot nodes"
        advice = "Use spot for staging only; a commitment saves without the risk."
        yield Risk("spot-in-production", ("spot",), evidence, advice)


def mutable_image_tags(loaded: LoadedStack, _: Estimate) -> Iterator[Risk]:
    """Report images without a version tag or digest."""
    for name, service in loaded.stack.services.items():
        image = service.image
        if image is None or "@sha256:" in image:
            continue
        if image.rpartition("/")[2].partition(":")[2] in ("", "latest"):
            evidence = f"`{name}` uses `{image}`, whose content can change at any time"
            advice = "Pin a version tag, or better a digest."
            yield Risk("moving-image", ("services", name, "image"), evidence, advice)


def project_id(loaded: LoadedStack, _: Estimate) -> Iterator[Risk]:
    """Report a default project id that the cloud refuses."""
    if loaded.settings.cloud is None:
        return
    project = project_of(loaded.stack, loaded.environment)
    if not re.fullmatch(PROJECT_ID, project):
        evidence = f"the default project id `{project}` is invalid ({len(project)} characters)"
        advice = "Set `cloud.project` to 6 to 30 lower-case letters, digits and hyphens."
        yield Risk("project-id", ("cloud",), evidence, advice)


RULES: tuple[Rule, ...] = (
    web_service_settings,
    no_backup,
    budget,
    secrets_in_env,
    pod_requests,
    spot_in_production,
    mutable_image_tags,
    project_id,
)
