"""Third-party images: each is rendered with the digest that lapwing.lock has for it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lapwing.cli.main import cli
from lapwing.errors import BuildError
from lapwing.render.helm import stack as chart
from lapwing.render.helm.chart import About
from lapwing.render.kubernetes import render
from lapwing.stack.image import parse
from lapwing.stack.image_lock import LOCK, write_lock
from lapwing.stack.load import load
from lapwing.targets.image_pins import CHART_IMAGES, unpinned
from tests.unit.render.clusters import CLUSTERS
from tests.unit.render.helm import helm

DIGEST = "sha256:" + "a" * 64


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(CLUSTERS / "placed-pods" / "lapwing.yaml", tmp_path)
    return tmp_path


def images_in(tree: Any) -> set[str]:
    """The images of the containers in a tree."""
    if isinstance(tree, list):
        return {image for value in tree for image in images_in(value)}
    if not isinstance(tree, dict):
        return set()
    own = {str(tree["image"])} if "image" in tree and "name" in tree else set()
    return own | images_in(list(tree.values()))


@pytest.mark.parametrize("environment", ["cluster", "spot"])
def test_every_image_of_another_publisher_is_rendered_with_its_digest(
    folder: Path, environment: str
) -> None:
    loaded = load(folder / "lapwing.yaml", environment)
    names = unpinned(loaded, {})
    assert names == [
        "curlimages/curl:8.16.0", "envoyproxy/envoy:distroless-v1.36.2", "mysql:8.4",
        "rclone/rclone:1.75.1", "redis:7",
    ]  # fmt: skip
    write_lock(folder, {str(parse(name)): DIGEST for name in (*names, *CHART_IMAGES)})
    wanted = {"shop/api:v1", "shop/mail:v1", *(f"{name}@{DIGEST}" for name in names)}
    made = render.prepare(loaded)
    assert images_in(render.objects(made)) == wanted
    files = chart.files(made, About("shop", "1.0.0", "1", "A stack"))
    found = images_in(helm.template(helm.write(folder / "chart", files)))
    assert {image for image in found if "@" not in image} == {"shop/api:v1", "shop/mail:v1"}
    assert "images without a digest" not in check(folder, environment)


def test_every_image_of_another_publisher_is_pulled_from_the_mirror(folder: Path) -> None:
    path, mirror = folder / "lapwing.yaml", "registry.example/hub"
    key = f"    registry_mirror: {mirror}\n"
    path.write_text(path.read_text().replace("  cluster:\n", f"  cluster:\n{key}", 1))
    loaded = load(path, "cluster")
    assert unpinned(loaded, {}) == [
        f"{mirror}/curlimages/curl:8.16.0", f"{mirror}/envoyproxy/envoy:distroless-v1.36.2",
        f"{mirror}/library/mysql:8.4", f"{mirror}/library/redis:7",
        f"{mirror}/rclone/rclone:1.75.1",
    ]  # fmt: skip
    # A mirror has the digests of the original images.
    mysql = f"sha256:{'b' * 64}"
    write_lock(folder, {f"{mirror}/library/redis:7": DIGEST, "docker.io/library/mysql:8.4": mysql})
    made = render.prepare(loaded)
    files = chart.files(made, About("shop", "1.0.0", "1", "A stack"))
    templates = helm.template(helm.write(folder / "chart", files))
    for found in (images_in(render.objects(made)), images_in(templates)):
        assert f"{mirror}/library/redis:7@{DIGEST}" in found
        assert f"{mirror}/library/mysql:8.4@{mysql}" in found
        others = {image for image in found if not image.startswith(f"{mirror}/")}
        assert others == {"shop/api:v1", "shop/mail:v1"}


def test_check_names_images_without_a_digest(folder: Path) -> None:
    write_lock(folder, {"docker.io/library/redis:7": DIGEST})
    shown = check(folder, "cluster")
    [note] = [line for line in shown.splitlines() if "images without a digest" in line]
    assert "rclone/rclone:1.75.1. Their publishers" in note
    assert "redis" not in note


def check(folder: Path, environment: str) -> str:
    result = CliRunner().invoke(cli, ["-C", str(folder), "check", "-e", environment])
    assert result.exit_code == 0, result.output
    return result.output


def test_invalid_lock_file_renders_nothing(folder: Path) -> None:
    (folder / LOCK).write_text("no lock file")
    with pytest.raises(BuildError, match="is not a valid lock file"):
        render.prepare(load(folder / "lapwing.yaml", "cluster"))
