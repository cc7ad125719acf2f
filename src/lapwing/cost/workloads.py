"""The lines of what runs in an environment: pods, second slots, jobs, disks, databases.

Jobs run once for each deployment, and each run is expected to take a minute. A rollout keeps both
slots for `keep_old` and the analysis, but never for more hours than a month has.
"""

from __future__ import annotations

from decimal import Decimal

from lapwing.cost.book import HOURS
from lapwing.cost.ledger import Ledger, Quantity, between
from lapwing.inventory.autopilot import GIB, show
from lapwing.inventory.model import Environment, ManagedService, Pods
from lapwing.inventory.support import support
from lapwing.plan.model import JOB_TIMEOUT_S
from lapwing.stack import cron

JOB_HOURS = Decimal(1) / 60
"""The expected duration of a job."""
NONE = Decimal(0)
KINDS = (("cpu", "vCPU"), ("memory", "memory"))


def add_workloads(ledger: Ledger, environment: Environment) -> None:
    """Add the pods of an environment in a cluster, and their disks and databases."""
    facts = environment.facts
    running = [p for p in facts.pods if p.kind != "Job"]
    for pods in running:
        _add_pods(ledger, pods)
    storage = [p.storage * HOURS for p in running]
    low = sum((s * p.min for s, p in zip(storage, running, strict=True)), NONE)
    high = sum((s * p.max for s, p in zip(storage, running, strict=True)), NONE)
    if running:
        note = "the node disk that the pods request"
        ledger.add(
            "pods", "Ephemeral storage of pods", "autopilot.storage", between(low, high), note
        )
    _add_second_slots(ledger, environment, running)
    _add_jobs(ledger, environment)
    for disk in facts.disks:
        part = next((p.part for p in running if disk.name.endswith(p.name)), disk.name)
        size = Decimal(disk.size) / GIB * disk.count
        ledger.add(part, f"{part}: disk", "disk.balanced", size)
    for managed in facts.managed:
        _add_managed(ledger, managed)


def _price(pods: Pods, what: str) -> str:
    return f"autopilot.spot.{what}" if pods.spot else f"autopilot.{what}"


def _add_pods(ledger: Ledger, pods: Pods) -> None:
    """Add the requests of pods, for every hour of the month."""
    pod = pods.billed
    about = ("spot; " if pods.spot else "") + f"{_count(pods)} of {show(pod.cpu, pod.memory)}"
    note = "; ".join(n for n in (about, pod.note) if n)
    for what, label in KINDS:
        size = getattr(pod, what) * HOURS
        quantity = between(size * pods.min, size * pods.max)
        ledger.add(pods.part, f"{pods.part}: {label}", _price(pods, what), quantity, note)


def _add_second_slots(ledger: Ledger, environment: Environment, running: list[Pods]) -> None:
    """Add the second slot of rollouts: for one service per deployment, or for all."""
    deployments = environment.usage.deployments
    released = [p for p in running if p.second_slot_s > 0]
    if not deployments or not released:
        return
    note = f"{deployments} deployments, both slots during `keep_old` and the analysis"
    hours = {p.name: min(Decimal(p.second_slot_s) / 3600 * deployments, HOURS) for p in released}
    for what, label in KINDS:
        for price in dict.fromkeys(_price(p, what) for p in released):
            same = [p for p in released if _price(p, what) == price]
            each = [(p, getattr(p.billed, what) * hours[p.name]) for p in same]
            low, high = min(h * p.min for p, h in each), sum((h * p.max for p, h in each), NONE)
            item = f"Second slot during rollouts: {label}"
            ledger.add("rollouts", item, price, between(low, high), note)


def _add_jobs(ledger: Ledger, environment: Environment) -> None:
    """Add the runs of jobs: from no time at all to their time limit."""
    deployments = environment.usage.deployments
    for job in (p for p in environment.facts.pods if p.kind == "Job"):
        runs = round(cron.runs_in_a_month(job.schedule)) if job.schedule else deployments
        if not runs:
            continue
        limit = min(Decimal((job.deadline_s or int(JOB_TIMEOUT_S)) * runs) / 3600, HOURS)
        hours = (NONE, min(JOB_HOURS * runs, limit), limit)
        note = f"{runs} runs; expected is a minute each, high the time limit"
        for what, label in KINDS:
            size: Decimal = getattr(job.billed, what)
            quantity: Quantity = (size * hours[0], size * hours[1], size * hours[2])
            ledger.add("jobs", f"{job.part}: {label} of the job", _price(job, what), quantity, note)
        if job.scratch:
            kept, size = Decimal(job.kept_s * runs) / 3600, Decimal(job.scratch) / GIB
            low, expected, high = (size * min(h + kept, HOURS) / HOURS for h in hours)
            about = f"{note}; it exists {job.kept_s // 60} minutes longer"
            item = f"{job.part}: volume of the job"
            ledger.add("jobs", item, "disk.balanced", (low, expected, high), about)


def _add_managed(ledger: Ledger, managed: ManagedService) -> None:
    """Add a database of Cloud SQL (Enterprise) or Memorystore; a standby is in its price."""
    part, ha = managed.part, ".ha" if managed.standby else ""
    about = "with a standby in another zone" if managed.standby else "in one zone"
    memory = Decimal(managed.memory) / GIB
    if managed.kind == "redis":
        tier = next(n for n, most in enumerate((4, 10, 35, 100, 10**9), 1) if memory <= most)
        item, price = f"{part}: Memorystore", f"redis{ha}.M{tier}"
        ledger.add(part, item, price, memory * HOURS, f"{memory:f} GiB, {about}")
        return
    disk = Decimal(managed.storage) / GIB
    size = f"{managed.cpu} vCPU, {memory.normalize():f} GiB, {about}"
    ledger.add(part, f"{part}: Cloud SQL vCPU", f"sql{ha}.cpu", managed.cpu * HOURS, size)
    ledger.add(part, f"{part}: Cloud SQL memory", f"sql{ha}.memory", memory * HOURS)
    since = support(managed.kind, managed.version).extended
    if since is not None and since <= ledger.today:
        note = f"version {managed.version}, since {since}"
        quantity = managed.cpu * HOURS
        ledger.add(part, f"{part}: Cloud SQL extended support", f"sql{ha}.extended", quantity, note)
    ledger.add(part, f"{part}: Cloud SQL disk", f"sql{ha}.storage", disk)
    if managed.backup:
        note = "low is an empty database, expected one full copy, high seven"
        copies = (NONE, disk, 7 * disk)
        ledger.add(part, f"{part}: Cloud SQL backups", "sql.backup", copies, note)


def _count(pods: Pods) -> str:
    if pods.min == pods.max:
        return f"{pods.min} pod{'s' if pods.min > 1 else ''}"
    return f"{pods.min} to {pods.max} pods"
