"""Five bills computed by hand, every line of them.

Only the price files are read here. Each quantity and each multiplication is written out, as on
paper, from the stack files and what Lapwing renders of them; no code of the estimate is called.
A month has 730 hours. A line is (low, expected, high), or one amount for all three.
"""

from __future__ import annotations

import csv
import tomllib
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from pathlib import Path

import pytest

import lapwing.cost
from lapwing.cost.book import book
from lapwing.cost.estimate import estimate
from lapwing.inventory.read import read
from tests.unit.cost.stacks import stacks

PRICES = Path(lapwing.cost.__file__).parent / "prices"
REGIONS = {
    row["region"]: row
    for row in csv.DictReader((PRICES / "gcp-regions.csv").read_text().splitlines())
}
ITEMS = {
    price["item"]: price
    for name in ("gcp", "atlas", "machine")
    for price in reversed(tomllib.loads((PRICES / f"{name}.toml").read_text())["price"])
}
Amounts = tuple[Fraction, Fraction, Fraction]
MONTH = 730
GIB = 2**30
HALF = Fraction(1, 2)


def price(item: str, region: str = "") -> Fraction:
    """The price of the first unit, from the table of regions or the list of items."""
    return Fraction(REGIONS[region][item] if region else ITEMS[item]["price"])


def ceiling(item: str) -> Fraction:
    """The highest price, where the vendor states a range."""
    return Fraction(ITEMS[item]["ceiling"])


def same(amount: Fraction) -> Amounts:
    """A line whose amount does not depend on an assumption."""
    return amount, amount, amount


def between(low: Fraction, high: Fraction) -> Amounts:
    """A line that is expected to be halfway."""
    return low, (low + high) * HALF, high


def edge(
    most: int, cores: Fraction, mebibytes: int, cpu: Fraction, memory: Fraction
) -> dict[str, Amounts]:
    """The edge of production: two pods at least, and so many at most."""
    gib = Fraction(mebibytes, 1024)
    return {
        "production edge: vCPU": between(2 * cores * MONTH * cpu, most * cores * MONTH * cpu),
        "production edge: memory": between(2 * gib * MONTH * memory, most * gib * MONTH * memory),
    }


def zero() -> Amounts:
    """A line within a free volume."""
    return same(Fraction(0))


