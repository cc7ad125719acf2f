"""Every sentence of the source is plain technical English."""

from __future__ import annotations

from docs.generate.sentences import KINDS, sentences

NOT_REWRITTEN_YET = {}
"""Packages and modules below src/lapwing. A line goes when its package is rewritten."""


def test_no_sentence_has_a_banned_word() -> None:
    faults = [
        f"{sentence.file}:{sentence.line}: {fault}"
        for sentence in sentences()
        if sentence.package not in NOT_REWRITTEN_YET
        for fault in sentence.faults()
    ]
    assert not faults, "\n".join(["see docs/glossary.md for the terms", *faults])


def test_every_kind_of_sentence_is_found() -> None:
    assert {s.kind for s in sentences()} == set(KINDS)
