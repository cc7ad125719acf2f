"""The check of `restore` on a machine: which schema a backup has, by the history."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import UNSET
from msgspec.structs import replace

from lapwing.agent.backup_manifest import Manifest
from lapwing.desired.repository import DesiredRepository
from lapwing.errors import UsageError
from lapwing.plan.model import Deployment, Document, Resource, Service
from lapwing.settings import Settings
from lapwing.stack.load import StackFile
from lapwing.targets import planned
from lapwing.targets.base import EnvironmentRef, Silent
from lapwing.targets.machine import MachineTarget
from lapwing.targets.machine_migrations import check_restore

REF = EnvironmentRef("shop", "local")


class Said(Silent):
    """Collects the messages."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


class Shop:
    """A history: two releases with an offline migration each, and the first deployed again."""

    def __init__(self, folder: Path) -> None:
        (folder / "lapwing.yaml").write_text("stack: shop\n")
        self.said = Said()
        file, settings = StackFile(folder / "lapwing.yaml"), Settings(folder / "home")
        self.target = MachineTarget(file, "local", settings, self.said)
        self.repository: DesiredRepository = self.target.repository

    def deploy(self, release: str) -> str:
        job = Service(
            kind="job",
            release=release,
            revision="r",
            migrates="api",
            needs={"db": "1"},
            command="m",
        )
        api = replace(job, kind="web", migrates=UNSET)
        database = Resource(kind="postgres", variable="DB_URL", provider="container")
        document = Document(
            stack="shop",
            environment="local",
            deployment=Deployment(actor="a"),
            services={"api": api, "api-migrate": job},
            resources={"db": database},
        )
        return self.commit(document)

    def commit(self, document: Document, outcome: str = "succeeded") -> str:
        made = self.repository.commit(document, expected=self.repository.newest("shop", "local"))
        self.repository.record_outcome(made, outcome)
        return made

    def restore(self, part: str | None, outcome: str = "succeeded") -> str:
        """Commit the start of the present deployment after the data of a part was replaced."""
        head = self.repository.newest("shop", "local")
        assert head is not None
        plan = planned.start_after_restore(self.repository, REF, "a", "a backup", head, part)
        return self.commit(plan.document, outcome)

    def check(self, commit: str | None) -> None:
        backup = Manifest(
            id="B", stack="shop", environment="local", created=0, commit=commit, parts=[]
        )
        check_restore(self.target, backup, "db")


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.mark.parametrize("part", ["volume.uploads", "cache", None])
def test_only_a_restore_of_the_database_makes_its_schema_unknown(
    shop: Shop, part: str | None
) -> None:
    shop.deploy("r1")
    shop.deploy("r2")
    made = shop.restore(part)
    shop.deploy("r1")
    with pytest.raises(UsageError, match="must not run with a newer schema"):
        shop.check(made)


def test_restored_database_counts_also_if_its_release_did_not_start(shop: Shop) -> None:
    shop.deploy("r1")
    shop.deploy("r2")
    made = shop.restore("db", "failed")
    shop.deploy("r1")
    shop.check(made)
    assert not shop.said.lines


def test_backup_whose_deployment_cannot_be_read_is_restored_with_a_message(shop: Shop) -> None:
    shop.deploy("r1")
    broken = shop.deploy("../r2")
    shop.deploy("r1")
    for commit in (broken, "f" * 40, None):
        shop.check(commit)
        assert "The schema of db of backup B was not compared" in shop.said.lines.pop()
