"""Verification while streaming: the last part of a wrong blob is never passed on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncGenerator

import pytest

from lapwing.errors import IntegrityError
from lapwing.registry import pull
from lapwing.registry.pull import BlobVerifier, verified


def of(data: bytes, size: int | None = None) -> BlobVerifier:
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    return BlobVerifier(digest, len(data) if size is None else size, "r.example/a", "Run it again.")


async def through(verifier: BlobVerifier, parts: list[bytes], passed: list[bytes]) -> None:
    """Pass parts through a verifier, noting those that come out."""

    async def stream() -> AsyncGenerator[bytes, None]:
        for part in parts:
            yield part

    async for part in verified(stream(), verifier):
        passed.append(bytes(part))


async def test_correct_blob_passes() -> None:
    passed: list[bytes] = []
    await through(of(b"abcdef"), [b"abc", b"de", b"f"], passed)
    assert passed == [b"abc", b"de", b"f"]


@pytest.mark.parametrize("parts", [[b"abc", b"xyz"], [b"abcd", b"efg"], [b"abcdefg"]])
async def test_last_part_of_wrong_blob_is_withheld(parts: list[bytes]) -> None:
    passed: list[bytes] = []
    with pytest.raises(IntegrityError):
        await through(of(b"abcdef"), parts, passed)
    assert passed == parts[:-1]


def test_empty_blob_is_verified() -> None:
    of(b"").update(b"")
    with pytest.raises(IntegrityError):
        BlobVerifier("sha256:" + "0" * 64, 0, "r.example/a", "").update(b"")


@pytest.mark.parametrize("offset", [0, 1, 9_999, 10_000, 25_001, 99_999])
def test_rewind_to_checkpoint(monkeypatch: pytest.MonkeyPatch, offset: int) -> None:
    monkeypatch.setattr(pull, "CHECKPOINT_BYTES", 10_000)
    data = os.urandom(100_000)
    verifier = of(data)
    for place in range(0, 99_000, 1_000):
        verifier.update(data[place : place + 1_000])
    begin = verifier.rewind(offset)
    assert offset - 10_000 < begin <= offset
    assert verifier.offset == begin
    verifier.update(data[begin:])
    assert verifier.current == verifier.digest
    assert verifier.rewind(0) == 0


def test_checkpoints_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pull, "CHECKPOINT_BYTES", 10)
    data = os.urandom(10_000)
    verifier = of(data)
    for place in range(0, 10_000, 10):
        verifier.update(data[place : place + 10])
    # Before the oldest checkpoint there is only the beginning.
    assert verifier.rewind(5_000) == 0
