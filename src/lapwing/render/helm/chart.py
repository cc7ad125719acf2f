"""A chart from the objects of one environment: file name to text, and as one package.

Objects keep the files that the renderer put them into: one template for each concern. What exists
only in a chart has separate files: the Job that generates secrets (`secrets.py`), the test.

The Namespace is left out: a release is installed into an existing one, or into one that `helm
install --create-namespace` creates; one that belonged to the release would delete the volumes when
the release is uninstalled. Argo CD's own objects are left out, because they would apply the chart
again.
"""

from __future__ import annotations

import gzip
import io
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lapwing.errors import UsageError
from lapwing.plan.names import MAX_NAME_LENGTH, VERSION
from lapwing.render.helm import scaffold, template
from lapwing.render.helm.template import Contents
from lapwing.render.helm.values import Values, settings
from lapwing.render.kubernetes.setting import Joined, Scope, Tree, text

SEMVER = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(-(0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)(\.(0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*))*)?"
    r"(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?",
    re.ASCII,
)
"""Source: Semantic Versioning 2.0.0, items 2, 9 and 10."""
LEFT_OUT = frozenset(("Namespace", "Application", "AppProject", "ApplicationSet"))
_HASHED = {"StatefulSet": 11, "CronJob": 11}
"""Characters that the cluster appends to a name of this kind, in a label or a name."""
DEFAULT_DATE = 86_400
"""Seconds since 1970 of every file of a package without another date."""


@dataclass(frozen=True, slots=True)
class About:
    """The contents of Chart.yaml."""

    name: str
    version: str
    app_version: str
    description: str


@dataclass(frozen=True, slots=True)
class Templated:
    """One object of the chart: its file below templates/, and its tree."""

    file: str
    tree: dict[str, Any]


def check_version(version: str) -> str:
    """Return a chart version unchanged, or raise UsageError if it is invalid."""
    if SEMVER.fullmatch(version) is None:
        raise UsageError(
            f"Invalid chart version {version!r}.",
            hint="A version is three numbers without a `v`, such as 1.4.0 or 1.4.0-rc.1 (Semantic "
            "Versioning 2.0.0).",
        )
    return version


def max_prefix_length(objects: Sequence[Templated]) -> int:
    """Return how long the prefix of all names may be for the longest name to stay valid."""
    ends = [0]
    for item in objects:
        name = item.tree.get("metadata", {}).get("name")
        if isinstance(name, Joined) and name.pieces[0] is Scope.PREFIX:
            end = text(Joined(name.pieces[1:]), {scope: "" for scope in Scope})
            ends.append(len(end) + _HASHED.get(item.tree.get("kind", ""), 0))
    return MAX_NAME_LENGTH - max(ends)


def files(
    about: About,
    objects: Sequence[Templated],
    *,
    notes: Mapping[str, Any],
    head: str,
    heads: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Render every file of the chart.

    Args:
        about: The contents of Chart.yaml.
        objects: The objects; those of the kinds in `LEFT_OUT` are skipped.
        notes: The arguments of `scaffold.notes`.
        head: The comment at the top of values.yaml.
        heads: The comments at the top of templates, by file name.

    Raises:
        UsageError: The name of the chart is too long for its objects, or its version is invalid.
    """
    kept = [item for item in objects if item.tree.get("kind") not in LEFT_OUT]
    most = max_prefix_length(kept)
    if len(about.name) > most:
        raise UsageError(
            f"Chart name {about.name!r} is too long for its objects: the maximum is {most} "
            "characters.",
            hint="Shorten the name of the stack, or of the service with the longest name.",
        )
    kept = [Templated(item.file, _with_chart_labels(item.tree)) for item in kept]
    contents = Contents(about.name)
    for item in kept:
        contents.add(item.tree)
    templates = _templates(kept, contents, heads or {})
    values = Values(_settings(kept))
    checks = "".join(template.check_range(*pair) for pair in values.ranges())
    return {
        ".helmignore": scaffold.IGNORED,
        "Chart.yaml": scaffold.about(
            about.name, check_version(about.version), about.app_version, about.description
        ),
        "values.yaml": values.yaml(head),
        "values.schema.json": values.schema(f"Values of {about.name}"),
        "templates/_helpers.tpl": scaffold.helpers(about.name, most, contents),
        "templates/NOTES.txt": checks + scaffold.notes(about.name, **notes),
        **templates,
    }


def _with_chart_labels(tree: dict[str, Any]) -> dict[str, Any]:
    """Add the labels of Helm's conventions to an object.

    Its pods do not get them, so that a new version of the chart alone restarts nothing.
    """
    metadata = tree["metadata"]
    if "labels" not in metadata:
        return tree
    labels = {**metadata["labels"], "helm.sh/chart": Scope.CHART, VERSION: Scope.APP_VERSION}
    return {**tree, "metadata": {**metadata, "labels": labels}}


def _templates(
    objects: Sequence[Templated], contents: Contents, heads: Mapping[str, str]
) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in objects:
        written = template.document(item.tree, contents)
        path = f"templates/{item.file}"
        found[path] = f"{found[path]}---\n{written}" if path in found else written
    comments = {f"templates/{name}": f"# {head}\n" for name, head in heads.items()}
    return {path: comments.get(path, "") + found[path] for path in sorted(found)}


def _settings(objects: Sequence[Templated]) -> Iterator[Tree]:
    for item in objects:
        yield from settings(item.tree)


def package(
    name: str, files: Mapping[str, str] | Mapping[str, bytes], when: int = DEFAULT_DATE
) -> bytes:
    """Pack the files of a chart as a .tgz, below a folder of its name.

    The same files always give the same bytes. `helm package` writes the current time, so the same
    chart gets another digest each time, and a registry keeps it twice. Here every date is `when`,
    in seconds since 1970 (never 0, which some programs read as "no date"), the owner is 0, and
    files are sorted by name, with Chart.yaml first, as in Helm's own packages.
    """
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(files, key=lambda file: (file != "Chart.yaml", file)):
            content = files[path]
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(f"{name}/{path}")
            member.size, member.mtime, member.mode = len(data), when, 0o644
            archive.addfile(member, io.BytesIO(data))
    return gzip.compress(packed.getvalue(), compresslevel=9, mtime=when)
