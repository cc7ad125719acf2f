"""What can go wrong, as far as the file shows it. Pure.

The rules look at the environments that customers use: those whose name says production, else all
under review. Each rule is a generator; adding one is writing a function and naming it in `RISKS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from decimal import Decimal

from lapwing.cost.alternatives import is_production
from lapwing.cost.autopilot import fit
from lapwing.cost.environments import project_of
from lapwing.cost.ledger import Estimate
from lapwing.cost.report import span
from lapwing.review.finding import Finding, Severity, Subject
from lapwing.stack.cloud import PROJECT_ID
from lapwing.stack.load import LOCAL, LoadedStack
from lapwing.stack.resource_reference import expand

SECRET_NAME = re.compile(r"(SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL|PRIVATE|API_?KEY|ACCESS_?KEY)")
SECRET_VALUE = re.compile(r"://[^/\s:@]+:[^/\s@]+@|-----BEGIN [A-Z ]*PRIVATE KEY")
"""A URL with a password, or a key."""
KEEPS_DATA = ("mongodb", "mysql", "postgres")

Risk = Callable[[Subject, LoadedStack, Estimate], Iterator[Finding]]


def risks(subject: Subject, costs: dict[str, Estimate]) -> Iterator[Finding]:
    """The findings of every rule; `costs` is the estimate of each environment alone."""
    production = [s for s in subject.stacks if is_production(s.environment)]
    for loaded in production or subject.stacks:
        for rule in RISKS:
            yield from rule(subject, loaded, costs[loaded.environment])


def single_replica(subject: Subject, loaded: LoadedStack, _: Estimate) -> Iterator[Finding]:
    """A service that one crash takes away."""
    for name, service in loaded.stack.services.items():
        if service.kind != "web" or service.replicas.min > 1:
            continue
        where = subject.at(loaded.environment, ("services", name, "replicas"))
        yield _finding(
            "risk/single-replica",
            loaded,
            f"{where}: `{name}` runs one replica",
            "Set `replicas: 2`, so that a crash, or a node that goes, takes no request with it.",
        )


def no_health_check(subject: Subject, loaded: LoadedStack, _: Estimate) -> Iterator[Finding]:
    """A service whose open port is all that is asked."""
    for name, service in loaded.stack.services.items():
        if service.kind == "web" and service.health.path is None:
            where = subject.at(loaded.environment, ("services", name, "health"))
            yield _finding(
                "risk/no-health-check",
                loaded,
                f"{where}: `{name}` has no health path",
                "Add `health: /healthz`, a path that answers 2xx only when the service can work.",
            )


def no_smoke_test(subject: Subject, loaded: LoadedStack, _: Estimate) -> Iterator[Finding]:
    """A service whose new release nothing tries before it gets traffic."""
    for name, service in loaded.stack.services.items():
        if service.kind == "web" and not service.rollout.smoke:
            where = subject.at(loaded.environment, ("services", name, "rollout"))
            yield _finding(
                "risk/no-smoke-test",
                loaded,
                f"{where}: `{name}` has no smoke test",
                "Add `rollout: {smoke: [{get: /path, expect: 200}]}` with what users do most.",
            )


def no_analysis(subject: Subject, loaded: LoadedStack, _: Estimate) -> Iterator[Finding]:
    """A service that nobody watches after the switch."""
    for name, service in loaded.stack.services.items():
        if service.kind == "web" and service.rollout.analysis is None:
            where = subject.at(loaded.environment, ("services", name, "rollout", "analysis"))
            yield _finding(
                "risk/no-analysis",
                loaded,
                f"{where}: `{name}` is not watched after the switch",
                "Remove `analysis: false`; a bad release is then taken back by itself.",
            )


def no_backup(subject: Subject, loaded: LoadedStack, _: Estimate) -> Iterator[Finding]:
    """A database that is one mistake away from being lost."""
    for name, resource in loaded.stack.resources.items():
        if resource.kind in KEEPS_DATA and not resource.backup:
            where = subject.at(loaded.environment, ("resources", name, "backup"))
            yield _finding(
                "risk/no-backup",
                loaded,
                f"{where}: `{name}` ({resource.kind}) has no backup",
                "Back it up, try to restore it, and then set `backup: true`.",
                Severity.CRITICAL,
            )


def budget(subject: Subject, loaded: LoadedStack, cost: Estimate) -> Iterator[Finding]:
    """A bill that nobody has set a limit for, or that is over it."""
    if loaded.settings.cloud is None:
        return
    where = subject.setting(loaded.environment, "budget")
    limit = loaded.settings.budget
    if limit is None:
        yield _finding(
            "risk/no-budget",
            loaded,
            f"{where}: no budget; the estimate is {span(cost.low, cost.high)} US dollars a month",
            "Set `budget:`; `lapwing cost` then compares the estimate with it.",
        )
    elif cost.high > Decimal(str(limit)):
        over = cost.low > Decimal(str(limit))
        yield _finding(
            "risk/over-budget",
            loaded,
            f"{where}: the estimate is {span(cost.low, cost.high)}, the budget {limit:,.2f} US "
            "dollars a month",
            "See the levers of `lapwing cost`, or raise the budget.",
            Severity.CRITICAL if over else Severity.WARNING,
        )


def secrets_in_env(subject: Subject, loaded: LoadedStack, _: Estimate) -> Iterator[Finding]:
    """A secret that everyone who reads the repository can read. Its value is not told."""
    for name, service in loaded.stack.services.items():
        places: dict[tuple[str, ...], str] = {("env", k): v for k, v in service.env.items()}
        if service.build is not None:
            places |= {("build", "env", k): v for k, v in service.build.env.items()}
        for path, written in places.items():
            variable = path[-1]
            value = expand(written, lambda _resource, _part: "")  # A reference tells no secret.
            if value and (SECRET_NAME.search(variable.upper()) or SECRET_VALUE.search(value)):
                where = subject.at(loaded.environment, ("services", name, *path))
                yield _finding(
                    "risk/secret-in-env",
                    loaded,
                    f"{where}: `{variable}` of `{name}` looks like a secret in clear",
                    f"Move it to `secrets`, set it with `lapwing secret set {variable}`, and "
                    "change its value: it is in the history of git.",
                    Severity.CRITICAL,
                )


def no_requests(subject: Subject, loaded: LoadedStack, _: Estimate) -> Iterator[Finding]:
    """A pod whose size is Autopilot's default, or that Autopilot refuses."""
    if loaded.settings.cloud is None:
        return
    for name, service in loaded.stack.services.items():
        if service.kind == "job":
            continue
        asked = service.resources
        pod = fit(asked.cpu, asked.memory)
        where = subject.at(loaded.environment, ("services", name, "resources"))
        if pod.refused:
            yield _finding(
                "risk/refused-size",
                loaded,
                f"{where}: `{name}`: {pod.note}",
                "Use more and smaller replicas.",
                Severity.CRITICAL,
            )
        elif asked.cpu is None or asked.memory is None:
            yield _finding(
                "risk/no-requests",
                loaded,
                f"{where}: `{name}`: {pod.note}",
                "State `resources: {cpu: 250m, memory: 512Mi}` or what it needs; you pay for what "
                "is requested, not for what is used.",
            )


