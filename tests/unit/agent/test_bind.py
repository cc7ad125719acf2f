"""What provides a resource: the order of choice, and that data stays with what created it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from lapwing.agent.resources import images
from lapwing.agent.resources.bind import Host, bind
from lapwing.errors import ResourceError
from lapwing.plan import make
from lapwing.plan.model import Resource, ResourceContainer
from lapwing.stack.model import Resource as Written

DIGEST = "docker.io/library/redis@sha256:" + "1" * 64


def bound(
    folder: Path,
    *,
    kind: str = "redis",
    image: str | None = None,
    url: str | None = None,
    current: Resource | None = None,
    engine: bool = True,
    program: str | None = "/usr/bin/true",
) -> Resource:
    return bind(
        "db",
        make.resource("db", Written.model_validate({"kind": kind, "image": image})),
        embedded=True,
        url=url,
        current=current,
        keep_url=lambda _: "version",
        host=Host(folder, lambda: engine, lambda _: program),
    )


def test_providers_are_chosen_in_order(tmp_path: Path) -> None:
    assert bound(tmp_path, url="redis://db").provider == "url"
    assert bound(tmp_path).provider == "container"
    assert bound(tmp_path, engine=False).provider == "binary"
    assert bound(tmp_path, engine=False, program=None).provider == "embedded"


def test_mariadb_is_not_started_as_mysql(tmp_path: Path) -> None:
    program = tmp_path / "mysqld"
    program.symlink_to(tmp_path / "mariadbd")
    found = bound(tmp_path / "data", kind="mysql", engine=False, program=str(program))
    assert found.provider == "embedded"


def test_new_container_has_the_official_image_and_memory(tmp_path: Path) -> None:
    expected = ResourceContainer(image="redis:7", memory=256 * 2**20)
    assert bound(tmp_path).container == expected


def test_data_of_a_program_is_not_given_to_a_container(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert bound(tmp_path).provider == "binary"


def test_running_program_is_kept_when_an_engine_is_installed(tmp_path: Path) -> None:
    program = bound(tmp_path, engine=False)
    assert bound(tmp_path, current=program) == program


def test_data_of_a_container_is_not_given_to_a_program(tmp_path: Path) -> None:
    """After `lapwing down`, no document has the resource."""
    before = ResourceContainer(image="redis:7", digest=DIGEST, memory=1)
    (tmp_path / images.RECORD).write_bytes(msgspec.json.encode(before))
    found = bound(tmp_path, engine=False)
    assert found.provider == "container"
    assert found.container == msgspec.structs.replace(before, memory=256 * 2**20)


def test_digest_is_kept_until_the_image_changes(tmp_path: Path) -> None:
    container = ResourceContainer(image="redis:7", digest=DIGEST, memory=256 * 2**20)
    current = msgspec.structs.replace(bound(tmp_path), container=container)
    assert bound(tmp_path, current=current).container == container
    changed = bound(tmp_path, current=current, image="redis:8").container
    assert changed == ResourceContainer(image="redis:8", memory=256 * 2**20)


def test_other_major_version_of_postgres_is_refused(tmp_path: Path) -> None:
    current = bound(tmp_path, kind="postgres", image="postgres:16.4")
    with pytest.raises(ResourceError, match=r"created by postgres:16\.4"):
        bound(tmp_path, kind="postgres", image="postgres:17", current=current)
    same = bound(tmp_path, kind="postgres", image="postgres:16-alpine", current=current)
    assert same.provider == "container"


def test_damaged_record_is_reported(tmp_path: Path) -> None:
    (tmp_path / images.RECORD).write_text("{")
    with pytest.raises(ResourceError, match="cannot be read"):
        bound(tmp_path)


def test_settings_follow_the_memory() -> None:
    memory = 1024 * 2**20
    assert images.SERVERS["mysql"].arguments(memory) == (
        "mysqld",
        "--innodb-buffer-pool-size=536870912",
        "--max-connections=128",
        "--skip-name-resolve",
        "--tmpdir=/var/lib/mysql/.tmp",
    )
    assert "shared_buffers=256MB" in images.SERVERS["postgres"].arguments(memory)
    assert images.SERVERS["mongodb"].arguments(4 * memory)[-1] == "1.5"
