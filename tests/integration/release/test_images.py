"""Images of a release: its own are tagged with the version, third-party ones mirrored."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gitea import OWNER, Gitea
from tests.integration.release.conftest import Project, outcomes
from tests.needs import require
from tests.registries import Server, docker_registry

STACK = """\
stack: shop
services:
  api: {{build: ., command: run, route: /}}
registry: {host}/team
release: {{forge: none, chart: false}}
mirror:
  - {host}/upstream/fleet:v4.93.0
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with docker_registry(require("registry"), tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture
def project(tmp_path: Path, registry: Server) -> Project:
    bare = tmp_path / "origin.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(bare)], check=True)
    made = Project(tmp_path / "shop", str(bare))
    made.commit("Begin", **{"lapwing.yaml": STACK.format(host=registry.host), "run": "x"})
    made.push()
    return made


def digest(registry: Server, repository: str, tag: str) -> str | None:
    found = registry.manifest(repository, tag)
    return str(found["_digest"]) if found else None


def test_images_from_commit_to_version(registry: Server, project: Project) -> None:
    """Nothing pushed yet is no error; then the commit's image gets the version as a tag."""
    upstream = registry.push_image("upstream/fleet", "v4.93.0", [b"fleet" * 1000])["digest"]
    first = project.release()
    assert outcomes(first)["image api"] == "skipped"
    assert outcomes(first)["mirror upstream/fleet"] == "done"
    for tag in ("4.93.0", "0.0.1", "latest"):
        assert registry.whole("team/fleet", tag) == upstream

    built = registry.push_image("team/api", project.git("rev-parse", "HEAD"), [b"one"])["digest"]
    registry.push_image("team/api", "latest", [b"one"])
    again = project.release()
    assert outcomes(again)["image api"] == "done"
    assert outcomes(again)["mirror upstream/fleet"] == "present"
    assert digest(registry, "team/api", "0.0.1") == built
    assert outcomes(project.release())["image api"] == "present"

    # A tag that is another image is never moved.
    registry.push_image("team/api", "0.0.1", [b"other"])
    broken = project.release(status=1)
    assert "is another image than" in broken["error"]["message"]

    # A commit that nothing was built of cannot be named.
    project.commit("More", run="y")
    project.push()
    broken = project.release(status=1)
    assert "no image was built from this commit" in broken["error"]["message"]
    assert "lapwing ship" in broken["error"]["hint"]


def test_dry_run_copies_nothing(registry: Server, project: Project) -> None:
    registry.push_image("upstream/fleet", "v4.93.0", [b"fleet" * 10])
    file = STACK.format(host=registry.host).replace("/team", "/dry")
    project.commit("Elsewhere", **{"lapwing.yaml": file})
    project.push()
    answer = project.release("--dry-run")
    assert outcomes(answer)["mirror upstream/fleet"] == "planned"
    assert registry.manifest("dry/fleet", "latest") is None


def test_missing_upstream_image(registry: Server, project: Project) -> None:
    """Nothing is tagged; a second run releases everything."""
    file = STACK.format(host=registry.host).replace("upstream/fleet", "upstream/late")
    project.commit("Late", **{"lapwing.yaml": file})
    project.push()
    broken = project.release(status=1)
    assert list(outcomes(broken)) == ["registry"]
    assert f"{registry.host}/upstream/late:v4.93.0 does not exist" in broken["error"]["message"]
    assert project.git("ls-remote", "--tags", "origin") == ""
    assert project.git("tag") == ""
    registry.push_image("upstream/late", "v4.93.0", [b"late"])
    done = outcomes(project.release())
    assert (done["tag"], done["mirror upstream/late"]) == ("done", "done")


def test_nothing_is_tagged_without_write_access(
    registry: Server, project: Project, tmp_path: Path
) -> None:
    registry.push_image("upstream/fleet", "v4.93.0", [b"fleet" * 10])
    with docker_registry(require("registry"), tmp_path / "full", read_only=True) as full:
        file = STACK.format(host=registry.host).replace(
            f"registry: {registry.host}/team", f"registry: {full.host}/team"
        )
        project.commit("Read-only", **{"lapwing.yaml": file})
        project.push()
        broken = project.release(status=1)
    assert list(outcomes(broken)) == ["registry"]
    assert full.host in broken["error"]["message"]
    assert project.git("ls-remote", "--tags", "origin") == ""


def test_forge_registry_is_the_default(registry: Server, forge: Gitea, tmp_path: Path) -> None:
    """Without a `registry`, images go to the forge's, into the owner's folder in lower case, with
    the forge's token."""
    registry.push_image("upstream/own", "v1", [b"own" * 100])
    project = Project(
        tmp_path / "own", forge.repository("Own-Registry"), LAPWING_FORGE_TOKEN=forge.token
    )
    mirror = f"project: own\nmirror: ['{registry.host}/upstream/own:v1']\n"
    project.begin(mirror)
    project.push()
    assert outcomes(project.release())["mirror upstream/own"] == "done"
    packages = forge.api("GET", f"/packages/{OWNER}?type=container")
    versions = {p["version"] for p in packages if p["name"] == "own"}
    assert {"1", "0.0.1", "latest"} <= versions
    assert outcomes(project.release())["mirror upstream/own"] == "present"


NAMED = """\
stack: shop
services:
  api: {{image: {host}/named/api, command: run, route: /, port: 8000, user: 1000}}
  work: {{image: "{host}/named/work:7", command: run, user: 1000}}
  fleet: {{image: "{host}/named/fleet:4.93.0", command: run, user: 1000}}
  other: {{image: "{host}/upstream/fleet:v4.93.0", command: run, user: 1000}}
registry: {host}/named
release: {{forge: none, chart: false}}
mirror: ["{host}/upstream/fleet:v4.93.0"]
environments:
  live: {{target: kubernetes, domain: shop.example}}
"""


def test_named_images_get_version_tag(registry: Server, project: Project) -> None:
    """Those of the team's registry: without a version, the one of the commit; with one, that one.
    A copy of somebody else's is the mirror's to tag, and somebody else's own is nobody's."""
    upstream = registry.push_image("upstream/fleet", "v4.93.0", [b"fleet" * 1000])["digest"]
    head = project.commit("Name images", **{"lapwing.yaml": NAMED.format(host=registry.host)})
    project.push()
    api = registry.push_image("named/api", head, [b"api"])["digest"]
    work = registry.push_image("named/work", "7", [b"work"])["digest"]
    done = project.release()
    version = done["tag"].removeprefix("v")
    images = {n: o for n, o in outcomes(done).items() if n.startswith(("image", "mirror"))}
    assert images == dict.fromkeys(("image api", "image work", "mirror upstream/fleet"), "done")
    assert digest(registry, "named/api", version) == api
    assert digest(registry, "named/work", version) == work
    assert digest(registry, "named/fleet", version) == upstream
    assert digest(registry, "upstream/fleet", version) is None
    again = outcomes(project.release())
    assert {again[name] for name in images} == {"present"}


OTHER = STACK.replace("/team", "/moved")
"""The team's registry without an image of the service."""


def test_moved_upstream_tag_is_refused(registry: Server, project: Project) -> None:
    """The digest is recorded at the first release; another one needs the team's consent."""
    old = registry.push_image("upstream/moved", "v2", [b"old"])["digest"]
    file = OTHER.format(host=registry.host).replace("upstream/fleet:v4.93.0", "upstream/moved:v2")
    project.commit("Mirror", **{"lapwing.yaml": file})
    project.push()
    tag = project.release()["tag"]
    image = f"{registry.host}/upstream/moved:v2"
    project.git("fetch", "-q", "origin", "tag", tag)
    assert f"{image}@{old}" in project.git("tag", "-l", "--format=%(contents)", tag)

    new = registry.push_image("upstream/moved", "v2", [b"new"])["digest"]
    assert outcomes(project.release())["mirror upstream/moved"] == "present"
    project.commit("More", run="y")
    project.push()
    broken = project.release(status=1)
    assert list(outcomes(broken)) == ["registry"]
    assert old in broken["error"]["message"]
    assert new in broken["error"]["message"]
    assert digest(registry, "moved/moved", "2") == old

    pinned = file.replace(image, f"{image}@{new}")
    project.commit("Accept it", **{"lapwing.yaml": pinned})
    project.push()
    project.release()
    for name in ("2", "latest", "0.0.2"):
        assert digest(registry, "moved/moved", name) == new
    assert digest(registry, "moved/moved", "0.0.1") == old


def test_moved_tag_of_selected_platforms_is_refused(registry: Server, project: Project) -> None:
    """The copy has another digest than the source, so the record in the tag is compared."""

    def push(text: bytes) -> str:
        image = registry.push_image("upstream/multi", "", [text])
        other = registry.push_image("upstream/multi", "", [text], "arm64")
        return str(registry.push_index("upstream/multi", "v1", [image, other])["digest"])

    old = push(b"old")
    entry = f"{{image: {registry.host}/upstream/multi:v1, platforms: [linux/amd64]}}"
    file = OTHER.format(host=registry.host).replace(
        f"{registry.host}/upstream/fleet:v4.93.0", entry
    )
    project.commit("Mirror", **{"lapwing.yaml": file})
    project.push()
    project.release()
    new = push(b"new")
    project.commit("More", run="y")
    project.push()
    message = project.release(status=1)["error"]["message"]
    assert old in message
    assert new in message
