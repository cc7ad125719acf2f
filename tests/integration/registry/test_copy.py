"""Copies between real registries: what arrives, and what is not sent twice."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from lapwing.errors import ImageMissingError, IntegrityError, RegistryError, UsageError
from lapwing.registry.client import RegistryClient
from lapwing.registry.copy import CopyOptions
from lapwing.registry.manifest import parse_platform
from lapwing.stack import image
from tests.faulty import Login, Proxy, proxy
from tests.integration.registry.conftest import SOON, Copier, Quiet
from tests.registries import EMPTY, INDEX, LAYER, MANIFEST, Server, digest_of

Behind = Callable[..., Proxy]


async def test_copy_keeps_digest(
    source: Server, target: Server, name: str, layers: list[bytes], copy: Copier
) -> None:
    pushed = source.push_image(name, "1", layers)

    done = await copy(f"{source.host}/{name}:1", f"{target.host}/{name}")

    assert target.whole(name, "1") == pushed["digest"] == done.root.digest
    assert done.tags == ["1"]
    assert done.blobs == {"copied": 4, "mounted": 0, "present": 0}
    assert copy.progress.through == copy.progress.sizes
    assert done.sent == sum(copy.progress.sizes.values())


async def test_copy_writes_every_tag(
    source: Server, target: Server, name: str, layers: list[bytes], copy: Copier
) -> None:
    pushed = source.push_image(name, "1", layers)

    await copy(f"{source.host}/{name}:1", f"{target.host}/{name}:v1.2.3", "latest", "v1.2.3", "x")

    for tag in ("v1.2.3", "latest", "x"):
        found = target.manifest(name, tag)
        assert found is not None
        assert found["_digest"] == pushed["digest"]
    assert target.manifest(name, "1") is None


async def test_second_tag_requests_no_blobs(
    source: Server, target: Server, name: str, layers: list[bytes], copy: Copier, behind: Behind
) -> None:
    source.push_image(name, "1", layers)
    front = behind(target)
    await copy(f"{source.host}/{name}:1", f"{front.host}/{name}")
    front.seen.clear()

    done = await copy(f"{source.host}/{name}:1", f"{front.host}/{name}", "2")

    assert target.whole(name, "2") == done.root.digest
    assert [(s.method, s.path.rpartition("/")[2]) for s in front.seen] == [
        ("HEAD", "2"),
        ("HEAD", done.root.digest),
        ("PUT", "2"),
    ]
    front.seen.clear()
    await copy(f"{source.host}/{name}:1", f"{front.host}/{name}", "2")
    assert [(s.method, s.path.rpartition("/")[2]) for s in front.seen] == [("HEAD", "2")]


async def test_blobs_are_mounted_within_registry(
    source: Server, name: str, layers: list[bytes], copy: Copier, behind: Behind
) -> None:
    pushed = source.push_image(name, "1", layers)
    front = behind(source)

    done = await copy(f"{front.host}/{name}:1", f"{front.host}/{name}-too")

    assert source.whole(f"{name}-too", "1") == pushed["digest"]
    assert done.blobs == {"copied": 0, "mounted": 4, "present": 0}
    assert front.received("/blobs/") == 0


async def test_tag_in_same_repository_transfers_nothing(
    source: Server, name: str, layers: list[bytes], copy: Copier
) -> None:
    pushed = source.push_image(name, "1", layers)
    done = await copy(f"{source.host}/{name}:1", f"{source.host}/{name}:2")
    assert source.whole(name, "2") == pushed["digest"]
    assert not any(done.blobs.values())


async def test_interrupted_copy_resumes(
    source: Server, target: Server, name: str, layers: list[bytes], copy: Copier, behind: Behind
) -> None:
    source.push_image(name, "1", layers)
    front = behind(target)
    broken = front.fail("answer", "PUT", "/manifests/", times=1000, status=500)
    with pytest.raises(RegistryError):
        await copy(f"{source.host}/{name}:1", f"{front.host}/{name}")
    assert target.manifest(name, "1") is None
    broken.times = 0
    front.seen.clear()

    done = await copy(f"{source.host}/{name}:1", f"{front.host}/{name}")

    assert target.whole(name, "1") == done.root.digest
    assert done.blobs == {"copied": 0, "mounted": 0, "present": 4}
    assert front.received("/blobs/") == 0


async def test_duplicate_layer_is_sent_once(
    source: Server, target: Server, name: str, copy: Copier
) -> None:
    same = os.urandom(1000)
    source.push_image(name, "1", [same, same, os.urandom(10)])
    done = await copy(f"{source.host}/{name}:1", f"{target.host}/{name}")
    assert target.whole(name, "1") == done.root.digest
    assert done.blobs["copied"] == 3


async def test_empty_and_chunked_layers(
    source: Server, target: Server, name: str, copy: Copier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lapwing.registry.push.CHUNK_BYTES", 100_000)
    source.push_image(name, "1", [b"", os.urandom(1_000_001)])
    done = await copy(f"{source.host}/{name}:1", f"{target.host}/{name}")
    assert target.whole(name, "1") == done.root.digest


async def test_connections_are_reused(
    source: Server, target: Server, name: str, copy: Copier, behind: Behind
) -> None:
    source.push_image(name, "1", [os.urandom(1000) for _ in range(20)])
    fronts = behind(source), behind(target)
    await copy(f"{fronts[0].host}/{name}:1", f"{fronts[1].host}/{name}", jobs=3)
    for front in fronts:
        assert len(front.seen) > 20
        assert front.connections <= 3 + 1 + 1  # The greeting by which TLS is found out.


async def test_connections_are_reused_after_present_blobs(
    source: Server, target: Server, name: str, copy: Copier, behind: Behind
) -> None:
    """The answer to HEAD has the length of a body that is not sent."""
    layers = [os.urandom(100_000) for _ in range(20)]
    source.push_image(name, "1", layers)
    for layer in layers:
        target.push_blob(name, layer)
    front = behind(target)
    done = await copy(f"{source.host}/{name}:1", f"{front.host}/{name}", jobs=3)
    assert done.blobs["present"] == 20
    assert front.connections <= 3 + 1 + 1


async def test_copy_of_index_includes_all_platforms(
    source: Server, target: Server, name: str, layers: list[bytes], copy: Copier
) -> None:
    children = [
        source.push_image(name, arch, [*layers, os.urandom(9)], arch)
        for arch in ("amd64", "arm64", "s390x")
    ]
    index = source.push_index(name, "multi", children)

    done = await copy(f"{source.host}/{name}:multi", f"{target.host}/{name}")

    assert target.whole(name, "multi") == index["digest"]
    assert done.manifests == 4
    # Three layers are shared; each image has one of its own, and a config.
    assert done.blobs["copied"] == 3 + 3 + 3
    again = await copy(f"{source.host}/{name}:multi", f"{target.host}/{name}:too")
    assert not any(again.blobs.values())
    assert target.whole(name, "too") == index["digest"]


async def test_platform_selection(source: Server, target: Server, name: str, copy: Copier) -> None:
    arches = ("amd64", "arm64", "s390x")
    children = {a: source.push_image(name, a, [os.urandom(9)], a) for a in arches}
    source.push_index(name, "multi", list(children.values()))

    one = await copy(
        f"{source.host}/{name}:multi", f"{target.host}/{name}:one",
        platforms=(parse_platform("linux/arm64"),),
    )  # fmt: skip
    assert target.whole(name, "one") == children["arm64"]["digest"] == one.root.digest

    await copy(
        f"{source.host}/{name}:multi", f"{target.host}/{name}:two",
        platforms=(parse_platform("linux/arm64"), parse_platform("linux/amd64")),
    )  # fmt: skip
    two = target.manifest(name, "two")
    assert two is not None
    assert [m["digest"] for m in two["manifests"]] == [
        children[a]["digest"] for a in ("amd64", "arm64")
    ]
    assert target.manifest(name, children["s390x"]["digest"]) is None

    with pytest.raises(RegistryError) as missing:
        await copy(
            f"{source.host}/{name}:multi", f"{target.host}/{name}:none",
            platforms=(parse_platform("windows/amd64"),),
        )  # fmt: skip
    assert "linux/s390x" in (missing.value.hint or "")
    assert target.manifest(name, "none") is None


@pytest.mark.parametrize("wanted", ["linux/arm64", "linux/arm64/v8", "linux/aarch64"])
async def test_platform_of_image_without_index(
    source: Server, target: Server, name: str, copy: Copier, wanted: str
) -> None:
    pushed = source.push_image(name, "1", [os.urandom(9)], "arm64")
    reference, platform = f"{source.host}/{name}:1", parse_platform(wanted)
    await copy(reference, f"{target.host}/{name}", platforms=(platform,))
    assert target.whole(name, "1") == pushed["digest"]

    other = parse_platform("linux/amd64")
    for platforms in ((other,), (platform, other)):
        with pytest.raises(RegistryError, match="is an image for linux/arm64, not for linux/amd64"):
            await copy(reference, f"{target.host}/{name}-too", platforms=platforms)
    assert target.manifest(f"{name}-too", "1") is None


async def test_blobs_are_mounted_from_repository_of_an_earlier_copy(
    source: Server, target: Server, name: str, layers: list[bytes], copy: Copier, behind: Behind
) -> None:
    for suffix in ("a", "b"):
        source.push_image(f"{name}-{suffix}", "1", [*layers, os.urandom(9)])
    login = Login("bearer")
    front = behind(target, login)
    environ = {
        **copy.settings.environ,
        f"LAPWING_REGISTRY_{re.sub('[^0-9]', '_', front.host)}_TOKEN": "s3cret-pass",
        f"LAPWING_REGISTRY_{re.sub('[^0-9]', '_', front.host)}_USER": "robot",
    }
    async with RegistryClient(replace(copy.settings, environ=environ), retry=SOON) as client:
        for suffix in ("a", "b"):
            done = await client.copy(
                image.parse(f"{source.host}/{name}-{suffix}:1"),
                image.parse(f"{front.host}/{name}-{suffix}:1"),
                [],
                CopyOptions(),
                Quiet(),
            )
    assert done.blobs == {"copied": 2, "mounted": len(layers), "present": 0}
    assert front.count("POST", f"{name}-b/.*mount=.*from={name}-a$") == len(layers)
    assert [f"repository:{name}-b:pull,push", f"repository:{name}-a:pull"] in login.scopes
    # The layer and the config of its own.
    assert len(front.requests("PUT", f"{name}-b/blobs")) == 2
    target.whole(f"{name}-b", "1")


async def test_copy_by_digest_requires_tag_or_digest(
    source: Server, target: Server, name: str, layers: list[bytes], copy: Copier
) -> None:
    pushed = source.push_image(name, "1", layers)
    by_digest = f"{source.host}/{name}@{pushed['digest']}"
    with pytest.raises(UsageError):
        await copy(by_digest, f"{target.host}/{name}")

    other = "sha256:" + "0" * 64
    with pytest.raises(IntegrityError):
        await copy(by_digest, f"{target.host}/{name}@{other}")

    await copy(by_digest, f"{target.host}/{name}@{pushed['digest']}")
    assert target.whole(name, pushed["digest"]) == pushed["digest"]


async def test_missing_image(source: Server, target: Server, name: str, copy: Copier) -> None:
    with pytest.raises(ImageMissingError) as missing:
        await copy(f"{source.host}/{name}:1", f"{target.host}/{name}")
    assert f"{source.host}/{name}:1" in missing.value.message


async def test_unreachable_registry(target: Server, name: str, copy: Copier) -> None:
    with pytest.raises(RegistryError) as refused:
        await copy(f"127.0.0.1:1/{name}:1", f"{target.host}/{name}")
    assert "Cannot connect to 127.0.0.1:1" in refused.value.message


async def test_foreign_layers_are_left_out(
    source: Server, target: Server, name: str, copy: Copier
) -> None:
    foreign = {
        "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "digest": digest_of(b"foreign"),
        "size": 7,
        "urls": ["https://example.invalid/layer"],
    }
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    config = {
        "mediaType": "application/vnd.docker.container.image.v1+json",
        **source.push_blob(name, b'{"rootfs": {}}'),
    }
    layer = {
        "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
        **source.push_blob(name, b"layer"),
    }
    document = {
        "schemaVersion": 2, "mediaType": kind, "config": config, "layers": [foreign, layer],
    }  # fmt: skip
    source.push_manifest(name, "1", document)
    done = await copy(f"{source.host}/{name}:1", f"{target.host}/{name}")
    assert done.left_out == 1
    answer = target.client.get(target.url(f"{name}/manifests/1"), headers={"Accept": kind})
    assert answer.json() == document

    # With the manifest there, too; a source without the layer leaves it a reference.
    missing = await copy(f"{source.host}/{name}:1", f"{target.host}/{name}", foreign_layers=True)
    assert missing.left_out == 1
    source.push_blob(name, b"foreign")
    done = await copy(f"{source.host}/{name}:1", f"{target.host}/{name}", foreign_layers=True)
    assert (done.left_out, done.blobs["copied"]) == (0, 1)
    assert target.blob(name, foreign["digest"]) == b"foreign"


class TestReferrers:
    """Signatures and SBOMs, by each of the ways in which registries store them."""

    async def test_copy_between_referrers_api_and_referrers_tag(
        self, oci: Server, target: Server, name: str, layers: list[bytes], copy: Copier
    ) -> None:
        image = oci.push_image(name, "1", layers)
        sbom = oci.push_referrer(name, image, "application/spdx+json", b"the sbom")
        signature = oci.push_referrer(name, sbom, "application/x-signature", b"of the sbom")

        done = await copy(f"{oci.host}/{name}:1", f"{target.host}/{name}", referrers=True)

        assert done.referrers == 2
        listed = target.manifest(name, image["digest"].replace(":", "-"))
        assert listed is not None
        assert [(m["digest"], m["artifactType"]) for m in listed["manifests"]] == [
            (sbom["digest"], "application/spdx+json")
        ]
        assert target.whole(name, sbom["digest"]) == sbom["digest"]
        assert target.whole(name, signature["digest"]) == signature["digest"]

        await copy(f"{target.host}/{name}:1", f"{oci.host}/{name}-back", referrers=True)
        assert oci.referrers(f"{name}-back", image["digest"]) == [sbom["digest"]]
        assert oci.referrers(f"{name}-back", sbom["digest"]) == [signature["digest"]]

    @pytest.mark.parametrize("link", ['</v2/{path}?last=2>; rel="next"', "<?last=2>;rel=next"])
    async def test_every_page_of_referrers_is_copied(
        self, oci: Server, name: str, layers: list[bytes], copy: Copier, link: str
    ) -> None:
        """None of these registries divides the list into pages: the proxy does."""
        image = oci.push_image(name, "1", layers)
        pushed = [oci.push_referrer(name, image, f"application/{n}", b"x") for n in "abc"]
        path = f"{name}/referrers/{image['digest']}"
        first, second = (
            json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": part}).encode()
            for part in (pushed[:2], pushed[2:])
        )
        kind = {"Content-Type": INDEX}
        with proxy(oci.host) as paged:
            headers = {**kind, "Link": link.format(path=path)}
            paged.fail("answer", "GET", f"{path}$", status=200, headers=headers, body=first)
            paged.fail("answer", "GET", r"\?last=2$", status=200, headers=kind, body=second)
            done = await copy(f"{paged.host}/{name}:1", f"{oci.host}/{name}-too", referrers=True)
        assert done.referrers == 3
        wanted = {each["digest"] for each in pushed}
        assert set(oci.referrers(f"{name}-too", image["digest"])) == wanted

    async def test_referrers_are_not_copied_by_default(
        self, oci: Server, name: str, layers: list[bytes], copy: Copier
    ) -> None:
        image = oci.push_image(name, "1", layers)
        oci.push_referrer(name, image, "application/spdx+json", b"the sbom")
        await copy(f"{oci.host}/{name}:1", f"{oci.host}/{name}-too")
        assert oci.referrers(f"{name}-too", image["digest"]) == []

    async def test_second_referrer_is_added_to_referrers_tag(
        self, source: Server, target: Server, name: str, layers: list[bytes], copy: Copier
    ) -> None:
        image = source.push_image(name, "1", layers)
        tag = image["digest"].replace(":", "-")
        first = source.push_referrer(name, image, "application/a", b"first")
        source.push_index(name, tag, [first])
        await copy(f"{source.host}/{name}:1", f"{target.host}/{name}", referrers=True)
        second = source.push_referrer(name, image, "application/b", b"second")
        source.push_index(name, tag, [second])
        await copy(f"{source.host}/{name}:1", f"{target.host}/{name}", referrers=True)
        found = target.manifest(name, tag)
        assert found is not None
        assert [m["digest"] for m in found["manifests"]] == [first["digest"], second["digest"]]

    async def test_cosign_tags_are_copied(
        self, source: Server, target: Server, name: str, layers: list[bytes], copy: Copier
    ) -> None:
        image = source.push_image(name, "1", layers)
        tag = image["digest"].replace(":", "-") + ".sig"
        signature = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": EMPTY, **source.push_blob(name, b"{}")},
            "layers": [{"mediaType": LAYER, **source.push_blob(name, b"signed")}],
        }
        pushed = source.push_manifest(name, tag, signature)
        await copy(f"{source.host}/{name}:1", f"{target.host}/{name}", referrers=True)
        assert target.whole(name, tag) == pushed["digest"]

    async def test_referrers_of_each_platform_are_copied(
        self, oci: Server, name: str, layers: list[bytes], copy: Copier
    ) -> None:
        children = [oci.push_image(name, a, layers, a) for a in ("amd64", "arm64")]
        oci.push_index(name, "multi", children)
        sbom = oci.push_referrer(name, children[1], "application/spdx+json", b"arm")
        await copy(f"{oci.host}/{name}:multi", f"{oci.host}/{name}-too", referrers=True)
        found = oci.referrers(f"{name}-too", children[1]["digest"])
        assert found == [sbom["digest"]]