def company_inc() -> dict[str, Amounts]:
    """One API of 1 vCPU and 2 GiB, a page, an Atlas M10, 20 deployments, us-central1."""
    cpu, memory = price("autopilot.cpu", "us-central1"), price("autopilot.memory", "us-central1")
    # 2 to 3 edge pods of 110m, 448Mi: a tenth of 2.1 vCPU, and 10,500 connections. 11 controller
    # pods with at least 50m, 52Mi each, of which
    # `overhead` states 500m, 1Gi: the CPU is below the minimum of 11 pods.
    # Both slots: `keep_old` 600 s and the window of 10 s of api, 600 s and 10 s of web, 20 times.
    api_slot, web_slot = Fraction(20 * 610, 3600), Fraction(20 * 610, 3600)
    sent, received, static, nat = 10, 2, 20, 5
    atlas = price("atlas.M10") * MONTH
    return {
        "production api: vCPU": between(2 * 1 * MONTH * cpu, 3 * 1 * MONTH * cpu),
        "production api: memory": between(2 * 2 * MONTH * memory, 3 * 2 * MONTH * memory),
        "production web: vCPU": between(
            2 * Fraction("0.05") * MONTH * cpu, 3 * Fraction("0.05") * MONTH * cpu
        ),
        "production web: memory": between(
            2 * Fraction(64, 1024) * MONTH * memory, 3 * Fraction(64, 1024) * MONTH * memory
        ),
        **edge(3, Fraction("0.11"), 448, cpu, memory),
        # api and web request 100 MiB of node disk each, the edge 100 MiB.
        "production Ephemeral storage of pods": between(
            6 * Fraction(100, 1024) * MONTH * price("autopilot.storage", "us-central1"),
            9 * Fraction(100, 1024) * MONTH * price("autopilot.storage", "us-central1"),
        ),
        "production Second slot during rollouts: vCPU": between(
            2 * Fraction("0.05") * web_slot * cpu,
            (3 * 1 * api_slot + 3 * Fraction("0.05") * web_slot) * cpu,
        ),
        "production Second slot during rollouts: memory": between(
            2 * Fraction(64, 1024) * web_slot * memory,
            (3 * 2 * api_slot + 3 * Fraction(64, 1024) * web_slot) * memory,
        ),
        "production Load balancer: inbound data": same(
            received * price("balancer.received", "us-central1")
        ),
        "production Load balancer: outbound data": same(
            sent * price("balancer.sent", "us-central1")
        ),
        "production Internet egress": same(sent * price("internet.sent", "us-central1")),
        "production CDN: egress": same(static * Fraction("0.08")),
        "production CDN: cache fill": (
            Fraction(0),
            static * Fraction(1, 10) * (Fraction("0.01") + Fraction("0.04")) * HALF,
            static * Fraction("0.04"),
        ),
        "production CDN: cache lookups": same(50 * price("cdn.lookups")),
        "production Data between zones": (
            Fraction(0),
            (sent + received + static * Fraction(1, 10)) * Fraction(2, 3) * price("zone.data"),
            (sent + received + static) * 2 * price("zone.data"),
        ),
        "production db: Atlas M10": same(atlas),
        "production db: auto-scaling to M30": (
            Fraction(0), Fraction(0), price("atlas.M30") * MONTH - atlas,
        ),
        "production db: Atlas snapshots": (
            Fraction(0),
            10 * (price("atlas.snapshots") + ceiling("atlas.snapshots")) * HALF,
            30 * ceiling("atlas.snapshots"),
        ),
        "production db: Atlas point-in-time backups": (
            Fraction(0),
            (10 - 5) * (price("atlas.point-in-time") + ceiling("atlas.point-in-time")) * HALF,
            (30 - 5) * ceiling("atlas.point-in-time"),
        ),
        "production db: private endpoint": same(MONTH * price("atlas.endpoint", "us-central1")),
        "production overhead: vCPU": same(11 * Fraction("0.05") * MONTH * cpu),
        "production overhead: memory": same(1 * MONTH * memory),
        "production Cluster fee": same(MONTH * price("gke.cluster")),
        "production Credit for one cluster": same(-MONTH * price("gke.cluster")),
        "production Load balancer: forwarding rules": same(MONTH * price("balancer.first-rules")),
        "production NAT gateway": same(2 * MONTH * price("nat.gateway")),
        "production NAT address": same(MONTH * price("nat.address")),
        "production NAT: processed data": same(nat * price("nat.data")),
        "production Private endpoints of the cloud": same(MONTH * price("endpoint")),
        "production Logs": zero(),
        # The job runs 20 times: a minute each, at most 10 minutes.
        **_job("production migrate", 20, 600, cpu, memory),
        "shared Secret versions": zero(),
        "shared Secret access operations": zero(),
        "shared DNS zones": same(price("dns.zone")),
        "shared DNS queries": (
            Fraction(0), Fraction(1, 10) * price("dns.queries"), price("dns.queries"),
        ),
        "shared Image storage": same((5 - HALF) * price("registry.storage")),
        # api, web and migrate have an image each.
        "shared Image scans": between(20 * price("registry.scan"), 60 * price("registry.scan")),
    }  # fmt: skip


def _job(
    name: str, runs: int, limit_s: int, cpu: Fraction, memory: Fraction,
    size: tuple[Fraction, Fraction] = (Fraction("0.1"), Fraction(128, 1024)),
) -> dict[str, Amounts]:  # fmt: skip
    minutes, limit = Fraction(runs, 60), Fraction(runs * limit_s, 3600)
    return {
        f"{name}: {label} of the job": (
            Fraction(0), minutes * amount * unit, limit * amount * unit,
        )
        for label, amount, unit in (("vCPU", size[0], cpu), ("memory", size[1], memory))
    }  # fmt: skip


