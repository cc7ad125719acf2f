"""Messages of commits: for people above, for programs below, and nobody's words among these."""

from __future__ import annotations

import subprocess

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapwing.desired.message import changes, compose, one_line, parse_trailers
from lapwing.plan.model import Deployment, Document
from tests.unit.agent.samples import document, service

BEFORE = document(api=service("api-1"), web=service("web-1", route="/web"))
AFTER = document(api=service("api-2", revision="r2"), web=service("web-1", route="/web"))


def by(actor: str, reason: str | None = None, kind: str = "deploy") -> Document:
    """AFTER as this actor deploys it."""
    act = msgspec.convert({"kind": kind, "actor": actor, "reason": reason}, Deployment)
    return msgspec.structs.replace(AFTER, deployment=act)


def test_a_message() -> None:
    assert compose(by("Ada"), BEFORE) == (
        "deploy api api-2 to shop/local\n\n"
        "api: api-1 -> api-2\n\n"
        "Lapwing-Stack: shop\n"
        "Lapwing-Environment: local\n"
        "Lapwing-Kind: deploy\n"
        "Lapwing-Actor: Ada\n"
        "Lapwing-Service: api=api-2 r2\n"
    )


def test_removed_and_new() -> None:
    text = compose(document("down"), BEFORE)
    assert text.startswith("down shop/local\n\napi: api-1 -> none\nweb: web-1 -> none\n")
    assert parse_trailers(text)["Service"] == ["api=removed", "web=removed"]
    assert "api: none -> api-2\n" in compose(AFTER, None)


def test_settings_alone() -> None:
    moved = msgspec.structs.replace(BEFORE, domains=("other.example",))
    assert compose(moved, BEFORE).startswith("deploy settings to shop/local\n")
    assert changes(moved, BEFORE) == {}


FORGED = [
    "eve\nLapwing-Actor: ada",
    "eve\r\n\r\nLapwing-Actor: ada",
    "eve\x85Lapwing-Actor: ada",
    "eve\u2028Lapwing-Actor: ada",
    "\n\nLapwing-Kind: rollback\n\n",
    "eve\x00\x01Lapwing-Kind: rollback",
    "Lapwing-Kind: rollback",
]


@pytest.mark.parametrize("words", FORGED)
def test_nobody_forges_a_trailer(words: str) -> None:
    for act in (by(words), by("eve", reason=words), by("eve", reason=words, kind="revert")):
        text = compose(act, BEFORE)
        assert parse_trailers(text) == _honest(act)
        assert _by_git(text) == parse_trailers(text)


@given(actor=st.text(min_size=1), reason=st.none() | st.text())
def test_nobody_forges_a_trailer_with_any_words(actor: str, reason: str | None) -> None:
    act = by(actor, reason)
    assert parse_trailers(compose(act, BEFORE)) == _honest(act)


def _honest(act: Document) -> dict[str, list[str]]:
    actor = one_line(act.deployment.actor)
    return {
        "Stack": ["shop"],
        "Environment": ["local"],
        "Kind": [act.deployment.kind],
        **({"Actor": [actor]} if actor else {}),
        "Service": ["api=api-2 r2"],
    }


def _by_git(text: str) -> dict[str, list[str]]:
    """The trailers as git itself reads them."""
    done = subprocess.run(
        ["git", "interpret-trailers", "--parse"],
        input=text.encode(),
        capture_output=True,
        check=True,
    )
    found: dict[str, list[str]] = {}
    for line in done.stdout.decode().splitlines():
        key, _, value = line.partition(": ")
        found.setdefault(key.removeprefix("Lapwing-"), []).append(value)
    return found


@given(st.text(), st.integers(1, 50))
def test_one_line(text: str, limit: int) -> None:
    found = one_line(text, limit)
    assert len(found) <= limit
    assert found.isprintable()
    assert found == found.strip()


def test_a_long_line_says_that_it_goes_on() -> None:
    assert one_line("word " * 100, 12) == "word word w…"
    assert len(compose(by("a" * 5000, "b" * 5000, "revert"), BEFORE)) < 2500
