"""The Helm chart of a release: checked, versioned, and the same bytes for the same commit.

A chart in the repository (`release: {chart: FOLDER}`) is read from the commit, not from the disk.
Otherwise the chart is the one that `lapwing chart` writes for the stack. Helm's requirements are
checked here (Chart.yaml, its name, values that are a mapping, a schema that is JSON, templates);
where `helm` is installed, `helm lint` is run, too. `render/helm/chart.py` packages both. Source:
Helm's documentation, "Charts" (the Chart.yaml file, .helmignore).
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from lapwing.errors import ReleaseError
from lapwing.release.forges import ReleaseFile
from lapwing.release.git import Checkout
from lapwing.release.patterns import matches
from lapwing.render.helm.chart import package
from lapwing.stack.image import parse
from lapwing.stack.load import LoadedStack
from lapwing.stack.project import Released
from lapwing.stack.release_rules import mirrored_version
from lapwing.system import process

HELM_TIMEOUT_S = 120.0
MEDIA_TYPE = "application/gzip"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_VERSION = re.compile(r"^version:[^\n]*$", re.M)
_APP_VERSION = re.compile(r"^appVersion:", re.M)


def package_chart(
    released: Released, checkout: Checkout, commit: str, version: str, environ: Mapping[str, str]
) -> ReleaseFile | str:
    """Package the chart of a release; return the reason where there is none.

    Raises LapwingError.
    """
    reason = chart_missing(released)
    if reason is not None:
        return reason
    folder = released.delivery.release.chart
    if folder:
        return package_folder(checkout, commit, folder, version, environ)

    from lapwing.render.helm import stack
    from lapwing.render.kubernetes import render

    clusters = _clusters(released)
    first, *others = [render.prepare(cluster) for cluster in clusters]
    name = clusters[0].stack.stack
    about = stack.about(name, version, _mirrored_version(released))
    texts = stack.files(first, about, others)
    files = {path: text.encode() for path, text in texts.items()}
    _lint(name, files, environ)
    return ReleaseFile(f"{name}-{version}.tgz", package(name, files), MEDIA_TYPE)


def chart_missing(released: Released) -> str | None:
    """Return why a release has no chart; None if it has one."""
    folder = released.delivery.release.chart
    if folder is False:
        return "`chart: false` in the file"
    if folder is not None:
        return None
    if not released.stacks or released.paths:
        return "the project has no `chart`"
    clusters = _clusters(released)
    if not clusters:
        return "the stack has no environment with `target: kubernetes`"
    if any(service.image is None for c in clusters for service in c.stack.services.values()):
        return "not every service has an `image`"
    return None


def _clusters(released: Released) -> list[LoadedStack]:
    return [s for s in released.stacks if s.settings.target == "kubernetes"]


def _mirrored_version(released: Released) -> str | None:
    """Return the version of the application in a chart: of the first mirrored image in use."""
    used = {
        parse(service.image)
        for service in released.stacks[0].stack.services.values()
        if service.image is not None
    }
    mirrored = (parse(entry.image) for entry in released.delivery.mirror)
    return next((mirrored_version(image) for image in mirrored if image in used), None)


def package_folder(
    checkout: Checkout, commit: str, folder: str, version: str, environ: Mapping[str, str]
) -> ReleaseFile:
    """Package the chart in a folder of a commit."""
    folder = folder.rstrip("/")
    files = _read_folder(checkout, commit, folder)
    name = _check(files, folder)
    files["Chart.yaml"] = _with_version(files["Chart.yaml"].decode(), version).encode()
    _lint(name, files, environ)
    content = package(name, files, checkout.committed_at(commit))
    return ReleaseFile(f"{name}-{version}.tgz", content, MEDIA_TYPE)


def _read_folder(checkout: Checkout, commit: str, folder: str) -> dict[str, bytes]:
    """Return the files of a chart's folder, without those in .helmignore."""
    names = checkout.files(commit, folder)
    found = {name: checkout.content(commit, f"{folder}/{name}") for name in names}
    ignored = (found.get(".helmignore") or b"").decode(errors="replace").splitlines()
    patterns = [p.strip() for p in ignored if p.strip() and not p.startswith("#")]
    return {
        name: content
        for name, content in found.items()
        if content is not None and not any(matches(name, pattern) for pattern in patterns)
    }


