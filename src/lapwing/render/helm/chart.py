"""A chart from the objects of one environment: name of file to text. Pure.

Objects keep the files that the renderer put them into: one template for each concern. What is only
in a chart stands in files of its own: the Job that makes secrets (`secrets.py`), the test.

The Namespace is left out: a release is installed into one that is there, or made by `helm install
--create-namespace`, and one that belonged to the release would take the volumes with it when the
release is uninstalled. Argo CD's own objects are left out, because they would lead back to the
chart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lapwing.errors import UsageError
from lapwing.render.helm import expression, scaffold, template
from lapwing.render.helm.expression import Contents
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
LONGEST_NAME = 63
_HASHED = {"StatefulSet": 11, "CronJob": 11}
"""Characters that the cluster puts behind a name of this kind, in a label or a name."""


@dataclass(frozen=True, slots=True)
class About:
    """What Chart.yaml says."""

    name: str
    version: str
    app_version: str
    description: str


@dataclass(frozen=True, slots=True)
class Templated:
    """One object of the chart: the file below templates/ that it stands in, and its tree."""

    file: str
    tree: dict[str, Any]


def check_version(version: str) -> str:
    """A chart's version as it is. Raises UsageError if it is none."""
    if SEMVER.fullmatch(version) is None:
        raise UsageError(
            f"{version!r} is not a version that a chart can have.",
            hint="Versions are three numbers without a `v`, such as 1.4.0 or 1.4.0-rc.1 "
            "(Semantic Versioning).",
        )
    return version


def longest_prefix(objects: Sequence[Templated]) -> int:
    """The characters that all names may begin with, so that the longest name is still one."""
    ends = [0]
    for item in objects:
        name = item.tree.get("metadata", {}).get("name")
        if isinstance(name, Joined) and name.pieces[0] is Scope.PREFIX:
            end = text(Joined(name.pieces[1:]), {scope: "" for scope in Scope})
            ends.append(len(end) + _HASHED.get(item.tree.get("kind", ""), 0))
    return LONGEST_NAME - max(ends)


def files(
    about: About,
    objects: Sequence[Templated],
    *,
    notes: Mapping[str, Any],
    head: str,
    heads: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Every file of the chart. `notes` are the arguments of `scaffold.notes`, `head` the comment
    that values.yaml begins with, `heads` those of templates. Raises UsageError for a name too long
    for its objects."""
    kept = [item for item in objects if item.tree.get("kind") not in LEFT_OUT]
    most = longest_prefix(kept)
    if len(about.name) > most:
        raise UsageError(
            f"{about.name!r} is too long for the chart's objects: {most} characters is the most.",
            hint="Choose a shorter name for the stack, or for its longest service.",
        )
    contents = Contents(about.name)
    for item in kept:
        expression.digests(item.tree, contents)
    templates = _templates(kept, contents, heads or {})
    values = Values(_settings(kept))
    return {
        ".helmignore": scaffold.IGNORED,
        "Chart.yaml": scaffold.about(
            about.name, check_version(about.version), about.app_version, about.description
        ),
        "values.yaml": values.yaml(head),
        "values.schema.json": values.schema(f"Values of {about.name}"),
        "templates/_helpers.tpl": scaffold.helpers(about.name, most, contents),
        "templates/NOTES.txt": scaffold.notes(about.name, **notes),
        **templates,
    }


def _templates(
    objects: Sequence[Templated], contents: Contents, heads: Mapping[str, str]
) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in objects:
        written = template.document(item.tree, contents)
        path = f"templates/{item.file}"
        found[path] = f"{found[path]}---\n{written}" if path in found else written
    told = {f"templates/{name}": f"# {head}\n" for name, head in heads.items()}
    return {path: told.get(path, "") + found[path] for path in sorted(found)}


def _settings(objects: Sequence[Templated]) -> Iterator[Tree]:
    for item in objects:
        yield from settings(item.tree)
