"""Whatever is wrong with the remote repository or the registry changes nothing on the machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from lapwing.observed import pull
from lapwing.system.home import prepare
from tests.disk import mounted
from tests.installation import GIT
from tests.integration.pull.conftest import Pair, wait_for
from tests.needs import require
from tests.registries import Server

SIGNED = ", require_signed: true, signers: signers"


def git(remote: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "--git-dir", remote, *arguments],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | GIT,
    )
    return done.stdout.strip()


def ssh_key(file: Path) -> str:
    """Create a key; returns its line of an allowed signers file."""
    require("ssh-keygen")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file], check=True)
    kind, key, _ = file.with_suffix(".pub").read_text().split(maxsplit=2)
    return f"ci@example.com {kind} {key}"


def commit_unsigned(remote: Path) -> str:
    """Add a commit with the same files to the branch, as somebody without a key."""
    tree, head = git(remote, "rev-parse", "main^{tree}", "main").split()
    made = git(remote, "commit-tree", tree, "-p", head, "-m", "by hand")
    git(remote, "update-ref", "refs/heads/main", made)
    return made


@pytest.fixture
def pages(place: Pair) -> Pair:
    """A stack of one page that was pulled once."""
    place.write(place.page())
    place.ship("one")
    place.register()
    assert place.pull() == 0
    assert place.commits() == 1
    return place


@pytest.fixture
def signed(place: Pair, tmp_path: Path) -> Pair:
    """A stack of one page whose signed commit was pulled."""
    (place.machine.folder / "signers").write_text(ssh_key(tmp_path / "key") + "\n")
    place.write(place.page(SIGNED))
    place.ci.environ["LAPWING_DESIRED_SIGNING_KEY"] = (tmp_path / "key").read_text()
    place.ship("one")
    place.register()
    assert place.pull() == 0
    return place


def test_unreachable_repository_is_reported(pages: Pair, remote: Path) -> None:
    remote.rename(remote.with_name("gone"))
    assert f"Fetching the desired state from {remote} failed." in pages.refused()
    remote.with_name("gone").rename(remote)
    pages.ship("two")
    assert pages.pull() == 0
    assert pages.commits() == 2


def test_rewritten_history_is_refused_until_it_is_restored(pages: Pair, remote: Path) -> None:
    first = git(remote, "rev-parse", "main")
    git(remote, "update-ref", "-d", "refs/heads/main")
    assert "has no branch `main`" in pages.refused()
    shutil.rmtree(pages.ci.home / "remotes")
    pages.ship("two")
    rewritten = git(remote, "rev-parse", "main")
    problem = pages.refused()
    assert "was rewritten" in problem
    assert first[:12] in problem
    git(remote, "update-ref", "refs/heads/main", first)
    assert pages.pull() == 0
    assert pages.commits() == 1
    git(remote, "update-ref", "refs/heads/main", rewritten)
    pages.register()  # The new history is accepted by a person on the machine.
    assert pages.pull() == 0
    assert pages.commits() == 2


def test_unsigned_commit_is_refused(signed: Pair, remote: Path) -> None:
    unsigned = commit_unsigned(remote)
    assert f"Commit {unsigned[:12]} of the desired state is not signed." in signed.refused()


def test_signed_commit_on_top_of_an_unsigned_one_is_refused(signed: Pair, remote: Path) -> None:
    accepted = git(remote, "rev-parse", "main")
    unsigned = commit_unsigned(remote)
    signed.ship("two")
    assert f"Commit {unsigned[:12]} of the desired state is not signed." in signed.refused()
    git(remote, "update-ref", "refs/heads/main", accepted)
    signed.ship("three")
    assert signed.pull() == 0
    assert signed.commits() == 2


def test_commit_of_another_signer_is_refused(signed: Pair, tmp_path: Path) -> None:
    ssh_key(tmp_path / "other")
    signed.ci.environ["LAPWING_DESIRED_SIGNING_KEY"] = (tmp_path / "other").read_text()
    signed.ship("two")
    assert "is signed by a key that is not in `signers`" in signed.refused()


def test_first_commit_has_to_be_signed(signed: Pair, remote: Path) -> None:
    commit_unsigned(remote)
    signed.register()
    assert "is not signed" in signed.refused()


def test_first_document_has_to_be_signed(signed: Pair, remote: Path, tmp_path: Path) -> None:
    """Also if the newest commit is signed. Commits before the document are not checked."""
    commit_unsigned(remote)
    signed.ship("two")
    signed.register()
    assert signed.pull() == 0
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", remote, clone], check=True)
    path = clone / "shop/production/document.json"
    path.write_text(path.read_text() + "\n")
    key = ("-c", "gpg.format=ssh", "-c", f"user.signingKey={tmp_path / 'key'}")
    there = ("--work-tree", str(clone))
    git(clone / ".git", *there, "commit", "-q", "-a", "-m", "by hand")
    git(clone / ".git", *there, *key, "commit", "-q", "-S", "--allow-empty", "-m", "by a signer")
    git(clone / ".git", "push", "-q")
    unsigned = git(remote, "rev-parse", "main^")
    signed.register()
    assert f"Commit {unsigned[:12]} of the desired state is not signed." in signed.refused()


def test_signature_of_another_commit_is_refused(signed: Pair, remote: Path) -> None:
    """The signature is that of the commit before, with another tree."""
    raw = git(remote, "cat-file", "commit", "main")
    head, empty = git(remote, "rev-parse", "main"), git(remote, "mktree", "--missing")
    tree = raw.split("\n", 1)[0]
    forged = raw.replace(tree, f"tree {empty}\nparent {head}", 1)
    file = remote / "forged"
    file.write_text(forged + "\n")
    made = git(remote, "hash-object", "-t", "commit", "-w", str(file))
    git(remote, "update-ref", "refs/heads/main", made)
    assert "has a signature that does not match its content" in signed.refused()


def test_ship_without_a_key_pushes_nothing(signed: Pair, remote: Path) -> None:
    before = git(remote, "rev-parse", "main")
    del signed.ci.environ["LAPWING_DESIRED_SIGNING_KEY"]
    signed.ci.environ["HOME"] = str(remote.parent)
    signed.ship("two", status=1)
    assert git(remote, "rev-parse", "main") == before


def test_pgp_signature_is_accepted(place: Pair, remote: Path, tmp_path: Path) -> None:
    """Of the key in `signers` only; the keyring of the user is not used."""
    require("gpg")
    home = tmp_path / "gnupg"
    home.mkdir(mode=0o700)
    environ = os.environ | {"GNUPGHOME": str(home)}
    for name in ("ci@example.com", "other@example.com"):
        quick = ["gpg", "--batch", "--passphrase", "", "--quick-gen-key", name, "ed25519", "sign"]
        subprocess.run(quick, env=environ, check=True, capture_output=True)
    export = ["gpg", "--armor", "--export", "ci@example.com"]
    keys = subprocess.run(export, env=environ, check=True, capture_output=True).stdout
    (place.machine.folder / "signers").write_bytes(keys)
    place.write(place.page(SIGNED))
    config = tmp_path / "gitconfig"
    place.ci.environ |= {"GNUPGHOME": str(home), "GIT_CONFIG_GLOBAL": str(config)}
    try:
        config.write_text("[user]\nsigningKey = ci@example.com\n")
        place.ship("one")
        place.register()
        assert place.pull() == 0
        config.write_text("[user]\nsigningKey = other@example.com\n")
        place.ship("two")
        place.machine.environ["GNUPGHOME"] = str(home)
        assert "is signed by a key that is not in `signers`" in place.refused()
    finally:
        subprocess.run(["gpgconf", "--kill", "all"], env=environ, check=True)


def artifact(pages: Pair, remote: Path) -> str:
    document = json.loads(git(remote, "show", "main:shop/production/document.json"))
    return str(document["services"]["page"]["artifact"])


def blob(registry: Server, pages: Pair, remote: Path, *, manifest: bool) -> Path:
    """The file in which the registry has the manifest or the archive of the release."""
    name, _, digest = artifact(pages, remote).partition("@")
    if not manifest:
        repository = name.partition("/")[2]
        found = registry.manifest(repository, digest)
        assert found is not None
        digest = found["layers"][0]["digest"]
    value = digest.partition(":")[2]
    return next((registry.storage / "data").rglob(f"blobs/sha256/{value[:2]}/{value}/data"))


@pytest.mark.parametrize("manifest", [True, False])
def test_changed_release_in_the_registry_is_refused(
    pages: Pair, remote: Path, registry: Server, manifest: bool
) -> None:
    pages.ship("two")
    file = blob(registry, pages, remote, manifest=manifest)
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b"two", b"bad") if not manifest else whole + b" ")
    problem = pages.refused()
    assert "digest" in problem
    file.write_bytes(whole)
    assert pages.pull() == 0
    assert pages.commits() == 2


def test_missing_release_is_reported(pages: Pair, remote: Path, registry: Server) -> None:
    pages.ship("two")
    name, _, digest = artifact(pages, remote).partition("@")
    registry.client.delete(registry.url(f"{name.partition('/')[2]}/manifests/{digest}"))
    assert f"{name}@{digest} does not exist" in pages.refused()


def test_artifact_of_another_release_is_refused(pages: Pair, remote: Path) -> None:
    """A document that names the artifact of the release before is not deployed."""
    before = artifact(pages, remote)
    pages.ship("two")
    text = git(remote, "show", "main:shop/production/document.json")
    changed = text.replace(artifact(pages, remote), before)
    work = remote.parent / "work"
    subprocess.run(["git", "clone", "-q", remote, work], check=True)
    (work / "shop/production/document.json").write_text(changed + "\n")
    command = ["git", "-C", work, "-c", "user.name=a", "-c", "user.email=a@example.com"]
    subprocess.run([*command, "commit", "-qam", "by hand"], check=True)
    subprocess.run([*command, "push", "-q", "origin", "HEAD:main"], check=True)
    assert "is release page-" in pages.refused()


def test_secret_that_is_not_set_is_named(pages: Pair) -> None:
    pages.write(
        pages.page().replace("production:\n", "production:\n    access: {basic_auth: ADMINS}\n")
    )
    pages.ship("two")
    problem = pages.refused()
    assert "Secrets are not set: ADMINS." in problem
    assert "lapwing secret set ADMINS -e production" in problem
    subprocess.run(
        [*pages.machine.command, "secret", "set", "ADMINS", "-e", "production"],
        input="ada:correct-horse-battery\n",
        text=True,
        cwd=pages.machine.folder,
        env=pages.machine.environ,
        check=True,
    )
    assert pages.pull() == 0
    assert pages.commits() == 2


def test_killed_pull_is_done_again(pages: Pair) -> None:
    """While the release is being pulled: nothing is left, and the next pull deploys."""
    for name in range(3):
        (pages.ci.folder / "page" / f"{name}.bin").write_bytes(os.urandom(8_000_000))
    pages.ship("two")
    releases = pages.machine.home / "releases" / "shop" / "page"
    process = subprocess.Popen(
        ["python", "-m", "lapwing.targets.pull", "shop", "production"], env=pages.machine.environ
    )
    wait_for(
        lambda: any(releases.glob(".tmp-*")) or process.poll() is not None, lambda: "no download"
    )
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert pages.pull() == 0
    assert not list(releases.glob(".tmp-*"))
    assert pages.commits() == 2


def test_full_disk_is_reported(place: Pair, tmp_path: Path) -> None:
    require("tmpfs")
    place.write(place.page())
    (place.ci.folder / "page").mkdir()
    (place.ci.folder / "page" / "film.bin").write_bytes(os.urandom(4_000_000))
    place.ship("one")
    with mounted(tmp_path / "disk", "3m") as disk:
        place.machine.home = disk.folder / "home"
        place.machine.environ["LAPWING_HOME"] = str(place.machine.home)
        prepare(place.machine.home)
        place.register()
        assert place.pull() == 1
        found = pull.state(place.machine.settings, "shop", "production").problem
        assert found is not None
        assert "The disk is full" in found
        assert not list((place.machine.home / "releases").rglob("*.bin"))
        place.machine.home = tmp_path / "none"
