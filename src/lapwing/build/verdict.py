"""What the findings of a scan mean: which stop what is shipped, and which somebody has accepted.

An acceptance (`scan: {accept: [...]}`) takes a finding out until its last day. After that day the
finding counts again, and the error says who thought what. Pure.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from lapwing.build.scan import ORDER, Finding, Severity
from lapwing.stack.scanning import Accepted


@dataclass(slots=True)
class Verdict:
    """`stopping` are the findings that may not be shipped, the most severe first; one whose
    acceptance is over comes with that. `unused` are acceptances of what was not found."""

    stopping: list[tuple[Finding, Accepted | None]] = field(default_factory=list)
    accepted: list[tuple[Finding, Accepted]] = field(default_factory=list)
    unused: list[Accepted] = field(default_factory=list)


def judge(
    findings: Iterable[Finding],
    fail_on: Severity,
    accept: Sequence[Accepted] = (),
    today: datetime.date = datetime.date.max,
) -> Verdict:
    """The verdict on findings; those of lower severity than `fail_on` may be shipped."""
    verdict = Verdict()
    found = sorted(set(findings), key=lambda f: (-ORDER.index(f.severity), f.package, f.id))
    used: set[int] = set()
    for finding in found:
        entries = [(i, e) for i, e in enumerate(accept) if _is_of(e, finding)]
        used.update(i for i, _ in entries)
        if ORDER.index(finding.severity) < ORDER.index(fail_on):
            continue
        last = max((e for _, e in entries), key=lambda e: e.until, default=None)
        if last is not None and last.until >= today:
            verdict.accepted.append((finding, last))
        else:
            verdict.stopping.append((finding, last))
    verdict.unused = [e for i, e in enumerate(accept) if i not in used]
    return verdict


def line(finding: Finding, over: Accepted | None = None) -> str:
    """A finding in a line, for people; with an acceptance that is over, that."""
    text = f"{finding.severity:8} {finding.package} {finding.version}: {finding.id}"
    if finding.fixed:
        text += f", fixed in {finding.fixed}"
    if over is not None:
        text += f"; was accepted until {over.until}: {over.reason}"
    return text


def _is_of(entry: Accepted, finding: Finding) -> bool:
    names = {n.upper() for n in (finding.id, *finding.aliases)}
    return entry.id.upper() in names and entry.package in (None, finding.package)
