"""Copies from and to OCI layouts: folders and archives, also as other tools write them."""

from __future__ import annotations

import asyncio
import io
import json
import os
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lapwing.cli.main import run
from lapwing.errors import ImageReferenceError
from lapwing.registry.layout import Layout
from lapwing.registry.layout_files import Folder
from lapwing.registry.layout_reference import parse_layout
from lapwing.registry.manifest import Descriptor, build_manifest
from lapwing.registry.referrers import attach_referrer, list_referrers
from tests.integration.registry.test_command import home, json_output
from tests.registries import Server, digest_of

__all__ = ["home"]


def files_of(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as opened:
        return {m.name: opened.extractfile(m).read() for m in opened}  # type: ignore[union-attr]


def write_archive(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("kind", ["oci", "oci-archive", "docker-archive"])
def test_index_survives_the_way_through_a_layout(
    source: Server,
    target: Server,
    name: str,
    layers: list[bytes],
    kind: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    children = [
        source.push_image(name, a, [*layers, b"", os.urandom(9)], a) for a in ("amd64", "arm64")
    ]
    index = source.push_index(name, "multi", children)
    sbom = source.push_referrer(name, children[0], "application/spdx+json", b"the sbom")
    source.push_index(name, children[0]["digest"].replace(":", "-"), [sbom])
    layout = f"{kind}:{tmp_path}/layout"

    answer = json_output(capsys, "copy", f"{source.host}/{name}:multi", layout, "--referrers")
    assert (answer["destination"], answer["tags"]) == (layout, ["multi"])
    # Three layers and the empty one are shared; a layer and a config of each; the SBOM with config.
    assert answer["blobs"]["copied"] == 4 + 4 + 2
    answer = json_output(capsys, "copy", layout + ":multi", f"{target.host}/{name}", "--referrers")
    assert answer["source"] == f"{layout}:multi"
    assert target.whole(name, "multi") == index["digest"]
    assert target.whole(name, sbom["digest"]) == sbom["digest"]
    assert target.manifest(name, children[0]["digest"].replace(":", "-")) is not None

    goal = f"{target.host}/{name}:arm"
    one = json_output(capsys, "copy", f"{layout}:multi", goal, "--platform", "linux/arm64/v8")
    assert one["digest"] == children[1]["digest"]


def test_images_are_added_to_a_folder(
    source: Server, target: Server, name: str, layers: list[bytes], tmp_path: Path
) -> None:
    pushed = {t: source.push_image(name, t, [*layers, t.encode()]) for t in ("1", "2")}
    layout = f"oci:{tmp_path}/layout"
    for tag in ("1", "2", "2"):
        assert run(["image", "copy", f"{source.host}/{name}:{tag}", layout]) == 0
    assert run(["image", "copy", f"{source.host}/{name}:2", f"{layout}:1"]) == 0
    entries = json.loads((tmp_path / "layout/index.json").read_text())["manifests"]
    tags = {e["annotations"]["org.opencontainers.image.ref.name"]: e["digest"] for e in entries}
    assert tags == {"2": pushed["2"]["digest"], "1": pushed["2"]["digest"]}
    assert len(entries) == 2
    by_digest = f"{layout}@{pushed['1']['digest']}"
    assert run(["image", "copy", by_digest, f"{target.host}/{name}:old"]) == 0
    assert target.whole(name, "old") == pushed["1"]["digest"]


def test_archive_is_deterministic_and_loadable(
    source: Server, name: str, layers: list[bytes], tmp_path: Path
) -> None:
    source.push_image(name, "1", layers)
    folder = tmp_path / "archives"
    folder.mkdir()
    for file in ("a.tar", "b.tar"):
        goal = f"oci-archive:{folder}/{file}"
        assert run(["image", "copy", f"{source.host}/{name}:1", goal]) == 0
    assert (folder / "a.tar").read_bytes() == (folder / "b.tar").read_bytes()
    files = files_of(folder / "a.tar")
    (entry,) = json.loads(files["manifest.json"])
    assert entry["RepoTags"] == [f"{source.host}/{name}:1"]
    assert [files[layer] for layer in entry["Layers"]] == layers
    assert sorted(path.name for path in folder.iterdir()) == ["a.tar", "b.tar"]


def test_archive_of_an_older_docker_save(
    target: Server, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layer = os.urandom(2000)
    config = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [digest_of(layer)]},
    }
    manifest = [{"Config": "c.json", "RepoTags": ["acme/app:7"], "Layers": ["0/layer.tar"]}]
    files = {
        "c.json": json.dumps(config).encode(),
        "0/layer.tar": layer,
        "manifest.json": json.dumps(manifest).encode(),
    }
    write_archive(tmp_path / "saved.tar", files)
    saved = f"docker-archive:{tmp_path}/saved.tar:7"
    goal = f"{target.host}/{name}"
    answer = json_output(capsys, "copy", saved, goal, "--platform", "linux/amd64")
    assert target.whole(name, "7") == answer["digest"]
    found = target.manifest(name, "7")
    assert found is not None
    assert found["layers"][0]["digest"] == digest_of(layer)


def damage(change: Callable[[dict[str, bytes]], Any]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        files = files_of(path)
        change(files)
        write_archive(path, files)

    return write


def largest(files: dict[str, bytes]) -> str:
    return max(files, key=lambda name: len(files[name]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: path.unlink(), "cannot be read as an image layout: No such file"),
        (lambda path: path.write_bytes(b"no archive"), "cannot be read as an image layout"),
        (lambda path: write_archive(path, {}), "it has no index.json"),
        (lambda path: write_archive(path, {"manifest.json": b"[{}]"}), "cannot be read"),
        (damage(lambda files: files.update({"index.json": b"{}"})), "unsupported media type"),
        (damage(lambda files: files.pop(largest(files))), "lacks blob sha256:"),
        (damage(lambda f: f.update({largest(f): f[largest(f)][:-1]})), "after 299999 of 300000"),
        (damage(lambda f: f.update({largest(f): b"x" * 300000})), "has the digest"),
    ],
)
def test_damaged_archive_is_refused(
    source: Server,
    target: Server,
    name: str,
    layers: list[bytes],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Path], None],
    words: str,
) -> None:
    source.push_image(name, "1", layers)
    archive = tmp_path / "image.tar"
    assert run(["image", "copy", f"{source.host}/{name}:1", f"oci-archive:{archive}"]) == 0
    change(archive)
    other = tmp_path / "goal"
    for goal in (f"{target.host}/{name}:1", f"oci:{other}", f"oci-archive:{other}.tar"):
        capsys.readouterr()
        assert run(["image", "copy", f"oci-archive:{archive}", goal]) == 1
        assert words in capsys.readouterr().err
    assert target.manifest(name, "1") is None
    assert not (tmp_path / "goal.tar").exists()
    assert not (tmp_path / "goal" / "index.json").exists()