def worked_check() -> dict[str, Amounts]:
    """The reference of the price list: 103.97 without what serves the requests (edge, DNS)."""
    cpu, memory = price("autopilot.cpu", "us-central1"), price("autopilot.memory", "us-central1")
    # Ten secrets, each read every 5 minutes; the first 10,000 reads and 6 versions are free.
    reads = Fraction(10 * MONTH * 12, 10_000) - 1
    return {
        "production api: vCPU": same(2 * 1 * MONTH * cpu),
        "production api: memory": same(2 * 2 * MONTH * memory),
        **edge(3, Fraction("0.1"), 448, cpu, memory),
        "production Ephemeral storage of pods": between(
            4 * Fraction(100, 1024) * MONTH * price("autopilot.storage", "us-central1"),
            5 * Fraction(100, 1024) * MONTH * price("autopilot.storage", "us-central1"),
        ),
        "production overhead: vCPU": same(Fraction("0.55") * MONTH * cpu),
        "production overhead: memory": same(Fraction(572, 1024) * MONTH * memory),
        "production Cluster fee": same(MONTH * price("gke.cluster")),
        "production Credit for one cluster": same(-MONTH * price("gke.cluster")),
        "production Load balancer: forwarding rules": same(MONTH * price("balancer.first-rules")),
        "production NAT gateway": same(2 * MONTH * price("nat.gateway")),
        "production NAT address": same(MONTH * price("nat.address")),
        "production Logs": zero(),
        "shared Secret versions": same((10 - 6) * price("secrets.version")),
        "shared Secret access operations": same(reads * price("secrets.access")),
        "shared DNS zones": same(price("dns.zone")),
        "shared DNS queries": (
            Fraction(0), Fraction(1, 10) * price("dns.queries"), price("dns.queries"),
        ),
        "shared Image storage": same((5 - HALF) * price("registry.storage")),
    }  # fmt: skip


def managed() -> dict[str, Amounts]:
    """Cloud SQL of 2 vCPU, 8 GiB and 100 GiB, 5 GiB of Memorystore, 2 TiB sent, Frankfurt."""
    region = "europe-west3"
    cpu, memory = price("autopilot.cpu", region), price("autopilot.memory", region)
    sent, received = 2048, 100
    # 1,000 deployments with `keep_old: 1d` would be 24,000 hours; a month has 730.
    slot = MONTH
    # 11 pods of controllers without stated requests: 50m, 52Mi at least, 500m, 2Gi by default.
    least, most = 11 * Fraction("0.05"), 11 * HALF
    least_memory, most_memory = 11 * Fraction(52, 1024), Fraction(11 * 2)
    storage = Fraction(100, 1024) * MONTH * price("autopilot.storage", region)
    return {
        "production api: vCPU": between(2 * HALF * MONTH * cpu, 6 * HALF * MONTH * cpu),
        "production api: memory": between(2 * 1 * MONTH * memory, 6 * 1 * MONTH * memory),
        **edge(3, Fraction("0.1"), 320, cpu, memory),
        "production Ephemeral storage of pods": between(4 * storage, 9 * storage),
        "production Second slot during rollouts: vCPU": between(
            2 * HALF * slot * cpu, 6 * HALF * slot * cpu
        ),
        "production Second slot during rollouts: memory": between(
            2 * 1 * slot * memory, 6 * 1 * slot * memory
        ),
        # Both have a standby in another zone.
        "production db: Cloud SQL vCPU": same(2 * MONTH * price("sql.ha.cpu", region)),
        "production db: Cloud SQL memory": same(8 * MONTH * price("sql.ha.memory", region)),
        "production db: Cloud SQL disk": same(100 * price("sql.ha.storage", region)),
        "production db: Cloud SQL backups": (
            Fraction(0), 100 * price("sql.backup", region), 700 * price("sql.backup", region),
        ),
        "production cache: Memorystore": same(5 * MONTH * price("redis.ha.M2", region)),
        "production Load balancer: inbound data": same(
            received * price("balancer.received", region)
        ),
        "production Load balancer: outbound data": same(sent * price("balancer.sent", region)),
        "production Internet egress": same(
            1024 * price("internet.sent", region) + 1024 * price("internet.sent@1024", region)
        ),
        "production Data between zones": (
            Fraction(0),
            (sent + received) * Fraction(2, 3) * price("zone.data"),
            (sent + received) * 2 * price("zone.data"),
        ),
        "production overhead: vCPU": (
            least * MONTH * cpu, most * MONTH * cpu, most * MONTH * cpu,
        ),
        "production overhead: memory": (
            least_memory * MONTH * memory, most_memory * MONTH * memory,
            most_memory * MONTH * memory,
        ),
        "production Cluster fee": same(MONTH * price("gke.cluster")),
        "production Credit for one cluster": same(-MONTH * price("gke.cluster")),
        "production Load balancer: forwarding rules": same(MONTH * price("balancer.first-rules")),
        "production NAT gateway": same(2 * MONTH * price("nat.gateway")),
        "production NAT address": same(MONTH * price("nat.address")),
        "production NAT: processed data": same(1 * price("nat.data")),
        "production Logs": zero(),
        # The URLs of both databases are secrets: 2 x 8,760 reads, of which 10,000 are free.
        "shared Secret versions": zero(),
        "shared Secret access operations": same(
            (Fraction(2 * MONTH * 12, 10_000) - 1) * price("secrets.access")
        ),
        "shared DNS zones": same(price("dns.zone")),
        "shared DNS queries": (
            Fraction(0), Fraction(1, 10) * price("dns.queries"), price("dns.queries"),
        ),
        "shared Image storage": same((2 - HALF) * price("registry.storage")),
    }  # fmt: skip


