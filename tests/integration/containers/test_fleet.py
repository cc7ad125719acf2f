"""FleetDM on one machine: the stack of this repository, in containers and as a process.

A script takes the place of Fleet (`tests.fleet_program`). MySQL and Redis are the real servers,
from Debian's packages, under the names of their images.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import database_images, fleet_program
from tests.deployed import Deployed
from tests.installation import installation
from tests.integration.image.docker import Docker
from tests.needs import require

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("containers")]
STACK = Path(__file__).parents[3] / "stacks" / "fleetdm" / "lapwing.yaml"


def import_fleet(docker: Docker, folder: Path, version: str, needed: int) -> None:
    """Make an image of a version of Fleet."""
    archive = fleet_program.archive(folder, version, needed)
    path = f"--change=ENV PATH={fleet_program.PATH}"
    docker("import", path, str(archive), f"fleetdm/fleet:{version}")
    archive.unlink()


@pytest.fixture(scope="module")
def fleet(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    root = tmp_path_factory.mktemp("fleet")
    database_images.mysql(root).load(docker, "mysql:8.4")
    database_images.redis(root).load(docker, "redis:7")
    import_fleet(docker, root, "v4.93.0", 1)
    docker("tag", "mysql:8.4", "curlimages/curl:8.16.0")  # `setup` is skipped: it needs a shell.
    with installation(root, **docker.environ) as where:
        text = STACK.read_text().replace("analysis: {window: 60s,", "analysis: {window: 1s,")
        where.write({"lapwing.yaml": text})
        where.run("up")
        yield Deployed(where, "fleetdm-stack")


def test_fleet_is_set_up_migrated_and_served(fleet: Deployed) -> None:
    assert fleet.get("/version").text == "v4.93.0 schema 1\n"
    assert fleet.get("/healthz").status_code == 200
    assert "Set-up is skipped" in fleet.where.run("logs", "setup").stdout
    assert fleet.service("vulnerabilities")["phase"] == "scheduled"


def test_fleet_is_upgraded_with_downtime_only_after_consent(
    fleet: Deployed, docker: Docker, tmp_path: Path
) -> None:
    import_fleet(docker, tmp_path, "v4.94.0", 2)
    text = (fleet.where.folder / "lapwing.yaml").read_text()
    fleet.where.write({"lapwing.yaml": text.replace("fleet:v4.93.0", "fleet:v4.94.0")})
    refused = fleet.where.run("deploy", status=1)
    assert "Missing migrations" in refused.stderr
    assert fleet.get("/version").text == "v4.93.0 schema 1\n"
    fleet.where.run("deploy", "--allow-downtime")
    assert fleet.get("/version").text == "v4.94.0 schema 2\n"
    [backup] = fleet.where.json("backup", "list")
    assert {part["name"] for part in backup["parts"]} == {"mysql", "redis-master"}
    assert "must not run with a newer schema" in fleet.where.run("rollback", status=2).stderr


def test_fleet_runs_as_a_process(docker: Docker, fleet: Deployed, tmp_path: Path) -> None:
    """MySQL and Redis are containers. The commands name the path of the program."""
    program, root = tmp_path / "fleet", require("mysql-root")
    readme = STACK.with_name("README.md").read_text()
    environment = textwrap.dedent(
        readme[readme.index("      binary:") : readme.index("Its URL is")]
    )
    text = STACK.read_text().replace("analysis: {window: 60s,", "analysis: {window: 1s,")
    text += textwrap.indent(environment, "  ").replace("fleet serve --", f"{program} serve --")
    text = text.replace("fleet prepare", f"{program} prepare")
    with installation(tmp_path / "binary", **docker.environ) as where:
        stack = Deployed(where, "fleetdm-stack")

        def version() -> str:
            return stack.get("/version", "binary.fleetdm-stack.localhost").text

        where.write({"lapwing.yaml": text, "program/requirements.txt": ""})
        try:
            missing = where.run("up", "-e", "binary", status=1).stderr
            assert f"exec: {program}: not found" in missing
            fleet_program.write(program, "v4.93.0", 1, root)
            where.run("up", "-e", "binary")
            assert version() == "v4.93.0 schema 1\n"
            fleet_program.write(program, "v4.94.0", 2, root)
            where.write({"program/requirements.txt": "# v4.94.0\n"})
            assert "Missing migrations" in where.run("deploy", "-e", "binary", status=1).stderr
            assert version() == "v4.93.0 schema 1\n"
            where.run("deploy", "-e", "binary", "--allow-downtime")
            assert version() == "v4.94.0 schema 2\n"
        finally:
            where.call("down", "-e", "binary")
