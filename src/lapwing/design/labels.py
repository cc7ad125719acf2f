"""Labels of pictures, each with the condition under which it is true, as in `claims.py`."""

from __future__ import annotations

from lapwing.design.claim import Claim
from lapwing.design.subject import Subject, joined

LABELS: dict[str, Claim] = {
    "autopilot": Claim(
        lambda s: "GKE Autopilot" if s.project.clusters[0].autopilot else "GKE",
        lambda s: bool(s.project.clusters),
    ),
    "zones": Claim("pods spread over its zones", lambda s: bool(s.spread)),
    "tls": Claim(
        lambda s: s.tls,
        lambda s: bool(s.tls),
    ),
    "cdn": Claim(
        "Cloud CDN for static files",
        lambda s: s.has_cdn,
    ),
    "ci-pushes": Claim("CI can push", lambda s: s.granted("ci", "writer")),
    "nodes-pull": Claim("nodes can only pull", lambda s: s.granted("nodes", "reader")),
    "denied": Claim(
        "the firewall denies ingress and egress by default",
        lambda s: s.has_closed_firewall,
    ),
    "private-nodes": Claim("private nodes", lambda s: s.has_private_nodes),
    "policies": Claim("NetworkPolicies deny by default", lambda s: s.has_closed_pods),
    "restricted": Claim("pods are restricted", lambda s: s.has_restricted_pods),
    "no-public-port": Claim(
        lambda s: f"the only {'listener, on loopback' if s.is_local else 'public listener'}",
        lambda s: s.on_machine and s.has_ingress,
    ),
    "no-public-database": Claim(
        "no public endpoint",
        lambda s: s.has_private_endpoint,
    ),
    "peered": Claim(
        lambda s: f"peered range {joined(p.cidr for p in s.project.peerings)}",
        lambda s: any(m.private for m in s.facts.managed),
    ),
    "one-switch": Claim(
        "one switch for all services", lambda s: s.on_machine and bool(s.blue_green)
    ),
    "Argo CD": Claim("applies each commit", lambda s: s.environment.deployed_by == "argocd"),
    "Argo Rollouts": Claim("switches the slots", lambda s: bool(s.blue_green)),
    "External Secrets": Claim("copies secrets", lambda s: bool(s.facts.secret_reads)),
}
"""Labels of pictures."""


def label(subject: Subject, name: str) -> str:
    """Return a label, or the empty text if it does not hold."""
    claim = LABELS[name]
    return claim(subject) if claim.holds(subject) else ""


def labels(subject: Subject, *names: str) -> tuple[str, ...]:
    """Return the labels that hold."""
    return tuple(text for text in (label(subject, name) for name in names) if text)
