"""What a chart has besides objects: Chart.yaml, named templates, notes, the test.

Names are scoped to the release as Helm's own starter does it: the release's name, with the chart's
behind it unless it is there already. Unlike there, a name that would be too long is refused and not
cut: two releases whose names are cut to the same would share their objects.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from lapwing.render.helm.expression import Contents, inline

KUBERNETES = ">=1.29.0-0"
"""The oldest version whose API has everything that is rendered; `-0` lets vendors' builds pass."""
IGNORED = """# What `helm package` leaves out.
.DS_Store
.git/
.lapwing-rendered.json
*.tgz
*.orig
*.swp
"""


def about(name: str, version: str, app_version: str, description: str) -> str:
    """Chart.yaml."""
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
    """_helpers.tpl. `longest` is the number of characters that a full name may have."""
    return f"""{{{{/* The name of the chart, or what stands for it. */}}}}
{{{{- define "{chart}.name" -}}}}
{{{{- default .Chart.Name .Values.nameOverride -}}}}
{{{{- end }}}}

{{{{/*
What all names begin with. Names of Kubernetes end at 63 characters; one that would be
longer is refused, not cut, since two releases could then mean the same objects.
*/}}}}
{{{{- define "{chart}.fullname" -}}}}
{{{{- $name := include "{chart}.name" . -}}}}
{{{{- $full := printf "%s-%s" .Release.Name $name -}}}}
{{{{- if contains $name .Release.Name }}}}{{{{ $full = .Release.Name }}}}{{{{ end -}}}}
{{{{- if .Values.fullnameOverride }}}}{{{{ $full = .Values.fullnameOverride }}}}{{{{ end -}}}}
{{{{- if gt (len $full) {longest} -}}}}
{{{{- fail (printf "The name %q has %d characters, and {longest} is the most: choose a shorter \
release name, or set fullnameOverride." $full (len $full)) -}}}}
{{{{- end -}}}}
{{{{- $full -}}}}
{{{{- end }}}}
{_contents(contents)}"""


def _contents(contents: Contents) -> str:
    """The texts whose digests are part of names, or tell a pod that they changed."""
    found = ""
    for text, name in contents.all():
        found += f'\n{{{{- define "{name}" }}}}{inline(text, contents)}{{{{ end }}}}\n'
    return found


def notes(chart: str, *, made: Sequence[str], given: Sequence[str], edge: int | None) -> str:
    """NOTES.txt: what to look at, how to reach it, what stays after `helm uninstall`. `made` and
    `given` are the ends of the names of Secrets that the chart makes, and that people make; `edge`
    is the port of the Service that clients reach, if there is one."""
    prefix = f'{{{{ include "{chart}.fullname" . }}}}'
    space = "{{ .Release.Namespace }}"
    lines = [f"{{{{ .Chart.Name }}}} {{{{ .Chart.AppVersion }}}} is on its way as {prefix}."]
    if given:
        lines += ["", "Its pods wait until these Secrets are there:"]
        for end in given:
            lines += [
                f"  kubectl -n {space} create secret generic {prefix}{end} --from-file=value=FILE"
            ]
    lines += [
        "",
        "See whether its pods are ready:",
        f"  kubectl -n {space} get pods -l app.kubernetes.io/instance={prefix}",
    ]
    if edge is not None:
        scheme = "https" if edge == 443 else "http"
        lines += [
            "",
            "Test it, and reach it:",
            f"  helm test {{{{ .Release.Name }}}} -n {space}",
            f"  kubectl -n {space} port-forward service/{prefix}-edge 8585:{edge}",
            f"  and open {scheme}://localhost:8585",
        ]
    if made:
        lines += [
            "",
            "These Secrets are made once, at the first installation, and never changed. They stay",
            "after `helm uninstall`, as the volumes do that they open:",
            *(f"  {prefix}{end}" for end in made),
        ]
    return "\n".join(lines) + "\n"
