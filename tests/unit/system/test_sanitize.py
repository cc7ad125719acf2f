"""Text of applications leaves without secret values and without terminal escapes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lapwing.agent.store import EventLog
from lapwing.desired.secrets import SecretStore
from lapwing.system.sanitize import escape_controls, mask


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("a\x1b]0;title\x07b", r"a\x1b]0;title\x07b"),
        ("\x1b[2J\x9b2J", r"\x1b[2J\x9b2J"),
        ("a\tb\r\nc\rd", "a\tb\nc\\rd"),
        ("\u202etxt", r"\u202etxt"),
        ("grün ✓ 漢", "grün ✓ 漢"),
    ],
)
def test_terminal_escapes_are_made_visible(text: str, expected: str) -> None:
    assert escape_controls(text) == expected


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("hunter2!", "the key is hunter2!."),
        ("p@ss word/", "GET /?k=p%40ss%20word%2F"),
        ("mongodb://app:s3cr3t-pw@db:27017/app", "login with s3cr3t-pw failed"),
        ("-----BEGIN KEY-----\nabcd1234\n-----END KEY-----\n", "line abcd1234 of the key"),
        ('say "tiger"\n', 'say "tiger"'),
    ],
)
def test_secret_values_are_masked_in_each_form(value: str, text: str) -> None:
    masked = mask(text, [value])
    assert "***" in masked
    assert not any(part in masked for part in ("hunter2", "%40ss", "s3cr3t", "abcd1234", "tiger"))


@pytest.mark.parametrize(
    "text",
    ["p%40s/%22w%C3%A9%20rd", "p%40s%2F%22w%C3%A9+rd", r"p@s/\"w\u00e9 rd", "cEBzLyJ3w6kgcmQ="],
    ids=["quote", "quote_plus", "json", "base64"],
)
def test_encoded_secret_value_is_masked(text: str) -> None:
    assert mask(f"key={text};", ['p@s/"wé rd']) == "key=***;"


def test_longer_value_is_masked_before_a_value_that_it_contains() -> None:
    assert mask("tiger-and-lion", ["tiger", "tiger-and-lion", "x"]) == "***"


@pytest.mark.parametrize(
    ("value", "text", "masked"),
    [
        ("test", "tests of the latest release: test", "tests of the latest release: ***"),
        ("test", 'user:test@db, pw="test", shop/test', 'user:***@db, pw="***", shop/***'),
        ("hunter2", "\x1b[33mhunter2\x1b[0m", "\x1b[33m***\x1b[0m"),
        ("hunter2", "redis%3A%2F%2F%3Ahunter2%40h", "redis%3A%2F%2F%3A***%40h"),
        ("hunter2", r'{"log":"a\nhunter2"}', r'{"log":"a\n***"}'),
        ("hunter2", "hunter2_db", "***_db"),
        ("$ab!", "x$ab!y", "x***y"),
        ("releases", "prereleases", "pre***"),
        ("abc", "abc", "abc"),
    ],
)  # fmt: skip
def test_short_values_are_masked_as_whole_words_only(value: str, text: str, masked: str) -> None:
    assert mask(text, [value]) == masked


def test_events_contain_neither_present_nor_earlier_values(tmp_path: Path) -> None:
    store = SecretStore(tmp_path / "secrets")
    for value in ("first-value", "second-value"):
        store.set("shop", "local", "KEY", value)
    store.set("other", "local", "KEY", "of-another-stack")
    log = EventLog(tmp_path, lambda text: store.mask(text, "shop", "local"))
    log.event("outcome", "bad first-value", detail="second-value \x1b[2J of-another-stack")
    [line] = (tmp_path / "events.jsonl").read_text().splitlines()
    event = json.loads(line)
    assert event["text"] == "bad ***"
    assert event["detail"] == r"*** \x1b[2J of-another-stack"
    assert store.mask("of-another-stack") == "***"


def test_damaged_store_does_not_prevent_a_report(tmp_path: Path) -> None:
    store = SecretStore(tmp_path / "secrets")
    store.set("shop", "local", "KEY", "first-value")
    (tmp_path / "secrets" / "key").write_bytes(b"damaged")
    assert store.mask("it failed") == "it failed"
