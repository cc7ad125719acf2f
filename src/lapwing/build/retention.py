"""Retention: bound the disk use, and keep every active release and rollback target.

Of each service the releases that are named to be kept stay, those used in the last minutes (a
deployment may have just chosen one and not yet committed), and the newest few; fewer of large ones,
since each release has a copy of its dependencies. A layer stays while a process release that
stays names it, or the newest static one, for the next build. What to remove is decided by pure
functions over what is there; the removal takes the lock of each folder, looks once more at its
time, and renames it before deleting, so it can be interrupted, and can run while something is
built.

A service that is not in the arguments of `collect` is skipped, because its rollback targets are
unknown.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lapwing.build import layers
from lapwing.build.release import Release, ReleaseStore
from lapwing.settings import Settings

NEWEST = 10
"""Releases kept of each service beside those that have to be."""
FEWEST = 2
"""Releases kept of each service, whatever their size."""
MAX_BYTES = 2 * 2**30
"""Disk use from which fewer than NEWEST releases of a service are kept."""
YOUNGEST = 600.0
"""Seconds since its last use in which nothing is removed."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A folder of the store: its name, and when it was made or last chosen, in Unix time."""

    name: str
    used: float


@dataclass(frozen=True, slots=True)
class Collected:
    """What was removed, as paths below LAPWING_HOME, and the bytes that were freed."""

    removed: tuple[str, ...]
    bytes: int


def to_remove(
    releases: Iterable[Stored],
    keep: Collection[str],
    *,
    now: float,
    newest: int = NEWEST,
    youngest: float = YOUNGEST,
) -> list[str]:
    """Return which releases of one service (or layers, or toolchains) can be removed.

    Kept are those in `keep`, the `newest` ones, and those used in the last `youngest` seconds or
    in the future.
    """
    ordered = sorted(releases, key=lambda r: (-r.used, r.name))
    return [r.name for r in ordered[newest:] if r.name not in keep and now - r.used >= youngest]


def affordable(sizes: Iterable[int], limit: int = MAX_BYTES) -> int:
    """Return how many releases of these sizes, newest first, fit in `limit`: at least FEWEST."""
    count = sum(total <= limit for total in itertools.accumulate(sizes))
    return max(FEWEST, count)


def collect(
    settings: Settings,
    keep: Mapping[tuple[str, str], Collection[str]],
    *,
    newest: int = NEWEST,
    youngest: float = YOUNGEST,
) -> Collected:
    """Remove releases, layers and toolchains that are no longer needed.

    `keep` has, for each stack and service, the releases that are active, warm or a rollback target
    in any environment; an empty collection without any.

    Raises OSError if a folder cannot be removed; what was removed until then stays removed.
    """
    store, now = ReleaseStore(settings.releases), time.time()
    work = _Removal(settings.home, now - youngest)
    for stack, service in store.services():
        folder = settings.releases / stack / service
        if (stack, service) in keep:
            names = store.names(stack, service)
            sizes = [release.size for release in store.list(stack, service)]
            whole = {name for name in names if store.find(stack, service, name)}
            spare_whole = min(newest, affordable(sizes))
            for group, spare in ((whole, spare_whole), (set(names) - whole, 0)):
                found = [_stored(folder / name) for name in group]
                wanted = keep[stack, service]
                for name in to_remove(found, wanted, now=now, newest=spare, youngest=youngest):
                    work.remove(folder / name)
        layers.sweep(folder)
    _collect_shared(settings, store, work, now=now, youngest=youngest)
    return Collected(tuple(work.removed), work.bytes)


def _collect_shared(
    settings: Settings, store: ReleaseStore, work: _Removal, *, now: float, youngest: float
) -> None:
    """Remove layers and toolchains that no release names.

    The toolchain that was used last is kept: the next static build needs it and does not record it.
    """
    releases = _remaining(store)
    for folder, kept in ((settings.layers, 0), (settings.toolchains, 1)):
        if releases is not None and folder.is_dir():
            found = [_stored(p) for p in folder.iterdir() if not p.name.startswith(".")]
            needed = {f.name for f in found if _named(folder / f.name, releases)}
            for name in to_remove(found, needed, now=now, newest=kept, youngest=youngest):
                work.remove(folder / name)
        layers.sweep(folder)


def _remaining(store: ReleaseStore) -> list[Release] | None:
    """Return the releases whose layers are needed: by their replicas, or by the next build.

    None if a release cannot be read, since its layers are then unknown.
    """
    needed: list[Release] = []
    for stack, service in store.services():
        found = store.list(stack, service)
        if len(found) != len(store.names(stack, service)):
            return None
        needed += [r for r in found if r is found[0] or r.kind == "process"]
    return needed


def _named(folder: Path, releases: Sequence[Release]) -> bool:
    return any(
        folder.name in release.layers or any(Path(p).is_relative_to(folder) for p in release.path)
        for release in releases
    )


def _stored(folder: Path) -> Stored:
    """When a folder was made or chosen; a release in the making or being removed counts as now."""
    try:
        return Stored(folder.name, folder.stat().st_mtime)
    except FileNotFoundError:
        return Stored(folder.name, time.time())


class _Removal:
    """Removes folders below the home, and counts."""

    def __init__(self, home: Path, before: float) -> None:
        self.removed: list[str] = []
        self.bytes = 0
        self._home = home
        self._before = before

    def remove(self, folder: Path) -> None:
        """Remove a folder, unless another process is creating it or has just selected it."""
        try:
            with layers.lock(folder, wait=False):
                if folder.stat().st_mtime > self._before:
                    return
                size = sum(path.lstat().st_size for path in folder.rglob("*"))
                layers.discard(folder)
        except (BlockingIOError, FileNotFoundError):
            return
        self.removed.append(str(folder.relative_to(self._home)))
        self.bytes += size
