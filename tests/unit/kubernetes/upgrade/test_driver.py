"""An upgrade against a model of a cluster that fails and is killed at any moment.

The model knows what is forbidden, and says so at once: two versions connected, a migration with a
connection or without a backup, an old version on a newer schema.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapwing.errors import LapwingError
from lapwing.kubernetes.upgrade.driver import DowntimeError, Record, UpgradeError, upgrade
from lapwing.kubernetes.upgrade.states import Event, Permission, Probe, State

YES = Permission(downtime=True, backup=True)
MISSING = """
# WARNING:
#   Your Fleet database is missing required migrations. This is likely to cause
#   Missing migrations: tables=[20240613162201], data=[].
"""
UNKNOWN = """
# WARNING:
#   Your Fleet database has unrecognized migrations. This could happen when
#   running an older version of Fleet on a newer migrated database.
#   Unknown migrations: tables=[20250904091745], data=[].
"""


class Killed(BaseException):
    """The upgrading process was killed."""


class World:
    """A service and its database. `fates` tells of each act whether it works (`ok`), fails before
    or after its effect, or whether the process is killed before or after it."""

    def __init__(self, fates: Iterator[str], *, pending: bool = True) -> None:
        self.fates = fates
        self.schema, self.half = ("old" if pending else "new"), False
        self.running = {"old"}
        self.serving: str | None = "old"
        self.data = 7
        self.backups: dict[str, tuple[str, int]] = {}
        self.saved: Record | None = None
        self.acts: list[str] = []
        self.pending = pending

    def load(self) -> Record | None:
        return self.saved

    def save(self, record: Record | None) -> None:
        self.saved = record

    def _act(self, name: str, effect: Callable[[], None]) -> None:
        self.acts.append(name)
        fate = next(self.fates, "ok")
        if fate == "fail":
            raise LapwingError(f"{name} failed")
        if fate == "kill":
            raise Killed
        effect()
        self._see()
        if fate == "late-fail":
            raise LapwingError(f"{name} failed late")
        if fate == "late-kill":
            raise Killed

    def _see(self) -> None:
        assert self.running != {"old", "new"}, "two versions are connected"
        assert not ("old" in self.running and self.schema == "new" and self.pending)
        assert not (self.half and self.running), "a version runs on a schema that is half changed"
        assert self.serving is None or self.serving in self.running

    def probe(self) -> Probe:
        fate = next(self.fates, "ok")
        if fate in ("kill", "late-kill"):
            raise Killed
        if fate != "ok":
            return Probe(False, 2, "no such host")
        return Probe(not self.pending, 1 if self.pending else None, MISSING)

    def stop_old(self) -> None:
        def effect() -> None:
            self.serving = None
            self.running.discard("old")

        self._act("stop_old", effect)

    def await_no_connection(self) -> None:
        def effect() -> None:
            if self.running:
                raise LapwingError("there are connections")

        self._act("await_no_connection", effect)

    def back_up(self) -> str:
        assert not self.running
        name = f"backup-{len(self.backups)}"
        self._act("back_up", lambda: self.backups.update({name: (self.schema, self.data)}))
        return name

    def migrate(self) -> None:
        assert not self.running, "a migration met a connection"
        assert ("old", 7) in self.backups.values(), "a migration without a backup"
        self.half = True

        def effect() -> None:
            self.schema, self.half = "new", False

        self._act("migrate", effect)

    def start_new(self) -> None:
        self._act("start_new", lambda: self.running.add("new"))

    def switch(self) -> None:
        self._act("switch", lambda: setattr(self, "serving", "new"))

    def stop_new(self) -> None:
        def effect() -> None:
            self.serving = None
            self.running.discard("new")

        self._act("stop_new", effect)

    def restore(self, backup: str) -> None:
        assert not self.running

        def effect() -> None:
            self.schema, self.data = self.backups[backup]
            self.half = False

        self._act("restore", effect)

    def start_old(self) -> None:
        def effect() -> None:
            self.running.add("old")
            self.serving = "old"

        self._act("start_old", effect)


def fates() -> st.SearchStrategy[list[str]]:
    one = st.sampled_from(["ok", "ok", "ok", "fail", "kill", "late-fail", "late-kill"])
    return st.lists(one, max_size=25)


@settings(max_examples=600)
@given(fates())
def test_any_interruption_ends_with_one_version_on_its_own_schema(told: list[str]) -> None:
    world = World(iter(told))
    for _ in range(len(told) + 2):
        with contextlib.suppress(Killed, UpgradeError):
            upgrade("v2", "production", YES, world, world)
        if world.saved is None and world.serving == "new":
            break
    assert world.saved is None
    assert world.serving == world.schema
    assert world.running == {world.serving}
    assert world.data == 7


@pytest.mark.parametrize("permission", [Permission(False, True), Permission(True, False)])
def test_without_consent_or_backup_nothing_is_changed(permission: Permission) -> None:
    world = World(iter(()))
    with pytest.raises(DowntimeError, match="Nothing was changed") as refused:
        upgrade("v2", "production", permission, world, world)
    assert world.acts == []
    assert world.saved is None
    wanted = "--backup" if permission.downtime else "--allow-downtime"
    assert wanted in str(refused.value.hint)


def test_no_pending_migration_is_clear() -> None:
    world = World(iter(()), pending=False)
    assert upgrade("v2", "production", Permission(False, False), world, world) is State.CLEAR
    assert world.acts == []


@pytest.mark.parametrize("permission", [YES, Permission(False, False)])
def test_version_older_than_the_schema_is_refused(permission: Permission) -> None:
    class Newer(World):
        def probe(self) -> Probe:
            return Probe(True, None, UNKNOWN)

    world = Newer(iter(()))
    with pytest.raises(UpgradeError, match=r"with a newer schema\. Nothing was changed"):
        upgrade("v1", "production", permission, world, world)
    assert (world.acts, world.saved, world.running) == ([], None, {"old"})


def test_version_that_does_not_start_is_reported_with_its_output() -> None:
    world = World(iter(["fail"]))
    with pytest.raises(UpgradeError) as failed:
        upgrade("v2", "production", YES, world, world)
    assert failed.value.detail == "no such host"
    assert world.acts == []


def test_failed_migration_restores_the_backup() -> None:
    world = World(iter(["ok", "ok", "ok", "ok", "fail"]))
    with pytest.raises(UpgradeError, match="rolled back: migrate failed"):
        upgrade("v2", "production", YES, world, world)
    assert world.acts[-3:] == ["stop_new", "restore", "start_old"]
    assert (world.serving, world.schema) == ("old", "old")


def test_failed_rollback_is_reported_and_continued() -> None:
    world = World(iter(["ok", "ok", "ok", "ok", "fail", "ok", "fail"]))
    with pytest.raises(UpgradeError, match=r"stopped at `restoring`.*backup is backup-0"):
        upgrade("v2", "production", YES, world, world)
    assert world.saved is not None
    with pytest.raises(UpgradeError, match="rolled back"):
        upgrade("v3", "production", YES, world, world)
    assert world.serving == "old"


def test_another_release_is_refused_while_an_upgrade_is_in_progress() -> None:
    world = World(iter(["ok", "kill"]))
    with pytest.raises(Killed):
        upgrade("v2", "production", YES, world, world)
    with pytest.raises(UpgradeError, match="v2 is in progress") as refused:
        upgrade("v3", "production", YES, world, world)
    assert "Deploy v2 again" in str(refused.value.hint)
    assert upgrade("v2", "production", YES, world, world) is State.SUCCEEDED


@pytest.mark.parametrize(
    ("probe", "expected"),
    [
        (Probe(True, None, MISSING), Event.CURRENT),
        (Probe(True, None, UNKNOWN), Event.OUTDATED),
        (Probe(False, 1, UNKNOWN), Event.OUTDATED),
        (Probe(False, 1, MISSING), Event.PENDING),
        (Probe(False, 1, "#   Your Fleet database is not initialized. Fleet"), Event.CURRENT),
        (Probe(False, 1, "dial tcp: connection refused"), Event.FAILED),
        (Probe(False, None, MISSING), Event.FAILED),
        (Probe(False, 0, ""), Event.FAILED),
    ],
)
def test_output_of_the_program_decides_what_the_probe_found(probe: Probe, expected: Event) -> None:
    assert probe.event is expected
