"""The text of a first stack file, from what was found. Pure.

Written by hand rather than by a YAML library, because the comments matter as much as the data.
"""

from __future__ import annotations

import json
import re

from lapwing.stack.compose import FoundResource
from lapwing.stack.detect import Findings, Found
from lapwing.stack.source import scalar

_HEAD = """\
# Written by `lapwing init` from what is in this folder: read it once, then it is yours.
# `lapwing check` checks it, `lapwing up` runs it on this machine.
"""


def draft(findings: Findings) -> str:
    """The stack file, with every note as a comment at the place that it is about."""
    lines = [_HEAD + f"stack: {findings.stack}", ""]
    lines += [f"# {note}" for note in findings.notes]
    lines.append("services:")
    for service in findings.services:
        lines += [*_service(service), ""]
    if findings.resources:
        lines.append("resources:")
        lines += [_resource(resource) for resource in findings.resources]
    return "\n".join(lines).rstrip() + "\n"


def text(value: str) -> str:
    """A text as YAML that gives it back, with quotes only where they are needed."""
    plain = re.fullmatch(r"[A-Za-z0-9_./$][A-Za-z0-9_./$=@+-]*( [A-Za-z0-9_./$=@+:-]+)*", value)
    if (
        plain
        and not value.endswith(":")
        and ": " not in value
        and scalar(value, plain=True) == value
    ):
        return value
    return json.dumps(value)


def _service(service: Found) -> list[str]:
    lines = [f"  {service.name}:"]
    lines += [f"    # {note}" for note in service.notes]
    if service.kind == "job":
        lines.append("    kind: job")
    lines.append(f"    build: {text(service.folder)}")
    if service.static:
        lines.append(f"    static: {text(service.static)}")
    if service.command:
        lines.append(f"    command: {text(service.command)}")
    if service.route:
        lines.append(f"    route: {service.route}")
    if service.health:
        lines.append(f"    health: {service.health}")
    if service.needs:
        lines.append(f"    needs: [{', '.join(service.needs)}]")
    return lines


def _resource(resource: FoundResource) -> str:
    parts = [f"kind: {resource.kind}"]
    if resource.version:
        parts.append(f"version: {json.dumps(resource.version)}")
    if resource.variable:
        parts.append(f"variable: {resource.variable}")
    return f"  {resource.name}: {{{', '.join(parts)}}}"