def _check(files: Mapping[str, bytes], where: str) -> str:
    """Return the name of a valid chart. Raises ReleaseError."""
    metadata = _mapping(files, "Chart.yaml", where)
    if metadata is None:
        raise _invalid(where, "there is no Chart.yaml")
    name = metadata.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _invalid(where, f"its name, {name!r}, has characters other than a-z, 0-9 and `-`")
    if metadata.get("apiVersion") not in ("v1", "v2"):
        raise _invalid(where, "its `apiVersion` is neither v1 nor v2")
    if not isinstance(metadata.get("version"), str):
        raise _invalid(where, "its Chart.yaml has no `version` that is a string")
    _mapping(files, "values.yaml", where)
    if "values.schema.json" in files:
        try:
            json.loads(files["values.schema.json"])
        except ValueError as error:
            raise _invalid(where, f"values.schema.json is not JSON ({error})") from error
    if metadata.get("type") != "library" and not any(n.startswith("templates/") for n in files):
        raise _invalid(where, "it has no templates")
    for entry in metadata.get("dependencies") or ():
        wanted = entry.get("name") if isinstance(entry, dict) else None
        if not any(PurePosixPath(n).parts[:1] == ("charts",) and str(wanted) in n for n in files):
            raise _invalid(where, f"its dependency {wanted!r} is not in charts/")
    return name


def _with_version(chart: str, version: str) -> str:
    """Return Chart.yaml with another version and everything else unchanged.

    An `appVersion` is added where there is none.
    """
    changed = _VERSION.sub(f"version: {version}", chart, count=1)
    if _APP_VERSION.search(changed) is None:
        changed = changed.rstrip("\n") + f'\nappVersion: "{version}"\n'
    return changed


def find_helm(environ: Mapping[str, str]) -> str | None:
    """Return the path of `helm`, which lints charts where it is installed."""
    return shutil.which("helm", path=environ.get("PATH"))


def _lint(name: str, files: Mapping[str, bytes], environ: Mapping[str, str]) -> None:
    """Run `helm lint`, where helm is installed. Raises ReleaseError with its output."""
    helm = find_helm(environ)
    if helm is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        for path, content in files.items():
            target = Path(folder, name, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        lint = [helm, "lint", str(Path(folder, name))]
        try:
            done = process.run(lint, environ, timeout=HELM_TIMEOUT_S)
        except OSError as error:
            raise ReleaseError(
                f"`helm lint` cannot be run, or did not end within {HELM_TIMEOUT_S:g} s.",
                hint="Run `helm lint` on the chart to see why.",
            ) from error
    if done.status != 0:
        detail = (done.stdout.decode(errors="replace") + done.stderr).strip()
        raise ReleaseError(
            f"`helm lint` reports errors in chart {name}.",
            hint="Correct the chart, and check it with `helm lint`.",
            detail=detail,
        )


def _mapping(files: Mapping[str, bytes], name: str, where: str) -> dict[str, Any] | None:
    if name not in files:
        return None
    try:
        found = yaml.safe_load(files[name])
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _invalid(where, f"{name} is not YAML ({error})") from error
    if found is None and name != "Chart.yaml":
        return {}
    if not isinstance(found, dict):
        raise _invalid(where, f"{name} is not a mapping")
    return found


def _invalid(where: str, why: str) -> ReleaseError:
    return ReleaseError(
        f"{where} is not a valid Helm chart: {why}.",
        hint="Correct the chart, and check it with `helm lint`.",
    )
