"""The `lapwing image` commands: text and JSON output, errors, memory."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lapwing.cli.main import run
from tests.faulty import Proxy
from tests.registries import CONFIG, Server

Behind = Callable[..., Proxy]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAPWING_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)


def json_output(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> Any:
    """The JSON answer of a command."""
    assert run(["image", *arguments, "--output", "json"]) == status
    return json.loads(capsys.readouterr().out)


def test_copy_json_output(
    source: Server, target: Server, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pushed = source.push_image(name, "1", [os.urandom(1000)])
    answer = json_output(
        capsys, "copy", f"{source.host}/{name}:1", f"{target.host}/{name}:2", "--tag", "latest"
    )
    assert target.whole(name, "latest") == pushed["digest"]
    assert answer.pop("seconds") >= 0
    sent = answer.pop("bytes_sent")
    assert sent > 1000
    assert answer == {
        "source": f"{source.host}/{name}:1",
        "destination": f"{target.host}/{name}",
        "digest": pushed["digest"],
        "media_type": "application/vnd.oci.image.manifest.v1+json",
        "tags": ["2", "latest"],
        "blobs": {"copied": 2, "mounted": 0, "present": 0},
        "left_out": 0,
        "manifests": 1,
        "referrers": 0,
    }


def test_copy_text_output(
    source: Server, target: Server, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pushed = source.push_image(name, "1", [os.urandom(2_000_000)])
    upper = name.upper()
    assert run(["image", "copy", f"{source.host}/{name}:1", f"{target.host}/{upper}:V1"]) == 0
    output = capsys.readouterr()
    assert output.out == f"{target.host}/{name}:V1@{pushed['digest']}\n"
    assert f"{target.host}/{upper}:V1 is used as {target.host}/{name}:V1" in output.err
    assert "(2.0 MB)\n" in output.err
    assert "2 blobs sent (2.0 MB); " in output.err
    assert target.whole(name, "V1") == pushed["digest"]

    assert run(["image", "copy", f"{source.host}/{name}:1", f"{target.host}/{name}:V1"]) == 0
    assert "The destination already has the image" in capsys.readouterr().err


def test_list(
    source: Server, name: str, capsys: pytest.CaptureFixture[str], behind: Behind
) -> None:
    for tag in ("1", "2", "3"):
        source.push_image(name, tag, [b"x"])
    answer = json_output(capsys, "list", f"{source.host}/{name}")
    # This registry lists them in no particular order.
    assert sorted(answer.pop("tags")) == ["1", "2", "3"]
    assert answer == {"repository": f"{source.host}/{name}"}
    assert run(["image", "list", f"{source.host}/{name}"]) == 0
    assert sorted(capsys.readouterr().out.splitlines()) == ["1", "2", "3"]


def test_list_follows_pagination(
    source: Server, name: str, capsys: pytest.CaptureFixture[str], behind: Behind
) -> None:
    front = behind(source)
    link = f'</v2/{name}/tags/list?last=b&n=2>; rel="next"'
    pages = {"n=1000": ("a", "b"), "last=b": ("c",)}
    for query, tags in pages.items():
        front.fail(
            "answer", "GET", query, status=200, body=json.dumps({"tags": tags}).encode(),
            headers={"Link": link} if query == "n=1000" else {}, times=9,
        )  # fmt: skip
    assert json_output(capsys, "list", f"{front.host}/{name}")["tags"] == ["a", "b", "c"]

    front.faults[1].headers = {"Link": link}
    failed = json_output(capsys, "list", f"{front.host}/{name}", status=1)
    assert "has no end" in failed["error"]["message"]


def test_inspect(source: Server, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    pushed = source.push_image(name, "1", [b"layer"])
    answer = json_output(capsys, "inspect", f"{source.host}/{name}:1")
    assert answer["digest"] == pushed["digest"]
    assert answer["config"]["platform"] == "linux/amd64"
    assert answer["config"]["labels"] == {"team": "blue"}
    assert [layer["size"] for layer in answer["layers"]] == [5]
    assert run(["image", "inspect", f"{source.host}/{name}:1"]) == 0
    shown = capsys.readouterr().out
    assert pushed["digest"] in shown
    assert "team=blue" in shown


def test_inspect_selects_platform(
    source: Server, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    children = [source.push_image(name, a, [os.urandom(9)], a) for a in ("amd64", "arm64")]
    source.push_index(name, "multi", children)
    answer = json_output(capsys, "inspect", f"{source.host}/{name}:multi")
    assert [p["platform"] for p in answer["platforms"]] == ["linux/amd64", "linux/arm64"]
    answer = json_output(
        capsys, "inspect", f"{source.host}/{name}:multi", "--platform", "linux/arm64"
    )
    assert answer["digest"] == children[1]["digest"]
    assert answer["config"]["platform"] == "linux/arm64"


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["copy", "a b", "localhost:1/x"], 2, "'a b' is not an image reference"),
        (
            ["copy", "localhost:1/x:1", "localhost:1/y", "-t", "a+b"],
            2,
            "Write the `+` of a version as `_`, as Helm does.",
        ),
        (
            ["copy", "localhost:1/x:1", "localhost:1/y", "--platform", "arm"],
            2,
            "Invalid platform: 'arm'",
        ),
        (["copy", "localhost:1/x:1", "localhost:2/y"], 1, "Cannot connect to localhost:1"),
        (["list", "localhost:1/x:1"], 2, "names an image, not a repository"),
        (["inspect", "localhost:1/x@sha256:12"], 2, "a sha256 digest has 64 hexadecimal digits"),
    ],
)
def test_usage_errors(
    arguments: list[str], status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["image", *arguments]) == status
    err = capsys.readouterr().err
    assert words in err
    assert "Traceback" not in err


def test_control_characters_are_removed_from_output(
    source: Server, name: str, capsys: pytest.CaptureFixture[str], behind: Behind
) -> None:
    source.push_image(name, "1", [b"x"])
    found = source.manifest(name, "1")
    assert found is not None
    raw = source.blob(name, found["config"]["digest"])
    config = json.loads(raw or b"")
    config["config"]["Labels"] = {"a\x1b[2J": "b\x07"}
    named = source.push_blob(name, json.dumps(config).encode())
    found["config"] = {"mediaType": CONFIG, **named}
    del found["_digest"]
    source.push_manifest(name, "2", found)
    assert run(["image", "inspect", f"{source.host}/{name}:2"]) == 0
    front = behind(source)
    bad = {"errors": [{"code": "X", "message": "\x1b[31mred"}], "tags": ["\x1b[2J", "ok"]}
    front.fail("answer", "GET", "/manifests/", status=400, body=json.dumps(bad).encode())
    assert run(["image", "inspect", f"{front.host}/{name}:2"]) == 1
    front.fail("answer", "GET", "/tags/", status=200, body=json.dumps(bad).encode())
    assert run(["image", "list", f"{front.host}/{name}"]) == 0
    output = capsys.readouterr()
    assert output.out.endswith("\nok\n")
    assert "[31mred" in output.err
    assert "\x1b" not in output.out + output.err
    assert "\x07" not in output.out


def chart(folder: Path, name: str, version: str) -> Path:
    """A package as `helm package` makes it."""
    path = folder / f"{name}-{version}.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for file, text in {
            "Chart.yaml": f"apiVersion: v2\nname: {name}\nversion: {version}\n",
            "values.yaml": "replicas: 1\n",
        }.items():
            member = tarfile.TarInfo(f"{name}/{file}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def test_push_chart(
    target: Server, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = chart(tmp_path, "fleet", "1.2.3+build.4")
    (tmp_path / f"{file.name}.prov").write_text("signed")
    answer = json_output(capsys, "push-chart", str(file), f"oci://{target.host}/{name}")
    assert answer["reference"] == f"{target.host}/{name}/fleet:1.2.3_build.4"
    assert target.whole(f"{name}/fleet", "1.2.3_build.4") == answer["digest"]
    found = target.manifest(f"{name}/fleet", "1.2.3_build.4")
    assert found is not None
    assert found["config"]["mediaType"] == "application/vnd.cncf.helm.config.v1+json" != CONFIG
    assert [layer["mediaType"].rpartition(".")[2] for layer in found["layers"]] == [
        "tar+gzip",
        "prov",
    ]
    assert target.blob(f"{name}/fleet", found["layers"][0]["digest"]) == file.read_bytes()
    config = target.blob(f"{name}/fleet", found["config"]["digest"])
    assert json.loads(config or b"")["version"] == "1.2.3+build.4"

    again = json_output(capsys, "push-chart", str(file), f"{target.host}/{name}/")
    assert again["digest"] == answer["digest"]


def test_push_chart_refuses_invalid_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], target: Server
) -> None:
    (tmp_path / "x.tgz").write_bytes(b"not gzip")
    for arguments, words in (
        ([str(tmp_path / "none.tgz"), target.host], "none.tgz does not exist"),
        ([str(tmp_path / "x.tgz"), target.host], "is not a packaged chart"),
        ([str(chart(tmp_path, "a", "1.0.0")), f"{target.host}/x:1"], "is not an image reference"),
    ):
        assert run(["image", "push-chart", *arguments]) != 0
        err = capsys.readouterr().err
        assert words in err
        assert "Traceback" not in err


def test_layers_are_not_held_in_memory(
    source: Server, target: Server, name: str, tmp_path: Path
) -> None:
    """The peak memory of the command stays far below the size of a layer."""
    source.push_image(name, "1", [os.urandom(128 * 1024 * 1024)])
    measured = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    lapwing = str(Path(sys.executable).with_name("lapwing"))
    copy = [lapwing, "image", "copy", f"{source.host}/{name}:1", f"{target.host}/{name}"]
    done = subprocess.run(
        [sys.executable, "-c", measured, *copy], check=True, capture_output=True, text=True
    )
    assert int(done.stdout.split()[-1]) < 80 * 1024
    assert target.whole(name, "1")
