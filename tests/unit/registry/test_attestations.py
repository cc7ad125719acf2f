"""Which statements a signer signs, and which stored bundles are used again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from lapwing.registry.attestations import (
    PROVENANCE,
    Attestation,
    make_attestations,
    sign_attestations,
    statement,
)
from lapwing.registry.layout import create_layout
from lapwing.registry.layout_reference import LayoutReference
from lapwing.registry.manifest import OCI_CONFIG, OCI_EMPTY, Descriptor, build_manifest
from lapwing.registry.pull import MemoryBlob
from lapwing.registry.referrers import attach_referrer
from lapwing.registry.repository import Repository
from lapwing.registry.signature import BUNDLE, SIGNED, parse_statement

CONFIG = Descriptor.of(b"{}", OCI_CONFIG)
IMAGE = build_manifest(CONFIG, [], {})
NAME = "registry.example/team/web"


@dataclass
class Numbered:
    """A signer whose bundles have its name and a number, so that no two are the same."""

    name: str = "job"
    repeats: bool = False
    signed: list[bytes] = field(default_factory=list)
    kind = "identity"

    @property
    def verifier(self) -> Numbered:
        return self

    def open_bundle(self, content: bytes, digest: str) -> Mapping[str, Any] | None:
        found = json.loads(content)
        return parse_statement(found["of"].encode(), digest) if found["by"] == self.name else None

    def sign_bundles(self, statements: Sequence[bytes]) -> list[bytes]:
        first = len(self.signed)
        self.signed += statements
        return [
            json.dumps({"by": self.name, "number": number, "of": content.decode()}).encode()
            for number, content in enumerate(statements, first)
        ]


def wanted(commit: str = "c1") -> list[Attestation]:
    """The attestations of the image, built from a commit."""
    bill = b'{"bomFormat": "CycloneDX"}'
    return make_attestations(NAME, IMAGE.digest, bill, {"commit": commit}, signed=True)


async def sign(folder: Path, signer: Numbered, commit: str = "c1") -> list[Attestation]:
    """Sign for a layout, which is used as a repository, and store the bundles there."""
    with create_layout(LayoutReference("oci", folder)) as layout:
        await layout.push(CONFIG, MemoryBlob(b"{}"), where="config")
        await layout.put_manifest(IMAGE, "latest")
        source = cast(Repository, layout)
        made = await sign_attestations(source, IMAGE.digest, wanted(commit), signer)
        empty = Descriptor.of(b"{}", OCI_EMPTY)
        for each in made:
            blob = Descriptor.of(each.content, each.media_type)
            referrer = build_manifest(empty, [blob], each.annotations, each.media_type, IMAGE)
            await layout.push(empty, MemoryBlob(b"{}"), where="empty")
            await layout.push(blob, MemoryBlob(each.content), where="bundle")
            await layout.put_manifest(referrer, referrer.digest)
            await attach_referrer(layout, referrer, IMAGE.digest)
    return made


def test_statements_are_signed_and_the_bill_stays(tmp_path: Path) -> None:
    signer = Numbered()
    made = asyncio.run(sign(tmp_path, signer))
    bill, *bundles = made
    assert bill == wanted()[0]
    assert signer.signed == [each.content for each in wanted() if each.to_sign]
    assert statement(NAME, IMAGE.digest, SIGNED, {}) in signer.signed
    assert not any(each.to_sign for each in made)
    assert [each.media_type for each in bundles] == [BUNDLE] * 3
    about = [each.annotations for each in wanted()[1:]]
    assert [each.annotations for each in bundles] == about
    assert [json.loads(each.content)["of"].encode() for each in bundles] == signer.signed


def test_stored_bundles_of_the_same_statements_are_used_again(tmp_path: Path) -> None:
    signer = Numbered()
    made = asyncio.run(sign(tmp_path, signer))
    signer.signed.clear()
    assert asyncio.run(sign(tmp_path, signer)) == made
    assert not signer.signed
    other = asyncio.run(sign(tmp_path, signer, "c2"))
    assert [json.loads(each)["predicateType"] for each in signer.signed] == [PROVENANCE]
    assert sum(new != old for new, old in zip(other, made, strict=True)) == 1


@pytest.mark.parametrize("second", [Numbered("other"), Numbered(repeats=True)])
def test_bundles_of_another_signer_are_not_used_nor_those_that_a_key_repeats(
    second: Numbered, tmp_path: Path
) -> None:
    asyncio.run(sign(tmp_path, Numbered()))
    asyncio.run(sign(tmp_path, second))
    assert len(second.signed) == 3
