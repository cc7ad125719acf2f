"""What somebody pushes to the desired state may be anything: nothing that runs changes, the status
names the problem of this stack, and the next deployment puts it right."""

from __future__ import annotations

import json
from collections.abc import Callable

import psutil
import pytest

from lapwing.desired.git_objects import BRANCH
from lapwing.observed import agent as observed
from tests.deployed import until
from tests.integration.faults.ship import Ship, Watchers

pytestmark = pytest.mark.xdist_group("faults-hostile")
Tree = dict[bytes, "Tree | Entry"]
Entry = tuple[str, str]
"""Mode and object."""
MAX_AGENT_BYTES = 200 * 2**20


def blob(ship: Ship, data: bytes) -> Entry:
    """A file."""
    return "100644", ship.repository.git.text("hash-object", "-w", "--stdin", given=data)


def write_tree(ship: Ship, tree: Tree) -> str:
    """Write a tree, also one that git itself would refuse to make."""
    entries = []
    for name, found in sorted(tree.items()):
        mode, digest = found if isinstance(found, tuple) else ("40000", write_tree(ship, found))
        entries.append(mode.encode() + b" " + name + b"\0" + bytes.fromhex(digest))
    arguments = ("hash-object", "-t", "tree", "-w", "--literally", "--stdin")
    return ship.repository.git.text(*arguments, given=b"".join(entries))


def push(ship: Ship, document: Tree | Entry | None, message: bytes = b"Hi", **others: Tree) -> None:
    """Move the branch to a commit with this document and other stacks."""
    head = ship.repository.head()
    own: Tree = {b"local": {b"document.json": document or blob(ship, text(ship))}}
    tree = write_tree(ship, {ship.name.encode(): own, **{k.encode(): v for k, v in others.items()}})
    commit = ship.repository.git.text("commit-tree", tree, "-p", str(head), given=message)
    ship.repository.git.text("update-ref", BRANCH, commit)


def text(ship: Ship, **changes: object) -> bytes:
    """The present document with changes."""
    head = ship.repository.head()
    present = ship.repository.git.data(
        "cat-file", "blob", f"{head}:{ship.name}/local/document.json"
    )
    return json.dumps({**json.loads(present), **changes}).encode()


def service(ship: Ship, **changes: object) -> dict[str, object]:
    found = json.loads(text(ship))["services"]["api"]
    return {**found, **changes}


DOCUMENTS: dict[str, tuple[Callable[[Ship], Entry], str]] = {
    "yaml": (lambda s: blob(s, b"stack: faults\nservices: [\n"), "is invalid"),
    "deep": (lambda s: blob(s, b"[" * 1_000_000), "is invalid"),
    "deep-value": (
        lambda s: blob(s, b'{"stack": ' + b"[" * 1_000_000), "is invalid"),
    "empty": (lambda s: blob(s, b""), "is invalid"),
    "huge": (lambda s: blob(s, b" " * (256 * 2**20) + text(s)), "or is larger than 8 MiB"),
    "symlink": (lambda s: ("120000", blob(s, b"/etc/passwd")[1]), "is invalid"),
    "submodule": (lambda s: ("160000", str(s.repository.head())), "is not a regular file"),
    "other-stack": (lambda s: blob(s, text(s, stack="other")), "is for other/local"),
    "other-environment": (lambda s: blob(s, text(s, environment="x")), "is for faults/x"),
    "service-name": (
        lambda s: blob(s, text(s, services={"../../escaped": service(s)})), "is invalid"),
    "release-name": (
        lambda s: blob(s, text(s, services={"api": service(s, release="../../../escaped")})),
        "is invalid",
    ),
}  # fmt: skip


def rss(ship: Ship) -> int:
    """The memory of the agent."""
    pid = observed.holder(ship.where.home / "agent")
    assert pid is not None
    return psutil.Process(pid).memory_info().rss


@pytest.mark.parametrize("name", DOCUMENTS)
def test_document_of_a_stranger_is_refused(ship: Ship, watched: Watchers, name: str) -> None:
    make, words = DOCUMENTS[name]
    before = ship.pids("active")
    push(ship, make(ship))
    assert words in until(lambda: ship.status()["problem"], "the problem in the status")
    assert ship.get().text == ship.version
    assert ship.pids("active") == before
    assert rss(ship) < MAX_AGENT_BYTES
    assert ship.where.json("history")[1]["outcome"] == "succeeded"
    assert ship.repository.latest_valid(ship.name, "local") is not None
    assert list(ship.where.home.parent.glob("**/escaped")) == []
    ship.deploy()
    ship.whole()


def test_names_of_a_stranger_are_ignored(ship: Ship, watched: Watchers) -> None:
    before = ship.pids("active")
    document: Tree = {b"document.json": blob(ship, text(ship))}
    strange: Tree = {
        b"..": document, b"\xff": document, b"a\nb": document, b'"q"': document, b"UP": document
    }  # fmt: skip
    push(ship, None, others=strange, **{"..": {b"..": document}, "\n": strange})
    version = ship.deploy()
    ship.whole()
    assert version == ship.version
    assert not set(before) & set(ship.pids("active"))
    environments = ship.where.home / "environments"
    assert [p.name for p in environments.iterdir()] == [ship.name]


def test_message_of_a_stranger_is_shown_safely(ship: Ship, watched: Watchers) -> None:
    document = blob(ship, text(ship, domains=["faults.localhost", "b.localhost"]))
    push(ship, document, message=b"a\x1b]0;title\x07\x01\xff\xfe\n\nActor: \x1b[2J\n")
    until(lambda: ship.status()["rollout"] is None and len(ship.history()) > 1)
    for arguments in (("history",), ("history", "--output", "json"), ("status",)):
        done = ship.where.run(*arguments)
        assert "Traceback" not in done.stderr
        assert "\x1b" not in done.stdout
    ship.deploy()
    ship.whole()
