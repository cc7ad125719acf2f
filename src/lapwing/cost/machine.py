"""The lines of an environment on a machine: the server, its disk, its address, its traffic."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from fnmatch import fnmatch

from lapwing.cost.book import HOURS, Book, MachineType
from lapwing.cost.ledger import Ledger
from lapwing.inventory.model import Environment, HostMachine

DISK = Decimal(20)
"""GiB for the system, releases and logs where a type includes no disk."""
GIB = Decimal(2**30)
TB = Decimal(10**12)


def add_machine(ledger: Ledger, environment: Environment) -> None:
    """Add the machine of an environment, if the stack file names its type."""
    wanted = environment.machine
    if wanted is None:
        reason = "`machine` is not set: `machine: {provider, type, location}`"
        ledger.add_unpriced("machine", "The machine", "month", reason, Decimal(1))
        return
    found = find_machine(ledger.book, wanted)
    if found is None:
        item = f"{wanted.provider} {wanted.type} in {wanted.location}"
        known = ", ".join(dict.fromkeys(_near(ledger.book, wanted)))
        reason = "no price is recorded" + (f"; there is one for {known}" if known else "")
        ledger.add_unpriced("machine", item, "month", reason, Decimal(1))
        return
    add_type(ledger.scoped(replace(ledger.scope, region=wanted.location)), found, environment)


def find_machine(book: Book, wanted: HostMachine) -> MachineType | None:
    """Return the machine type of a provider in a location, if it has a price."""
    for each in book.machines:
        same = (each.provider, each.name.lower()) == (wanted.provider, wanted.type.lower())
        if same and any(fnmatch(wanted.location, place) for place in each.locations):
            return each
    return None


def _near(book: Book, wanted: HostMachine) -> list[str]:
    """List where the type has a price, else the types of the location."""
    own = [m for m in book.machines if m.provider == wanted.provider]
    same = [place for m in own if m.name.lower() == wanted.type.lower() for place in m.locations]
    return same or [m.name for m in own if wanted.location in (*m.locations, "*")]


def add_type(ledger: Ledger, found: MachineType, environment: Environment) -> None:
    """Add a machine type with what it needs: a disk and an address if it includes none."""
    about = f"{found.cpu} vCPU, {found.memory.normalize():f} GiB"
    if not found.available:
        about += "; not offered to new customers when the price was read"
    name = f"{found.provider} {found.name}"
    ledger.add_price("machine", name, found.price, Decimal(1), about)
    if found.disk is None:
        disks = {"gcp": "disk.balanced", "aws": "disk.aws", "azure": "disk.azure"}
        size = Decimal(1) if found.provider == "azure" else DISK
        ledger.add("machine", "Disk", disks[found.provider], size)
        ledger.add("machine", "IP address", f"address.{found.provider}", HOURS)
    usage = environment.usage
    if usage.sent is None and usage.static is None:
        return
    sent = Decimal((usage.sent or 0) + (usage.static or 0))
    if found.provider == "gcp":
        ledger.add("traffic", "Internet egress", "internet.sent", sent / GIB)
    elif found.transfer is None:
        ledger.add("traffic", "Internet egress", f"sent.{found.provider}", sent / 10**9)
    elif sent > found.transfer * TB:
        note = f"above the {found.transfer} TB that the type includes; no price is recorded"
        ledger.add_unpriced("traffic", "Internet egress", "TB", note, sent / TB - found.transfer)