def vps() -> dict[str, Amounts]:
    """The same service on a server of each provider; 150 GB sent."""
    machines = {
        (row["provider"], row["type"], place): Fraction(row["price"])
        for row in csv.DictReader((PRICES / "machines.csv").read_text().splitlines())
        for place in row["locations"].split()
    }
    euro = price("euro")
    gib = Fraction(150 * 10**9, GIB)
    address = MONTH * Fraction("0.005")
    return {
        "hetzner hetzner cpx22": same(machines["hetzner", "cpx22", "fsn1"] * euro),
        "digitalocean digitalocean s-2vcpu-4gb": same(machines["digitalocean", "s-2vcpu-4gb", "*"]),
        "gcp gcp e2-medium": same(MONTH * price("machine.e2-medium", "europe-west3")),
        "gcp Disk": same(20 * price("disk.balanced", "europe-west3")),
        "gcp IP address": same(address),
        "gcp Internet egress": same(gib * price("internet.sent", "europe-west3")),
        "aws aws t3.medium": same(MONTH * machines["aws", "t3.medium", "eu-central-1"]),
        "aws Disk": between(20 * price("disk.aws"), 20 * ceiling("disk.aws")),
        "aws IP address": same(address),
        "aws Internet egress": same(150 * price("sent.aws")),
        "azure azure Standard_B2s": same(MONTH * machines["azure", "Standard_B2s", "westeurope"]),
        "azure Disk": same(price("disk.azure")),
        "azure IP address": same(address),
    }


