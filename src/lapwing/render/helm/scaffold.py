"""What a chart has besides objects: Chart.yaml, named templates, notes.

Names are scoped to the release as in Helm's own starter: the name of the release, followed by that
of the chart unless it contains it. Unlike there, a name that would be too long is refused and not
truncated: two releases whose names are truncated to the same would share their objects.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from lapwing.render.helm.template import Contents, inline
from lapwing.system.package_data import fill, read

KUBERNETES = ">=1.29.0-0"
"""The oldest version with all rendered APIs; `-0` admits vendors' builds."""
IGNORED = read("render.helm", "templates/helmignore")


def about(name: str, version: str, app_version: str, description: str) -> str:
    """Write Chart.yaml."""
    return (
        "apiVersion: v2\n"
        f"name: {name}\n"
        f"description: {json.dumps(description, ensure_ascii=False)}\n"
        "type: application\n"
        f"version: {version}\n"
        f"appVersion: {json.dumps(app_version)}\n"
        f'kubeVersion: "{KUBERNETES}"\n'
    )


def helpers(chart: str, longest: int, contents: Contents) -> str:
    """Write _helpers.tpl. `longest` is the maximum length of a full name."""
    text = fill(read("render.helm", "templates/_helpers.tpl"), chart=chart, longest=longest)
    return text + _contents(contents)


def _contents(contents: Contents) -> str:
    """Write the texts whose digests are part of names."""
    found = ""
    for text, name in contents:
        found += f'\n{{{{- define "{name}" }}}}{inline(text, contents)}{{{{ end }}}}\n'
    return found


def notes(chart: str, *, generated: Sequence[str], given: Sequence[str], edge: int | None) -> str:
    """Write NOTES.txt: how to check and open the release, and what `helm uninstall` keeps.

    Args:
        chart: The name of the chart.
        generated: The ends of the names of Secrets that the chart generates.
        given: The ends of the names of Secrets that users create.
        edge: The port of the Service for clients, if there is one.
    """
    prefix = f'{{{{ include "{chart}.fullname" . }}}}'
    space = "{{ .Release.Namespace }}"
    lines = [f"{{{{ .Chart.Name }}}} {{{{ .Chart.AppVersion }}}} is being installed as {prefix}."]
    if given:
        lines += ["", "Its pods start when these Secrets exist:"]
        for end in given:
            lines += [
                f"  kubectl -n {space} create secret generic {prefix}{end} --from-file=value=FILE"
            ]
    lines += [
        "",
        "Check that its pods are ready:",
        f"  kubectl -n {space} get pods -l app.kubernetes.io/instance={prefix}",
    ]
    if edge is not None:
        scheme = "https" if edge == 443 else "http"
        lines += [
            "",
            "Test it and open it:",
            f"  helm test {{{{ .Release.Name }}}} -n {space}",
            f"  kubectl -n {space} port-forward service/{prefix}-edge 8585:{edge}",
            f"  open {scheme}://localhost:8585",
        ]
    if generated:
        lines += [
            "",
            "These Secrets are generated at the first installation and never changed.",
            "`helm uninstall` keeps them, and the volumes that need them:",
            *(f"  {prefix}{end}" for end in generated),
        ]
    return "\n".join(lines) + "\n"
