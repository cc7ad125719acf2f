"""The real Helm, for tests of charts."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.needs import require


def write(folder: Path, files: Mapping[str, str]) -> Path:
    """Write a chart into a folder."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run helm without a cluster and without anybody's settings."""
    return subprocess.run(
        [require("helm"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
    )


def template(
    chart: Path, *arguments: str, release: str = "shop", namespace: str = "prod"
) -> list[dict[str, Any]]:
    """The objects of a chart, as `helm template` gives them."""
    ran = run("template", release, chart, "--namespace", namespace, *arguments)
    assert ran.returncode == 0, ran.stderr
    return list(objects(ran.stdout))


def without_chart_labels(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the objects without the labels that only a chart adds; every object must have them."""
    only = {"helm.sh/chart", "app.kubernetes.io/version"}
    plain = []
    for item in found:
        labels = item["metadata"]["labels"]
        assert only <= labels.keys(), item
        kept = {k: v for k, v in labels.items() if k not in only}
        plain.append({**item, "metadata": {**item["metadata"], "labels": kept}})
    return plain


class Loader(yaml.SafeLoader):
    """Reads a lone `=` or `<<` of a list as text, as the API server does.

    Helm's own `toYaml` writes both without quotes. YAML 1.1 has types for them (`value`, `merge`),
    for which PyYAML has no text; the renderer quotes both (test_emit.py reads it with SafeLoader).
    """


for kind in ("value", "merge"):
    Loader.add_constructor(f"tag:yaml.org,2002:{kind}", yaml.SafeLoader.construct_yaml_str)


def objects(text: str) -> Iterator[dict[str, Any]]:
    """The objects of some YAML documents."""
    for document in yaml.load_all(text, Loader):
        if document is not None:
            yield document
