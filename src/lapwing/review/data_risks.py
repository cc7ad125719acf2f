"""Risks of databases and caches, and of programs that get no more security fixes."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterator
from datetime import date, timedelta

from lapwing.inventory.support import support
from lapwing.review.finding import Case, Risk, Rule, Severity
from lapwing.stack.cloud import FREE_TIER
from lapwing.stack.image import HUB
from lapwing.stack.source import KeyPath
from lapwing.system.package_data import read

DATABASES = ("mongodb", "mysql", "postgres")
MAX_REHEARSAL_AGE = timedelta(days=90)
NOTICE = timedelta(days=180)
"""Extended support is reported this long before it begins."""
_REDIS_IMAGE = re.compile(r"(^|/)(redis|valkey|redis-stack-server)(:[^/@]*)?(@.*)?$")
_REDIS_COMMAND = re.compile(r"(\S*/)?(redis|valkey)-server\b")
_REDIS_LIMIT = re.compile(r"maxmemory\b|\S+\.conf\b")
"""A limit, or a file that may have one."""


def backups(case: Case) -> Iterator[Risk]:
    """Report databases without a backup, or with one that nothing makes.

    The server of a database on a machine is chosen at a deployment. So a review does not know
    which are at a URL, which backups of the environment omit: `lapwing status` lists them.
    """
    facts = case.environment.facts
    made = {b.name for b in facts.backups if b.assured}
    possible = case.loaded.settings.target == "machine" and case.loaded.settings.backup is not None
    made |= {m.part for m in facts.managed if m.product and m.backup}
    in_cluster = {p.part for p in facts.pods if p.kind == "StatefulSet"}
    prefix = f"{case.environment.name}-"
    atlas = {d.name.removeprefix(prefix): d for d in case.project.databases}
    for name, resource in case.loaded.stack.resources.items():
        path: KeyPath = ("resources", name, "backup")
        if resource.kind not in DATABASES:
            continue
        if not resource.backup and name not in made and not possible:
            evidence = f"`{name}` ({resource.kind}) has no backup"
            advice = "Configure backups, test a restore, then set `backup: true`."
            if name in in_cluster:
                advice = (
                    "Set `backup: {every: daily, to: s3://BUCKET}` of the environment, then run "
                    f"`lapwing backup verify -e {case.environment.name}`."
                )
            if case.loaded.settings.target == "machine":
                advice = (
                    "Set `backup: daily` of the environment: it contains every database that is "
                    "not at a URL. Back up those where they run, and set `backup: true` of them."
                )
            yield Risk("no-backup", path, evidence, advice, Severity.CRITICAL)
        elif name in atlas and atlas[name].tier == FREE_TIER:
            evidence = f"`{name}` has `backup: true`, but Atlas makes no backups of {FREE_TIER}"
            advice = "Use `tier: M10`, or dump the data regularly."
            yield Risk("impossible-backup", path, evidence, advice, Severity.CRITICAL)
        elif name not in made and name not in atlas and not possible:
            evidence = f"`{name}` has `backup: true`, but Lapwing renders no backup for it"
            advice = "Check that your backup runs, and rehearse a restore."
            yield Risk("stated-backup", path, evidence, advice, Severity.INFO)


def rehearsals(case: Case) -> Iterator[Risk]:
    """Report backups of which none was restored or verified for a quarter of a year."""
    name = case.environment.name
    if name not in case.rehearsals:
        return
    last = case.rehearsals[name]
    if last is None or case.today - last > MAX_REHEARSAL_AGE:
        since = f"since {last}" if last else "yet"
        evidence = f"no backup of `{name}` has been restored or verified {since}"
        advice = f"Run `lapwing backup verify -e {name}`, at least every three months."
        yield Risk("untested-backup", ("backup",), evidence, advice)


def unlimited_redis(case: Case) -> Iterator[Risk]:
    """Report services that run Redis without a limit; that of a resource has one."""
    for name, service in case.loaded.stack.services.items():
        command = service.command or ""
        runs = _REDIS_IMAGE.search(service.image or "") or _REDIS_COMMAND.match(command)
        if runs and not _REDIS_LIMIT.search(command):
            evidence = f"`{name}` runs Redis without `maxmemory`: it is killed when memory runs out"
            advice = "Add `--maxmemory` to `command`, or use a resource: `kind: redis` has a limit."
            yield Risk("unlimited-redis", ("services", name), evidence, advice)


def single_pods(case: Case) -> Iterator[Risk]:
    """Report databases of one pod behind services that are meant to survive the loss of one."""
    services = case.loaded.stack.services
    for pods in case.environment.facts.pods:
        if pods.kind != "StatefulSet" or pods.component not in DATABASES or pods.max > 1:
            continue
        users = [n for n, s in services.items() if pods.part in s.needs and s.replicas.min > 1]
        if users:
            evidence = f"`{pods.part}` is one pod, needed by {', '.join(f'`{u}`' for u in users)}"
            advice = (
                "Set `managed: true` and use a database of the cloud with a standby, or accept an "
                "outage of minutes when its node is replaced."
            )
            path: KeyPath = ("resources", pods.part)
            yield Risk("single-pod-database", path, evidence, advice)


def end_of_life(case: Case) -> Iterator[Risk]:
    """Report programs, by the images that run, that get no more security fixes."""
    resources = case.loaded.stack.resources
    hub = (case.loaded.settings.registry_mirror or HUB).rstrip("/")
    for pods in case.environment.facts.pods:
        for image in pods.images:
            ended = _ended(image.removeprefix(f"{hub}/"), case.today)
            if ended is None:
                continue
            path: KeyPath = (
                ("resources", pods.part, "version")
                if pods.part in resources
                else ("services", pods.part, "image")
            )
            evidence = f"`{pods.part}` runs `{image}`, without security fixes since {ended}"
            yield Risk("end-of-life", path, evidence, "Plan the upgrade to a supported version.")


def managed_versions(case: Case) -> Iterator[Risk]:
    """Report managed databases whose version is in extended support or unsupported."""
    versions = [("Cloud SQL", m.kind, m.part, m.version) for m in case.environment.facts.managed]
    prefix = f"{case.environment.name}-"
    versions += [
        ("MongoDB Atlas", "mongodb", d.name.removeprefix(prefix), d.version)
        for d in case.project.databases
    ]
    for product, kind, part, version in versions:
        dates = support(kind, version)
        path: KeyPath = ("resources", part, "version")
        running = f"`{part}` runs {kind} {version}"
        if dates.ends is not None and dates.ends < case.today:
            evidence = f"{running}, which {product} does not support since {dates.ends}"
            advice = "Plan the upgrade to a supported version: the provider may do it at any time."
            yield Risk("end-of-life", path, evidence, advice)
        elif dates.extended is not None and dates.extended <= case.today + NOTICE:
            begins = "bills" if dates.extended <= case.today else "will bill"
            evidence = (
                f"{running}, for which {product} {begins} extended support, from {dates.extended}"
            )
            advice = (
                f"Upgrade to a newer version before {dates.ends}; until then each vCPU costs more."
            )
            late = dates.extended <= case.today
            severity = Severity.WARNING if late else Severity.INFO
            yield Risk("extended-support", path, evidence, advice, severity)


def _ended(image: str, today: date) -> date | None:
    """Return since when a version of an official image has no fixes, if it has none."""
    name, _, tag = image.partition("@")[0].removeprefix(f"{HUB}/").rpartition(":")
    versions = _versions().get(name.removeprefix("library/"), {})
    version = tag.partition("-")[0].split(".")
    for length in range(len(version), 0, -1):
        last = versions.get(".".join(version[:length]))
        if last is not None:
            return last if last < today else None
    return None


@functools.cache
def _versions() -> dict[str, dict[str, date]]:
    found: dict[str, dict[str, date]] = tomllib.loads(read("review", "end_of_life.toml"))
    return found


RULES: tuple[Rule, ...] = (
    backups,
    rehearsals,
    single_pods,
    unlimited_redis,
    end_of_life,
    managed_versions,
)