def spot_in_production(subject: Subject, loaded: LoadedStack, _: Estimate) -> Iterator[Finding]:
    """Capacity that may be taken away within 25 seconds, for customers."""
    if loaded.settings.spot and is_production(loaded.environment):
        where = subject.setting(loaded.environment, "spot")
        yield _finding(
            "risk/spot-in-production",
            loaded,
            f"{where}: `{loaded.environment}` runs on spot capacity",
            "Keep spot for staging; a commitment saves without the risk.",
        )


def images_move(subject: Subject, loaded: LoadedStack, _: Estimate) -> Iterator[Finding]:
    """An image whose tag means something else tomorrow."""
    for name, service in loaded.stack.services.items():
        image = service.image
        if image is None or "@sha256:" in image:
            continue
        tag = image.rpartition("/")[2].partition(":")[2]
        if tag in ("", "latest"):
            where = subject.at(loaded.environment, ("services", name, "image"))
            yield _finding(
                "risk/moving-image",
                loaded,
                f"{where}: `{name}` runs `{image}`, which is another image each time",
                "Name a version, or better a digest.",
            )


def project_id_too_long(subject: Subject, loaded: LoadedStack, _: Estimate) -> Iterator[Finding]:
    """A project id that follows from names and that the cloud refuses."""
    if loaded.settings.cloud is None:
        return
    project = project_of(loaded)
    if not re.fullmatch(PROJECT_ID, project):
        where = subject.setting(loaded.environment, "cloud")
        yield _finding(
            "risk/project-id",
            loaded,
            f"{where}: the project id would be `{project}` ({len(project)} characters)",
            "Set `cloud.project` to 6 to 30 lower-case letters, digits and hyphens.",
        )


def _finding(
    rule: str,
    loaded: LoadedStack,
    evidence: str,
    advice: str,
    severity: Severity = Severity.WARNING,
) -> Finding:
    """A finding; in the developer's own `local` nothing is more than information."""
    if loaded.environment == LOCAL and rule != "risk/secret-in-env":
        severity = Severity.INFO
    return Finding(rule, severity, loaded.environment, evidence, advice)


RISKS: tuple[Risk, ...] = (
    single_replica,
    no_health_check,
    no_smoke_test,
    no_analysis,
    no_backup,
    budget,
    secrets_in_env,
    no_requests,
    spot_in_production,
    images_move,
    project_id_too_long,
)
