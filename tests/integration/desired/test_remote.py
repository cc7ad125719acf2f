"""A desired-state repository on a forge: each commit on top of what is there, nothing lost."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import pytest

from lapwing.desired.git_objects import MAX_BLOB_BYTES
from lapwing.desired.history import history
from lapwing.desired.remote import Remote
from lapwing.desired.repository import DesiredRepository
from lapwing.errors import DesiredStateError
from lapwing.plan.model import Deployment, Document
from tests.installation import GIT, Installation

STACK = """
stack: shop
services:
  api: {kind: web, image: "registry.example/shop/api:1", route: /}
environments:
  local: {target: kubernetes}
  production:
    target: kubernetes
    domain: shop.example.com
    cloud: {provider: gcp, region: us-central1}
    repository: "@REPOSITORY@"
"""


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """An empty repository, as a forge has it."""
    path = tmp_path / "desired.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", path], check=True)
    return path


def document(name: str) -> Document:
    return Document(
        stack="shop",
        environment=name,
        target="kubernetes",
        deployment=Deployment(actor="tester", revision=name),
    )


def files_of(bare: Path, at: str = "main") -> list[str]:
    listed = subprocess.run(
        ["git", "--git-dir", bare, "ls-tree", "-r", "--name-only", at],
        check=True,
        capture_output=True,
        text=True,
    )
    return listed.stdout.split()


def test_many_commit_at_once_and_nothing_is_lost(bare: Path, tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        name = f"env-{number}"
        remote = Remote(str(bare), tmp_path / f"home-{number}", os.environ | GIT)

        def make(repository: DesiredRepository) -> str:
            files = {f"{name}/manifests/a.yaml": name.encode()}
            return repository.commit(document(name), expected=None, files=files)

        try:
            remote.commit(make)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert files_of(bare) == sorted(
        f"shop/env-{n}/{file}" for n in range(4) for file in ("document.json", "manifests/a.yaml")
    )


def test_manifests_that_left_leave(bare: Path, tmp_path: Path) -> None:
    remote = Remote(str(bare), tmp_path / "home", os.environ | GIT)
    first = {"dev/manifests/a.yaml": b"a", "dev/manifests/b.yaml": b"b", "argocd/dev.yaml": b"c"}
    one = remote.commit(lambda r: r.commit(document("dev"), expected=None, files=first))
    assert one is not None
    second = {"dev/manifests/b.yaml": b"B"}
    remote.commit(lambda r: r.commit(document("dev"), expected=one, files=second))
    assert files_of(bare) == [
        "shop/argocd/dev.yaml",
        "shop/dev/document.json",
        "shop/dev/manifests/b.yaml",
    ]
    assert remote.repository.manifests("shop", "dev", one) == {
        "dev/manifests/a.yaml": b"a",
        "dev/manifests/b.yaml": b"b",
    }


def test_strange_names_and_sizes_of_pushed_manifests(bare: Path, tmp_path: Path) -> None:
    """A rollback commits the manifests of an earlier commit again, whatever somebody named them."""
    remote = Remote(str(bare), tmp_path / "home", os.environ | GIT)
    strange = 'dev/manifests/a\nD shop\n"b\\ \udcff.yaml'
    files = {strange: b"a", "dev/manifests/b.yaml": b"b"}
    one = remote.commit(lambda r: r.commit(document("dev"), expected=None, files=files))
    assert one is not None
    assert remote.repository.manifests("shop", "dev", one) == files
    large = {"dev/manifests/large.yaml": b" " * (MAX_BLOB_BYTES + 1)}
    two = remote.commit(lambda r: r.commit(document("dev"), expected=one, files=large))
    assert two is not None
    with pytest.raises(DesiredStateError, match=r"large.yaml in commit .* larger"):
        remote.repository.manifests("shop", "dev", two)


def test_a_protected_branch_is_told_in_the_words_of_the_remote(bare: Path, tmp_path: Path) -> None:
    hook = bare / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'main is protected here' >&2\nexit 1\n")
    hook.chmod(0o755)
    remote = Remote(str(bare), tmp_path / "home", os.environ | GIT)
    with pytest.raises(DesiredStateError) as caught:
        remote.commit(lambda r: r.commit(document("dev"), expected=None, files={}))
    assert "main is protected here" in (caught.value.detail or "")
    assert "protected" in (caught.value.hint or "")


def test_a_login_in_the_url_is_never_told(tmp_path: Path) -> None:
    remote = Remote("https://ann:tiger@127.0.0.1:1/x.git", tmp_path / "home", os.environ | GIT)
    with pytest.raises(DesiredStateError) as caught:
        remote.fetch()
    told = f"{caught.value.message} {caught.value.hint} {caught.value.detail}"
    assert "tiger" not in told
    assert "https://127.0.0.1:1/x.git" in told


def test_deploy_and_rollback_are_commits(bare: Path, tmp_path: Path) -> None:
    where = Installation(tmp_path / "one")
    (where.folder / "lapwing.yaml").write_text(STACK.replace("@REPOSITORY@", str(bare)))

    preview = where.json("deploy", "-e", "production", "--dry-run")
    assert preview["outcome"] == "dry-run"
    assert [c["name"] for c in preview["changes"]] == ["api"]
    first = where.json("deploy", "-e", "production")
    assert first["outcome"] == "committed"
    assert where.json("deploy", "-e", "production")["outcome"] == "unchanged"

    found = files_of(bare)
    assert "shop/production/manifests/workloads.yaml" in found
    assert {"shop/root.yaml", "shop/argocd/production.yaml"} <= set(found)
    image = "registry.example/shop/api:2"
    second = where.json("deploy", "-e", "production", "--image", f"api={image}")
    remote = Remote(str(bare), tmp_path / "look", os.environ | GIT)
    remote.fetch()
    workloads = "production/manifests/workloads.yaml"
    newer = remote.repository.manifests("shop", "production", second["commit"])
    assert image in newer[workloads].decode()

    back = where.json("rollback", "-e", "production")
    assert back["outcome"] == "committed"
    remote.fetch()
    older = remote.repository.manifests("shop", "production", first["commit"])
    assert remote.repository.manifests("shop", "production", back["commit"]) == older
    kinds = [e.kind for e in history(remote.repository, "shop", "production")]
    assert kinds == ["rollback", "deploy", "deploy"]
    told = where.json("history", "-e", "production")
    assert [e["commit"] for e in told] == [back["commit"], second["commit"], first["commit"]]
    assert not (where.home / "agent").exists(), "a cluster's deployment needs no agent"


def test_a_service_keeps_the_image_that_it_was_given(bare: Path, tmp_path: Path) -> None:
    where = Installation(tmp_path / "one")
    text = STACK.replace("@REPOSITORY@", str(bare))
    more = '  web: {kind: web, image: "registry.example/shop/web:1", route: /web}\n'
    text = text.replace("environments:", f"{more}environments:")
    (where.folder / "lapwing.yaml").write_text(text)
    where.run("deploy", "-e", "production")
    where.run("deploy", "api", "-e", "production", "--image", "api=registry.example/shop/api:2")
    where.run("deploy", "web", "-e", "production", "--image", "web=registry.example/shop/web:2")
    releases = where.json("history", "-e", "production")[0]["services"]
    assert {n: s["release"] for n, s in releases.items()} == {"api": "api:2", "web": "web:2"}


def test_ship_commits_for_a_cluster(bare: Path, tmp_path: Path) -> None:
    where = Installation(tmp_path / "one")
    (where.folder / "lapwing.yaml").write_text(STACK.replace("@REPOSITORY@", str(bare)))
    checked = where.json("ship", "-e", "production", "--check")
    assert (checked["commit"], checked["steps"][-1]["outcome"]) == (None, "skipped")
    assert not (bare / "refs" / "heads" / "main").exists()
    done = where.json("ship", "-e", "production", "--image", "api=registry.example/shop/api:7")
    assert [s["outcome"] for s in done["steps"]] == ["skipped"] * 3 + ["done"]
    again = where.json("ship", "-e", "production", "--image", "api=registry.example/shop/api:7")
    assert (again["commit"], again["steps"][-1]["outcome"]) == (None, "unchanged")
    [entry] = where.json("history", "-e", "production")
    assert entry["services"]["api"]["release"] == "api:7"
    assert "Did you mean" in where.run("ship", "apii", "-e", "production", status=2).stderr


def test_where_there_is_no_cluster_nothing_is_wanted(bare: Path, tmp_path: Path) -> None:
    where = Installation(tmp_path / "one")
    text = STACK.replace("@REPOSITORY@", str(bare)) + "  kind: {target: kubernetes}\n"
    (where.folder / "lapwing.yaml").write_text(text)
    for verb in ("up", "deploy"):
        said = where.run(verb, "-e", "kind", status=1).stderr
        assert "No kubeconfig file found." in said
        assert "create a local cluster with `lapwing up -e NAME --create`" in said
    assert where.json("history", "-e", "kind") == []
    assert not (where.home / "agent").exists()


def test_an_offline_migration_is_not_committed_by_accident(bare: Path, tmp_path: Path) -> None:
    where = Installation(tmp_path / "one")
    text = STACK.replace("@REPOSITORY@", str(bare)).replace(
        "route: /}", "route: /, needs: [db], migrate: {run: migrate, mode: offline}}"
    )
    text = text.replace("environments:", "resources: {db: {kind: mysql}}\nenvironments:")
    (where.folder / "lapwing.yaml").write_text(text)
    first = where.json("deploy", "-e", "production")["commit"]
    newer = ("deploy", "-e", "production", "--image", "api=registry.example/shop/api:2")
    said = where.run(*newer, status=2).stderr
    assert "--allow-downtime" in said
    assert "offline" in said
    told = where.json("history", "-e", "production")
    assert [e["commit"] for e in told] == [first]
    assert where.json(*newer, "--allow-downtime")["outcome"] == "committed"
    refused = where.json("rollback", "-e", "production", status=2)["error"]["message"]
    assert "must not run with a newer schema" in refused
    assert len(where.json("history", "-e", "production")) == 2


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["deploy", "-e", "production", "--image", "apii=x"], 2, "Did you mean"),
        (["deploy", "-e", "production", "--image", "api"], 2, "SERVICE=REF"),
        (["deploy", "-e", "production", "--image", "api=UPPER/x"], 2, "lower-case"),
        (["rollback", "-e", "production"], 1, "lapwing up"),
        (["rollback", "api", "-e", "production"], 2, "whole environment"),
    ],
)
def test_what_cannot_be_is_told(
    arguments: list[str], status: int, words: str, bare: Path, tmp_path: Path
) -> None:
    where = Installation(tmp_path / "one")
    (where.folder / "lapwing.yaml").write_text(STACK.replace("@REPOSITORY@", str(bare)))
    done = where.run(*arguments, status=status)
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (bare / "refs" / "heads" / "main").exists()