@pytest.mark.parametrize("content", [b"x" * 300000, b"x" * 99, None])
def test_damaged_file_of_a_folder_is_named(
    source: Server,
    target: Server,
    name: str,
    layers: list[bytes],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: bytes | None,
) -> None:
    source.push_image(name, "1", layers)
    original, layout = f"{source.host}/{name}:1", tmp_path / "image"
    assert run(["image", "copy", original, f"oci:{layout}"]) == 0
    files = [path for path in layout.rglob("*") if path.is_file()]
    file = max(files, key=lambda path: path.stat().st_size)
    found = source.manifest(name, "1")
    assert found is not None
    manifest = layout / "blobs" / found["_digest"].replace(":", "/")
    for damaged in (file, manifest):
        before = damaged.read_bytes()
        if content is None:
            damaged.write_bytes(before[:-1])
        else:
            damaged.write_bytes(content)
        for goal in (
            f"{target.host}/{name}:1",
            f"oci:{tmp_path}/other",
            f"oci-archive:{tmp_path}/a",
        ):
            capsys.readouterr()
            assert run(["image", "copy", f"oci:{layout}", goal]) == 1
            shown = " ".join(capsys.readouterr().err.split())
            assert f"{damaged} is damaged or incomplete: remove it" in shown
            assert "registry" not in shown
        damaged.write_bytes(before)
    file.write_bytes(b"too short")
    assert run(["image", "copy", original, f"oci:{layout}"]) == 0, "an incomplete file is replaced"
    assert run(["image", "copy", f"oci:{layout}", f"{target.host}/{name}:1"]) == 0


