"""Risks of an environment: services, secrets, budget, pods. Databases are in data_risks.py.

The rules cover production environments, by name; without one, all environments under review. Each
rule is a generator; to add a rule, write a function and add it to `RULES`. A rule reads the
inventory for what is rendered, and the stack file for what is meant and where it is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal

from lapwing.cost.alternatives import is_production
from lapwing.cost.report import span
from lapwing.inventory.autopilot import show
from lapwing.inventory.model import Pods
from lapwing.review import data_risks
from lapwing.review.finding import Case, Finding, Risk, Rule, Severity, Subject
from lapwing.stack.cloud import PROJECT_ID, project_of
from lapwing.stack.load import LOCAL, LoadedStack
from lapwing.stack.model import Service
from lapwing.stack.resource_reference import expand
from lapwing.stack.source import KeyPath
from lapwing.system.secret_values import holds_secret

MUTABLE_TAGS = ("", "latest", "main", "master", "develop", "dev", "edge", "nightly", "stable")


def risks(subject: Subject, cases: Mapping[str, Case]) -> Iterator[Finding]:
    """Apply every rule to the case of each environment.

    In the developer's `local` a risk is only informational, except for secrets.
    """
    production = [s for s in subject.stacks if is_production(s.environment)]
    for loaded in production or subject.stacks:
        name = loaded.environment
        for risk in (r for rule in RULES for r in rule(cases[name])):
            is_local = name == LOCAL and risk.rule != "secret-in-env"
            severity = Severity.INFO if is_local else risk.severity
            evidence = f"{subject.position(name, risk.path)}: {risk.evidence}"
            yield Finding(f"risk/{risk.rule}", severity, name, evidence, risk.advice)


def _web_services(loaded: LoadedStack) -> Iterator[tuple[str, Service]]:
    return ((n, s) for n, s in loaded.stack.services.items() if s.kind == "web")


def web_service_settings(case: Case) -> Iterator[Risk]:
    """Report missing replicas, health checks, smoke tests and analysis."""
    loaded = case.loaded
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


def rollouts(case: Case) -> Iterator[Risk]:
    """Report rollouts that cannot do what they state: keep the old slot, analyse traffic."""
    rendered = {p.part: p for p in case.environment.facts.pods}
    for name, service in case.loaded.stack.services.items():
        if service.kind not in ("web", "static"):
            continue
        path: KeyPath = ("services", name, "rollout")
        if service.rollout.keep_old == 0:
            advice = "Set `keep_old: 10m`, so that a rollback is only a change of the route."
            evidence = f"`{name}` stops the old release at once"
            yield Risk("no-warm-slot", (*path, "keep_old"), evidence, advice)
        reason = _never_fires(service, rendered.get(name))
        if reason:
            evidence = f"the analysis of `{name}` can never stop a release: {reason[0]}"
            yield Risk("idle-analysis", (*path, "analysis"), evidence, reason[1])


def _never_fires(service: Service, pods: Pods | None) -> tuple[str, str] | None:
    """Return why an analysis has no effect, and what to do."""
    analysis = service.rollout.analysis
    if analysis is None:
        return None
    rate = analysis.max_error_rate
    if analysis.max_p95 is None and (rate is None or rate >= 1):
        return "it has no limit", "Set `max_error_rate: 1%` or `max_p95: 500ms`."
    if "analysis" not in service.rollout.model_fields_set:
        return None
    if service.route is None:
        return "no request reaches the service", "Add `route`, or remove `analysis`."
    if pods is not None and pods.kind == "Deployment":
        return (
            "without Argo Rollouts nothing watches the traffic",
            "Set `rollouts: true` for the environment, or remove `analysis`.",
        )
    return None


def internet_egress(case: Case) -> Iterator[Risk]:
    """Report services that may connect to any address of the internet."""
    for flow in case.environment.facts.flows:
        if flow.to == "internet" and flow.part in case.loaded.stack.services:
            path = ("services", flow.part, "internet")
            evidence = f"`{flow.part}` may connect to any address of the internet"
            advice = "Remove `internet: true` where a service only uses the resources of the stack."
            yield Risk("internet-egress", path, evidence, advice, Severity.INFO)


def budget(case: Case) -> Iterator[Risk]:
    """Report a missing budget, one that cannot be checked, or an estimate above it."""
    loaded, cost = case.loaded, case.cost
    if loaded.settings.cloud is None:
        return
    limit = loaded.settings.budget
    estimate = f"the estimate is {span(cost.low, cost.high)} US dollars per month"
    if limit is None:
        advice = "Set `budget:`; `lapwing cost` then compares the estimate with it."
        yield Risk("no-budget", ("budget",), f"no budget is set; {estimate}", advice)
        return
    if cost.unknown:
        items = cost.unknown_items
        evidence = f"the budget of {limit:,.2f} cannot be checked: no price for {items}"
        advice = "Ask for the price of these, and leave room for them in the budget."
        yield Risk("unpriced-budget", ("budget",), evidence, advice)
    if cost.high > Decimal(str(limit)):
        most = Decimal(str(limit))
        likely = Severity.WARNING if (cost.expected or 0) > most else Severity.INFO
        severity = Severity.CRITICAL if cost.low > most else likely
        evidence = f"{estimate}, the budget {limit:,.2f}"
        advice = "See the savings options of `lapwing cost`, or raise the budget."
        yield Risk("over-budget", ("budget",), evidence, advice, severity)


def secrets_in_env(case: Case) -> Iterator[Risk]:
    """Report secrets in plain text. Their values are not printed."""
    for name, service in case.loaded.stack.services.items():
        variables: dict[tuple[str, ...], str] = {("env", k): v for k, v in service.env.items()}
        if service.build is not None:
            variables |= {("build", "env", k): v for k, v in service.build.env.items()}
        for path, written in variables.items():
            variable = path[-1]
            value = expand(written, lambda _resource, _part: "")  # A reference reveals no secret.
            if holds_secret(variable, value):
                evidence = f"`{variable}` of `{name}` looks like a secret in plain text"
                advice = (
                    f"Move it to `secrets`, run `lapwing secret set {variable}` with a new value, "
                    "and revoke the old one: it is in the git history."
                )
                where = ("services", name, *path)
                yield Risk("secret-in-env", where, evidence, advice, Severity.CRITICAL)


def pod_requests(case: Case) -> Iterator[Risk]:
    """Report services without resource requests, or with requests that Autopilot refuses."""
    if case.environment.project is None:
        return
    services = case.loaded.stack.services
    for pods in case.environment.facts.pods:
        if pods.part not in services or pods.kind == "Job":
            continue
        requests, path = services[pods.part].resources, ("services", pods.part, "resources")
        if pods.billed.refused:
            advice = "Use more and smaller replicas."
            evidence = f"`{pods.part}`: {pods.billed.note}"
            yield Risk("refused-size", path, evidence, advice, Severity.CRITICAL)
        elif requests.cpu is None or requests.memory is None:
            advice = "Set `resources`, such as `{cpu: 250m, memory: 512Mi}`, from what it uses."
            shown = show(pods.billed.cpu, pods.billed.memory)
            absent = [k for k in ("cpu", "memory") if getattr(requests, k) is None]
            evidence = f"`{pods.part}` requests no {' or '.join(absent)}: Autopilot assigns {shown}"
            yield Risk("no-requests", path, evidence, advice)


def spot_in_production(case: Case) -> Iterator[Risk]:
    """Report spot nodes in production: they may be preempted with 25 seconds notice."""
    name = case.environment.name
    if any(p.spot for p in case.environment.facts.pods) and is_production(name):
        evidence = f"`{name}` runs on spot nodes"
        advice = "Use spot for staging only; a commitment saves without the risk."
        yield Risk("spot-in-production", ("spot",), evidence, advice)


def mutable_image_tags(case: Case) -> Iterator[Risk]:
    """Report images without a version tag or digest."""
    for name, service in case.loaded.stack.services.items():
        image = service.image
        if image is None or "@sha256:" in image:
            continue
        if image.rpartition("/")[2].partition(":")[2] in MUTABLE_TAGS:
            evidence = f"`{name}` uses `{image}`, whose content can change at any time"
            advice = "Pin a version tag, or better a digest."
            yield Risk("moving-image", ("services", name, "image"), evidence, advice)


def project_id(case: Case) -> Iterator[Risk]:
    """Report a default project id that the cloud refuses."""
    loaded = case.loaded
    if loaded.settings.cloud is None:
        return
    project = project_of(loaded.stack, loaded.environment)
    if not re.fullmatch(PROJECT_ID, project):
        evidence = f"the default project id `{project}` is invalid ({len(project)} characters)"
        advice = "Set `cloud.project` to 6 to 30 lower-case letters, digits and hyphens."
        yield Risk("project-id", ("cloud",), evidence, advice)


RULES: tuple[Rule, ...] = (
    web_service_settings,
    rollouts,
    internet_egress,
    budget,
    secrets_in_env,
    pod_requests,
    spot_in_production,
    mutable_image_tags,
    project_id,
    *data_risks.RULES,
)
