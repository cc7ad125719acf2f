"""Verifying bytes as they pass: the digest and the size of one blob.

A blob is never in memory, so it is verified while it streams, and the last piece is held back until
the whole is known to be right: a registry that checks nothing still never gets a complete blob that
is wrong. Marks (a copy of the running hash for some offsets) let a transfer go on from where the
destination is, without reading the blob from its beginning.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import deque
from collections.abc import AsyncGenerator

from lapwing.errors import IntegrityError
from lapwing.registry.streams import Piece

BETWEEN = 4 * 1024 * 1024
"""Bytes between two marks."""
MARKS = 64
"""Marks kept: the newest, and the beginning."""


class Tally:
    """The running digest of a blob of `size` bytes. `where` names it in errors."""

    def __init__(self, digest: str, size: int, where: str) -> None:
        self.digest = digest
        self.size = size
        self.where = where
        self.offset = 0
        self._begin = hashlib.new(digest.partition(":")[0])
        self._hash = self._begin.copy()
        self._marks: deque[tuple[int, hashlib._Hash]] = deque(maxlen=MARKS)
        self._mark = 0

    def add(self, piece: Piece) -> None:
        """Count a piece in. Raises IntegrityError as soon as there are too many bytes, or the
        last one is there and the digest is another."""
        self._hash.update(piece)
        self.offset += len(piece)
        if self.offset > self.size:
            raise self.wrong(f"is longer than the {self.size} bytes that its manifest says")
        if self.offset - self._mark >= BETWEEN:
            self._mark = self.offset
            self._marks.append((self.offset, self._hash.copy()))
        if self.offset == self.size and self.found != self.digest:
            raise self.wrong(f"has the digest {self.found}")

    @property
    def found(self) -> str:
        """The digest of what was counted in so far."""
        return f"{self.digest.partition(':')[0]}:{self._hash.hexdigest()}"

    def rewind(self, offset: int) -> int:
        """Go back to the newest mark that is not after `offset`; returns where that is."""
        while self._marks and self._marks[-1][0] > offset:
            self._marks.pop()
        place, state = self._marks[-1] if self._marks else (0, self._begin)
        self.offset = self._mark = place
        self._hash = state.copy()
        return place

    def wrong(self, why: str) -> IntegrityError:
        """The error for bytes that are not what they should be."""
        return IntegrityError(
            f"Blob {self.digest} of {self.where} {why}.",
            hint="What the registry holds is damaged, or something on the way changes it. "
            "Nothing was tagged.",
        )


async def verified(
    pieces: AsyncGenerator[Piece, None], tally: Tally
) -> AsyncGenerator[Piece, None]:
    """The same pieces, each counted in before it is given on: so the last piece of a wrong blob
    never is."""
    async with contextlib.aclosing(pieces):
        async for piece in pieces:
            tally.add(piece)
            yield piece
