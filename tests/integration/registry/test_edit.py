"""`lapwing image tag`, `delete` and `copy --file`."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lapwing.cli.main import run
from tests.faulty import Proxy
from tests.integration.registry.test_command import home, json_output
from tests.registries import Server

__all__ = ["home"]

Behind = Callable[..., Proxy]


def test_tag(source: Server, name: str, capsys: pytest.CaptureFixture[str], behind: Behind) -> None:
    pushed = source.push_image(name, "1", [os.urandom(9)])
    front = behind(source)
    repository = f"{front.host}/{name}"
    for changed in (True, False):
        answer = json_output(capsys, "tag", f"{repository}:1", "2")
        expected = {"reference": f"{repository}:2", "digest": pushed["digest"], "changed": changed}
        assert answer == expected
    assert source.whole(name, "2") == pushed["digest"]
    assert not any("/blobs/" in seen.path for seen in front.seen)
    assert run(["image", "tag", f"{repository}@{pushed['digest']}", "3"]) == 0
    assert capsys.readouterr().out == f"{repository}:3@{pushed['digest']}\n"
    assert run(["image", "tag", f"{repository}:missing", "4"]) == 1
    assert run(["image", "tag", f"{repository}:1", "a/b"]) == 2


def test_delete_by_digest(source: Server, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    pushed = source.push_image(name, "1", [os.urandom(9)])
    other = source.push_image(name, "other", [os.urandom(9)])
    reference = f"{source.host}/{name}@{pushed['digest']}"
    answer = json_output(capsys, "delete", reference)
    assert answer == {"reference": reference, "digest": pushed["digest"]}
    assert source.manifest(name, "1") is None
    assert source.whole(name, "other") == other["digest"]
    assert run(["image", "delete", reference]) == 1
    assert "does not exist; nothing was deleted" in capsys.readouterr().err


def test_delete_of_tag_where_the_registry_allows_it(
    oci: Server, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pushed = oci.push_image(name, "1", [os.urandom(9)])
    assert run(["image", "tag", f"{oci.host}/{name}:1", "2"]) == 0
    assert run(["image", "delete", f"{oci.host}/{name}:1"]) == 0
    assert oci.manifest(name, "1") is None
    assert oci.whole(name, "2") == pushed["digest"]


def test_delete_never_falls_back_from_tag_to_image(
    source: Server, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """docker-registry deletes no single tag, and the image may have others."""
    pushed = source.push_image(name, "1", [os.urandom(9)])
    assert run(["image", "delete", f"{source.host}/{name}:1"]) == 1
    err = capsys.readouterr().err
    assert "does not delete single tags" in err
    assert f"image delete {source.host}/{name}@DIGEST" in err
    assert source.whole(name, "1") == pushed["digest"]


def test_delete_where_the_registry_forbids_it(
    source: Server, name: str, capsys: pytest.CaptureFixture[str], behind: Behind
) -> None:
    pushed = source.push_image(name, "1", [os.urandom(9)])
    front = behind(source)
    front.fail("answer", "DELETE", "/manifests/", status=405)
    assert run(["image", "delete", f"{front.host}/{name}@{pushed['digest']}"]) == 1
    assert "does not allow images to be deleted (405)" in capsys.readouterr().err


def test_delete_needs_a_tag_or_digest(
    source: Server, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["image", "delete", f"{source.host}/{name}"]) == 2
    assert "names a repository, not an image" in capsys.readouterr().err


def test_copy_of_a_list(
    source: Server, target: Server, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pushed = {t: source.push_image(name, t, [os.urandom(9)]) for t in ("1", "2")}
    lines = [f"{source.host}/{name}:{tag} {target.host}/{name}-{tag}" for tag in pushed]
    file = tmp_path / "images"
    file.write_text("\n".join(["# comment", lines[0], "", f"{lines[1]}:new # another"]) + "\n")
    answer = json_output(capsys, "copy", "--file", str(file))
    assert [each["tags"] for each in answer] == [["1"], ["new"]]
    for tag, copied in (("1", "1"), ("2", "new")):
        assert target.whole(f"{name}-{tag}", copied) == pushed[tag]["digest"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Give either SRC and DST, or --file FILE"),
        (["localhost:1/x"], "Give either SRC and DST"),
        (["localhost:1/x", "localhost:1/y", "--file", "-"], "Give either SRC and DST"),
        (["--file", "-"], "Line 2 of --file is not `SRC DST`: 'alone'"),
    ],
)
def test_usage_errors_of_copy(
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a:1 b:1\nalone\n")))
    assert run(["image", "copy", *arguments]) == 2
    assert words in capsys.readouterr().err
