"""Images of static services: the hashed files of earlier releases stay available."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from lapwing.desired.repository import DesiredRepository
from lapwing.plan.model import Deployment, Document, Service
from tests.signing import new_key

from .conftest import Stack
from .test_signatures import verify

DAY_S = 24 * 3600
pytestmark = pytest.mark.xdist_group("image")


def stack_file(stack: Stack, desired: Path) -> str:
    return f"""\
stack: shop
registry: {stack.server.host}/{stack.folder}
services:
  web: {{build: ./web, static: ., route: /}}
environments:
  production: {{target: kubernetes, domain: shop.example, delivery: argo, repository: {desired},
    cloud: {{provider: gcp, region: europe-west1}}}}
"""


def direct(stack: Stack) -> str:
    """A stack file whose desired state is on this machine."""
    before, _, _ = stack_file(stack, Path()).partition("environments:")
    return f"{before}environments:\n  production: {{target: kubernetes, domain: shop.example}}\n"


def record(desired: DesiredRepository, image: str, outcome: str) -> None:
    """Record a deployment of an image to production; it `failed`, or succeeded."""
    document = Document(
        stack="shop",
        environment="production",
        target="kubernetes",
        deployment=Deployment(actor="tester"),
        services={"web": Service(kind="static", release="web", revision="abc", image=image)},
    )
    head = desired.commit(document, expected=desired.newest("shop", "production"))
    desired.record_outcome(head, "failed" if outcome == "failed" else "succeeded")


def page(version: str) -> dict[str, str]:
    return {
        "web/index.html": version,
        "web/assets/plain.js": version,
        f"web/assets/app-{version}00000.js": version,
    }


@pytest.fixture
def site(stack: Stack, tmp_path: Path) -> Stack:
    """A static service of an environment whose desired state is in a repository."""
    stack.folder = tmp_path.name.replace("_", "-")[:40].rstrip("-")  # Nothing was pushed there.
    desired = tmp_path / "desired-state.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(desired)], check=True)
    stack.write({"lapwing.yaml": stack_file(stack, desired)})
    return stack


def write(site: Stack, version: str) -> None:
    for old in site.installation.folder.glob("web/assets/*"):
        old.unlink()
    site.write(page(version))


def ship(site: Stack) -> str:
    """Ship, and return the digest of the image."""
    done = site.installation.json("ship", "-e", "production", "--scan", "off")
    return str(done["images"]["web"].rpartition("@")[2])


def contents(site: Stack, digest: str) -> list[dict[str, int]]:
    """The files of each layer, with their times, without those of Caddy."""
    manifest = site.server.manifest(f"{site.folder}/web", digest)
    assert manifest is not None
    site.server.whole(f"{site.folder}/web", digest)
    config = site.config("web", digest)
    assert len(config["rootfs"]["diff_ids"]) == len(manifest["layers"])
    assert len(config["history"]) == len(manifest["layers"])
    return [
        {m.name: int(m.mtime) for m in archive if m.isfile()}
        for archive in site.archives("web", digest)
    ][1:]


def layers_of(site: Stack, digest: str) -> list[dict[str, Any]]:
    manifest = site.server.manifest(f"{site.folder}/web", digest)
    assert manifest is not None
    return list(manifest["layers"])


def test_image_has_hashed_files_of_live_releases_without_sending_them(site: Stack) -> None:
    write(site, "one")
    first = ship(site)
    assert [set(files) for files in contents(site, first)] == [
        {"srv/assets/app-one00000.js"},
        {"srv/index.html", "srv/assets/plain.js", "etc/caddy/config.json"},
    ]
    write(site, "never")
    site.build("-e", "production", "--push")  # It is pushed and tagged, and was never live.
    write(site, "two")
    built = site.build("-e", "production", "--push")["web"]
    assert built["blobs"] == {"copied": 3, "mounted": 0, "present": 2}
    second = ship(site)
    assert second == built["digest"], "deploying it again changes nothing"
    assert [sorted(files)[0] for files in contents(site, second)] == [
        "srv/assets/app-one00000.js",
        "srv/assets/app-two00000.js",
        "etc/caddy/config.json",
    ]
    assert layers_of(site, second)[1]["digest"] == layers_of(site, first)[1]["digest"]
    write(site, "one")  # The same content as before has its own layer once, above the other's.
    third = ship(site)
    assert [sorted(files)[0] for files in contents(site, third)] == [
        "srv/assets/app-two00000.js",
        "srv/assets/app-one00000.js",
        "etc/caddy/config.json",
    ]


def test_digest_depends_on_commit_and_live_releases_only(site: Stack, tmp_path: Path) -> None:
    write(site, "one")
    ship(site)
    write(site, "two")
    second = ship(site)
    other = site.installation.beside("another")
    other.environ["LAPWING_HOME"] = str(tmp_path / "home2")
    other.git("pull", "-q", str(site.installation.folder), "main")
    assert other.json("image", "build", "-e", "production")["images"][0]["digest"] == second
    assert site.build("-e", "production")["web"]["digest"] == second, "it is live itself now"
    assert site.build()["web"]["digest"] != second, "no release is live on this machine"


def test_only_releases_that_were_live_in_the_week_before_the_commit_count(site: Stack) -> None:
    desired = DesiredRepository(site.installation.settings.desired)
    desired.ensure()
    for name in ("first", "failed", "last"):
        write(site, name)
        digest = site.build("--push")["web"]["digest"]
        record(desired, f"127.0.0.1:1/closed/web@{digest}", name)  # A registry that is gone.
        record(desired, f"{site.server.host}/{site.folder}/web@{digest}", name)
    kept = {6: ["first", "last", "six"], 8: ["last", "eight"]}  # By days until the next commit.
    for days, names in kept.items():
        site.installation.environ["GIT_COMMITTER_DATE"] = (
            f"@{int(time.time()) + days * DAY_S} +0000"
        )
        site.write({"lapwing.yaml": direct(site)})
        write(site, names[-1])
        found = contents(site, site.build("-e", "production", "--push")["web"]["digest"])
        hashed = [name for files in found for name in files if "-" in name]
        assert hashed == [f"srv/assets/app-{name}00000.js" for name in names], days


def test_missing_image_of_an_earlier_release_is_reported(site: Stack) -> None:
    write(site, "one")
    first = ship(site)
    site.server.client.delete(site.server.url(f"{site.folder}/web/manifests/{first}"))
    write(site, "two")
    done = site.installation.run("image", "build", "-e", "production", "--push")
    assert f"{first} is missing" in done.stderr
    site.server.whole(f"{site.folder}/web", done.stdout.strip().rpartition("@")[2])


def test_archive_has_the_layers_of_earlier_releases(site: Stack, tmp_path: Path) -> None:
    write(site, "one")
    first = ship(site)
    write(site, "two")
    file = tmp_path / "web.tar"
    site.build("-e", "production", "-o", str(file))
    names = subprocess.run(["tar", "tf", str(file)], capture_output=True, text=True, check=True)
    assert layers_of(site, first)[1]["digest"].removeprefix("sha256:") in names.stdout


def running(site: Stack) -> str:
    """The digest of the image in the manifests that Argo CD applies, which is tagged."""
    desired = site.installation.folder.parent / "desired-state.git"
    git = ["git", "-C", str(desired), "show", "main:shop/production/manifests/workloads.yaml"]
    text = subprocess.run(git, capture_output=True, text=True, check=True).stdout
    [digest] = set(re.findall(r"/web@(sha256:[0-9a-f]{64})", text))
    assert site.server.whole(f"{site.folder}/web", "deployed-production") == digest
    return str(digest)


def deploy(site: Stack) -> str:
    """Deploy, and return the digest of the image."""
    site.installation.run("deploy", "-e", "production")
    return running(site)


def test_rollback_keeps_hashed_files_of_later_releases(site: Stack) -> None:
    write(site, "one")
    first = deploy(site)
    write(site, "two")
    second = deploy(site)
    done = site.installation.run("rollback", "-e", "production")
    restored = running(site)
    assert restored not in (first, second)
    assert "adding the hashed files of later releases" in done.stderr
    assert [sorted(files)[0] for files in contents(site, restored)] == [
        "srv/assets/app-two00000.js",
        "srv/assets/app-one00000.js",
        "etc/caddy/config.json",
    ]
    assert {**site.config("web", restored), "rootfs": 0, "history": 0} == {
        **site.config("web", first),
        "rootfs": 0,
        "history": 0,
    }
    stored = site.server.manifest(f"{site.folder}/web", restored.replace(":", "-"))
    assert stored is not None
    assert len(stored["manifests"]) == 2, "the SBOM and the provenance"
    site.installation.run("rollback", "-e", "production")
    assert running(site) == second, "it has the hashed files of the other release"


def test_image_of_a_rollback_is_signed(site: Stack, tmp_path: Path) -> None:
    private, public = new_key(tmp_path)
    site.installation.environ["LAPWING_SIGNING_KEY"] = private.read_text()
    for version in ("one", "two"):
        write(site, version)
        deploy(site)
    site.installation.run("rollback", "-e", "production")
    reference = f"{site.server.host}/{site.folder}/web@{running(site)}"
    checks = verify(site, reference, "--key", str(public))
    assert {name for name, check in checks.items() if check["ok"]} == {
        "signature",
        "provenance",
        "sbom",
    }


def test_rollback_does_not_depend_on_the_hashed_files(site: Stack) -> None:
    write(site, "one")
    first = deploy(site)
    write(site, "two")
    deploy(site)
    site.installation.environ["LAPWING_SIGNING_KEY"] = "damaged"
    done = site.installation.run("rollback", "-e", "production")
    assert "cannot load their hashed files" in done.stderr
    assert running(site) == first