def test_layout_is_not_written_over_other_files(
    source: Server, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source.push_image(name, "1", [b"layer"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("x")
    assert run(["image", "copy", f"{source.host}/{name}:1", f"oci:{tmp_path}/mine"]) == 1
    assert "is not an image layout" in capsys.readouterr().err
    missing = f"oci-archive:{tmp_path}/missing/image.tar"
    assert run(["image", "copy", f"{source.host}/{name}:1", missing]) == 1
    assert f"{missing} cannot be written" in capsys.readouterr().err


def test_reference_without_tag_needs_a_single_image(
    source: Server, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = f"oci:{tmp_path}/layout"
    for tag in ("1", "2"):
        source.push_image(name, tag, [tag.encode()])
        assert run(["image", "copy", f"{source.host}/{name}:{tag}", layout]) == 0
    capsys.readouterr()
    assert run(["image", "copy", layout, f"oci:{tmp_path}/other"]) == 1
    assert "Name one of 1, 2" in capsys.readouterr().err
    assert run(["image", "copy", f"{layout}:3", f"oci:{tmp_path}/other"]) == 1
    assert "has no image 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "path", "wanted"),
    [
        ("oci:a/b", "a/b", ""),
        ("oci:a/b:1.2", "a/b", "1.2"),
        ("oci:/a:b/c", "/a:b/c", ""),
        ("oci-archive:a.tar:x", "a.tar", "x"),
        (f"docker-archive:a.tar@{digest_of(b'')}", "a.tar", digest_of(b"")),
    ],
)
def test_references_to_layouts(text: str, path: str, wanted: str) -> None:
    found = parse_layout(text)
    assert found is not None
    assert (str(found.path), found.wanted, str(found)) == (path, wanted, text)


def test_other_references_are_not_layouts() -> None:
    assert parse_layout("oci://registry.example/chart") is None
    assert parse_layout("registry.example/app:1") is None
    assert parse_layout("redis:8") is None
    for invalid in ("oci:a@sha256:12", "oci:"):
        with pytest.raises(ImageReferenceError):
            parse_layout(invalid)


def test_two_writers_of_one_folder_lose_no_image_and_no_referrer(tmp_path: Path) -> None:
    subject = digest_of(b"subject")

    async def write(layout: Layout, names: list[str]) -> None:
        for name in names:
            config = Descriptor.of(name.encode(), "application/vnd.example")
            manifest = build_manifest(config, [], {})
            await layout.put_manifest(manifest, name)
            await attach_referrer(layout, manifest, subject)

    names = [[f"{writer}-{number}" for number in range(40)] for writer in "ab"]
    # The lock is of an open file, so threads exclude each other as processes do.
    with ThreadPoolExecutor(2) as pool:
        layouts = [Layout(f"layout {number}", Folder(tmp_path)) for number in range(2)]
        list(pool.map(lambda *given: asyncio.run(write(*given)), layouts, names))
    entries = json.loads((tmp_path / "index.json").read_text())["manifests"]
    tags = {e["annotations"]["org.opencontainers.image.ref.name"] for e in entries}
    assert tags == {*names[0], *names[1], subject.replace(":", "-")}
    assert len(asyncio.run(list_referrers(layouts[0], subject))) == 80


def test_retry_into_the_folder_of_an_interrupted_copy(
    source: Server, name: str, layers: list[bytes], tmp_path: Path
) -> None:
    source.push_image(name, "1", layers)
    layout = f"oci:{tmp_path}/layout"
    assert run(["image", "copy", f"{source.host}/{name}:1", layout]) == 0
    (tmp_path / "layout/index.json").unlink()  # It is written last.
    assert run(["image", "copy", f"{source.host}/{name}:1", layout]) == 0


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
def test_archive_replaces_no_other_file(
    source: Server,
    name: str,
    layers: list[bytes],
    kind: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source.push_image(name, "1", layers)
    goal, command = tmp_path / "file.tar", ["image", "copy", f"{source.host}/{name}:1"]
    goal.write_bytes(b"the only copy of a thesis")
    assert run([*command, f"{kind}:{goal}"]) == 1
    assert f"{goal} already exists and is not an image archive" in capsys.readouterr().err
    assert goal.read_bytes() == b"the only copy of a thesis"
    write_archive(goal, {"thesis.tex": b"x"})
    assert run([*command, f"{kind}:{goal}"]) == 1
    assert files_of(goal) == {"thesis.tex": b"x"}
    goal.write_bytes(b"")  # As `mktemp` makes it.
    assert run([*command, f"{kind}:{goal}"]) == 0
    assert run([*command, f"{kind}:{goal}:2"]) == 0
    assert b'"2"' in files_of(goal)["index.json"]
