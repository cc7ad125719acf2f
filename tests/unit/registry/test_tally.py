"""Verifying while streaming: the last piece of a wrong blob is never given on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncGenerator

import pytest

from lapwing.errors import IntegrityError
from lapwing.registry import tally as tallies
from lapwing.registry.tally import Tally, verified


def of(data: bytes, size: int | None = None) -> Tally:
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    return Tally(digest, len(data) if size is None else size, "r.example/a")


async def through(tally: Tally, pieces: list[bytes], passed: list[bytes]) -> None:
    """Pass pieces through a tally, noting those that come out."""

    async def stream() -> AsyncGenerator[bytes, None]:
        for piece in pieces:
            yield piece

    async for piece in verified(stream(), tally):
        passed.append(bytes(piece))


async def test_right_bytes_pass() -> None:
    passed: list[bytes] = []
    await through(of(b"abcdef"), [b"abc", b"de", b"f"], passed)
    assert passed == [b"abc", b"de", b"f"]


@pytest.mark.parametrize("pieces", [[b"abc", b"xyz"], [b"abcd", b"efg"], [b"abcdefg"]])
async def test_the_last_piece_of_wrong_bytes_does_not(pieces: list[bytes]) -> None:
    passed: list[bytes] = []
    with pytest.raises(IntegrityError):
        await through(of(b"abcdef"), pieces, passed)
    assert passed == pieces[:-1]


def test_an_empty_blob_has_one_digest() -> None:
    of(b"").add(b"")
    with pytest.raises(IntegrityError):
        Tally("sha256:" + "0" * 64, 0, "r.example/a").add(b"")


@pytest.mark.parametrize("offset", [0, 1, 9_999, 10_000, 25_001, 99_999])
def test_going_back_to_a_mark(monkeypatch: pytest.MonkeyPatch, offset: int) -> None:
    monkeypatch.setattr(tallies, "BETWEEN", 10_000)
    data = os.urandom(100_000)
    tally = of(data)
    for place in range(0, 99_000, 1_000):
        tally.add(data[place : place + 1_000])
    begin = tally.rewind(offset)
    assert offset - 10_000 < begin <= offset
    assert tally.offset == begin
    tally.add(data[begin:])
    assert tally.found == tally.digest
    assert tally.rewind(0) == 0


def test_marks_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tallies, "BETWEEN", 10)
    data = os.urandom(10_000)
    tally = of(data)
    for place in range(0, 10_000, 10):
        tally.add(data[place : place + 10])
    # Before the oldest mark that is kept there is only the beginning.
    assert tally.rewind(5_000) == 0