def fleetdm() -> dict[str, Amounts]:
    """Fleet with MySQL and Redis in the cluster, applied without Argo, four deployments."""
    cpu, memory = price("autopilot.cpu", "us-central1"), price("autopilot.memory", "us-central1")
    storage = price("autopilot.storage", "us-central1")
    disk = price("disk.balanced", "us-central1")
    gib = Fraction(20 * 10**9, GIB)
    # 4 GiB of memory need 4 / 6.5 vCPU, rounded up to a thousandth: 616m.
    feeds = Fraction("0.616")
    # Node disk: 100 MiB a pod (mysql, redis, edge); 2 GiB and 256 MiB of fleet.
    fixed, each = Fraction(100 + 100 + 2 * 100, 1024), Fraction(2048 + 256, 1024)
    # vCPU of all pods: 1 + 0.25 + 0.2 and 2 to 4 of fleet; two to a node.
    low_nodes, high_nodes = 2, 3
    return {
        "production mysql: vCPU": same(1 * MONTH * cpu),
        "production mysql: memory": same(4 * MONTH * memory),
        "production redis-master: vCPU": same(Fraction("0.25") * MONTH * cpu),
        "production redis-master: memory": same(1 * MONTH * memory),
        "production fleet: vCPU": between(2 * MONTH * cpu, 4 * MONTH * cpu),
        "production fleet: memory": between(2 * 2 * MONTH * memory, 4 * 2 * MONTH * memory),
        **edge(4, Fraction("0.1"), 448, cpu, memory),
        "production Ephemeral storage of pods": between(
            (fixed + 2 * each) * MONTH * storage,
            (fixed + Fraction(2 * 100, 1024) + 4 * each) * MONTH * storage,
        ),
        **_job(
            "production fleet-migrate", 4, 600, cpu, memory, (Fraction(1), Fraction(2))
        ),
        **_job("production vulnerabilities", MONTH, 3300, cpu, memory, (feeds, Fraction(4))),
        **_job(
            "production setup", 4, 1800, cpu, memory, (Fraction("0.05"), Fraction(64, 1024))
        ),
        "production mysql: disk": same(50 * disk),
        "production redis-master: disk": same(1 * disk),
        "production Load balancer: inbound data": same(
            gib * price("balancer.received", "us-central1")
        ),
        "production Load balancer: outbound data": same(
            gib * price("balancer.sent", "us-central1")
        ),
        "production Internet egress": same(gib * price("internet.sent", "us-central1")),
        "production Data between zones": (
            Fraction(0),
            2 * gib * Fraction(2, 3) * price("zone.data"),
            2 * gib * 2 * price("zone.data"),
        ),
        "production overhead: vCPU": same(Fraction("0.1") * MONTH * cpu),
        "production overhead: memory": same(Fraction(256, 1024) * MONTH * memory),
        "production Cluster fee": same(MONTH * price("gke.cluster")),
        "production Credit for one cluster": same(-MONTH * price("gke.cluster")),
        "production Load balancer: forwarding rules": same(MONTH * price("balancer.first-rules")),
        "production NAT gateway": between(
            low_nodes * MONTH * price("nat.gateway"), high_nodes * MONTH * price("nat.gateway")
        ),
        "production NAT address": same(MONTH * price("nat.address")),
        "production NAT: processed data": same(gib * HALF * price("nat.data")),
        "production Logs": zero(),
        "shared DNS zones": same(price("dns.zone")),
        "shared DNS queries": (
            Fraction(0), Fraction(1, 10) * price("dns.queries"), price("dns.queries"),
        ),
        "shared Image storage": same((1 - HALF) * price("registry.storage")),
    }  # fmt: skip


def cents(amount: Fraction) -> Decimal:
    """Round to the cent."""
    exact = Decimal(amount.numerator) / Decimal(amount.denominator)
    return exact.quantize(Decimal("0.01"), ROUND_HALF_UP)


@pytest.mark.parametrize(
    ("case", "by_hand"),
    [
        ("company-inc", company_inc()),
        ("worked-check", worked_check()),
        ("managed", managed()),
        ("vps", vps()),
        ("fleetdm", fleetdm()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_line_equals_manual_calculation(case: str, by_hand: dict[str, Amounts]) -> None:
    found = estimate(read(stacks(case)), book())
    known = {
        f"{x.environment} {x.item}": (x.low, x.expected, x.high) for x in found.lines if x.known
    }
    assert known == {
        name: tuple(cents(amount) for amount in amounts) for name, amounts in by_hand.items()
    }
    total = sum(cents(low) for low, _, _ in by_hand.values())
    assert found.low == total


def test_reference_of_the_price_list_is_kept() -> None:
    """103.97 a month, computed from the vendors' pages; reads of secrets are counted since."""
    by_hand = worked_check()
    later = ("edge", "overhead", "DNS", "Ephemeral", "access")
    reference = [low for name, (low, _, _) in by_hand.items() if not any(w in name for w in later)]
    assert sum(cents(low) for low in reference) == Decimal("103.97")
