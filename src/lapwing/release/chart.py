"""The chart of a release: checked, given the version, and packed so that the same commit gives the
same bytes.

`FolderChart` is a chart that people keep in the repository. It is read from the commit, not from
the disk. What Helm demands of a chart is checked here (Chart.yaml, its name, values that are a
mapping, a schema that is JSON, templates); where there is a `helm` on the PATH, `helm lint` is
asked, too. Source: Helm's documentation, "Charts" (the Chart.yaml file, .helmignore).
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import yaml

from lapwing.errors import ReleaseError
from lapwing.release.forge.model import File
from lapwing.release.git import Checkout
from lapwing.release.paths import matches
from lapwing.render.helm.chart import package
from lapwing.stack.load import LoadedStack
from lapwing.stack.project import Released

PACKAGE = "application/gzip"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_SCALAR = {"version": re.compile(r"^version:[^\n]*$", re.M)}
_APP_VERSION = re.compile(r"^appVersion:", re.M)


class ChartMaker(Protocol):
    """Whatever makes the chart of a release."""

    def package(self, version: str) -> File:
        """The packed chart of a version, linted. Raises LapwingError."""
        ...


class FolderChart:
    """A chart in a folder of a commit."""

    def __init__(
        self, checkout: Checkout, commit: str, folder: str, environ: Mapping[str, str]
    ) -> None:
        self._checkout = checkout
        self._commit = commit
        self._folder = folder.rstrip("/")
        self._environ = environ

    def package(self, version: str) -> File:
        """Pack it."""
        files = self._files()
        name = check(files, self._folder)
        files["Chart.yaml"] = with_version(files["Chart.yaml"].decode(), version).encode()
        lint_with_helm(name, files, self._environ)
        when = self._checkout.committed_at(self._commit)
        return File(f"{name}-{version}.tgz", package(name, files, when), PACKAGE)

    def _files(self) -> dict[str, bytes]:
        names = self._checkout.files(self._commit, self._folder)
        found = {
            name: self._checkout.content(self._commit, f"{self._folder}/{name}") for name in names
        }
        ignored = (found.get(".helmignore") or b"").decode(errors="replace").splitlines()
        patterns = [p.strip() for p in ignored if p.strip() and not p.startswith("#")]
        return {
            name: content
            for name, content in found.items()
            if content is not None and not any(matches(name, pattern) for pattern in patterns)
        }


class StackChart:
    """The chart that Lapwing makes of a stack, as `lapwing chart` writes it: the first environment
    that is a cluster, with the others as presets."""

    def __init__(self, clusters: Sequence[LoadedStack], environ: Mapping[str, str]) -> None:
        self._clusters = clusters
        self._environ = environ

    def package(self, version: str) -> File:
        """Make it and pack it."""
        from lapwing.render.helm import stack
        from lapwing.render.kubernetes import render

        first, *others = [render.target(cluster) for cluster in self._clusters]
        name = self._clusters[0].stack.stack
        files = stack.files(first, stack.about(name, version), others)
        lint_with_helm(name, {path: text.encode() for path, text in files.items()}, self._environ)
        return File(f"{name}-{version}.tgz", package(name, files), PACKAGE)


def chart_maker(
    released: Released, source: Checkout, commit: str, environ: Mapping[str, str]
) -> ChartMaker | str:
    """Choose what makes the chart of a release; the reason where there is no chart."""
    wanted = released.delivery.release.chart
    if wanted is False:
        return "the file says `chart: false`"
    if wanted is not None:
        return FolderChart(source, commit, wanted, environ)
    if not released.stacks:
        return "the project names no `chart`"
    clusters = [s for s in released.stacks if s.settings.target == "kubernetes"]
    if not clusters:
        return "no environment of the stack is a cluster"
    if any(service.image is None for c in clusters for service in c.stack.services.values()):
        return "not every service names its `image`"
    return StackChart(clusters, environ)


def check(files: Mapping[str, bytes], where: str) -> str:
    """The name of a chart that Helm would take. Raises ReleaseError with what is wrong."""
    about = _mapping(files, "Chart.yaml", where)
    if about is None:
        raise _wrong(where, "there is no Chart.yaml")
    name = about.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _wrong(where, f"its name, {name!r}, is not made of a-z, 0-9 and `-`")
    if about.get("apiVersion") not in ("v1", "v2"):
        raise _wrong(where, "its `apiVersion` is neither v1 nor v2")
    if not isinstance(about.get("version"), str):
        raise _wrong(where, "its Chart.yaml has no `version` that is a text")
    _mapping(files, "values.yaml", where)
    if "values.schema.json" in files:
        try:
            json.loads(files["values.schema.json"])
        except ValueError as error:
            raise _wrong(where, f"values.schema.json is not JSON ({error})") from error
    if about.get("type") != "library" and not any(n.startswith("templates/") for n in files):
        raise _wrong(where, "it has no templates")
    for entry in about.get("dependencies") or ():
        wanted = entry.get("name") if isinstance(entry, dict) else None
        if not any(PurePosixPath(n).parts[:1] == ("charts",) and str(wanted) in n for n in files):
            raise _wrong(where, f"its dependency {wanted!r} is not in charts/")
    return name


def with_version(chart: str, version: str) -> str:
    """Chart.yaml with another version; everything else stays as people wrote it. An `appVersion`
    is added where there is none."""
    changed = _SCALAR["version"].sub(f"version: {version}", chart, count=1)
    if _APP_VERSION.search(changed) is None:
        changed = changed.rstrip("\n") + f'\nappVersion: "{version}"\n'
    return changed


def lint_with_helm(name: str, files: Mapping[str, bytes], environ: Mapping[str, str]) -> None:
    """Ask `helm lint`, where there is a helm. Raises ReleaseError with its words."""
    helm = shutil.which("helm", path=environ.get("PATH"))
    if helm is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        for path, content in files.items():
            target = Path(folder, name, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        done = subprocess.run(
            [helm, "lint", str(Path(folder, name))],
            capture_output=True,
            text=True,
            check=False,
            env=dict(environ),
        )
    if done.returncode != 0:
        detail = (done.stdout + done.stderr).strip()
        raise ReleaseError("`helm lint` refuses the chart.", hint="Correct it.", detail=detail)


def _mapping(files: Mapping[str, bytes], name: str, where: str) -> dict[str, Any] | None:
    if name not in files:
        return None
    try:
        found = yaml.safe_load(files[name])
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _wrong(where, f"{name} is not YAML ({error})") from error
    if found is None and name != "Chart.yaml":
        return {}
    if not isinstance(found, dict):
        raise _wrong(where, f"{name} is not a mapping")
    return found


def _wrong(where: str, why: str) -> ReleaseError:
    return ReleaseError(f"{where} is not a chart that Helm takes: {why}.", hint="Correct it.")
