"""The decisions behind an environment: what was chosen, why, what else, and when to change it.

A row is in the document only if it holds for the inventory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lapwing.design.claim import Holds
from lapwing.design.subject import Subject, joined


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision, and the environments for which it was made."""

    subject: str
    choice: str | Callable[[Subject], str]
    why: str
    alternative: str
    change: str
    holds: Holds

    def cells(self, subject: Subject) -> tuple[str, ...]:
        """Return the row of the table."""
        choice = self.choice if isinstance(self.choice, str) else self.choice(subject)
        return self.subject, choice, self.why, self.alternative, self.change


HEADER = ("Decision", "Choice", "Why", "Alternative", "Change it when")


def _by(deployer: str) -> Holds:
    return lambda s: s.environment.deployed_by == deployer


DECISIONS = (
    Decision(
        "Platform",
        "one machine",
        "lowest cost, nothing to operate but one host",
        "GKE Autopilot, from the same stack file",
        "one host is too small, or its maintenance must not interrupt users",
        lambda s: s.on_machine,
    ),
    Decision(
        "Platform",
        "GKE Autopilot",
        "billed per pod; Google operates and upgrades the nodes",
        "one machine; GKE Standard",
        "pods fill whole nodes all day: then GKE Standard with commitments",
        lambda s: any(c.autopilot for c in s.project.clusters),
    ),
    Decision(
        "Platform",
        "an existing cluster",
        "no new infrastructure",
        "GKE Autopilot by `cloud`",
        "the team cannot operate the cluster",
        lambda s: not s.on_machine and s.cloud is None,
    ),
    Decision(
        "Cloud, region",
        lambda s: f"Google Cloud, {s.cloud.region}" if s.cloud else "",
        "`lapwing infra` creates it; one region needs one cluster and one network",
        "a machine, or an existing cluster, of any provider",
        "most users are on another continent, or the law requires another country",
        lambda s: s.cloud is not None,
    ),
    Decision(
        "Projects",
        "one for the environment, and a shared one",
        "what runs is isolated from registry, DNS and CI",
        "one project for everything",
        "SOC 2 or HIPAA require more isolation",
        lambda s: s.cloud is not None and len(s.cloud.environments) == 1,
    ),
    Decision(
        "Projects",
        "one for several environments, and a shared one",
        "one cluster, one load balancer and one NAT gateway to pay for",
        "one project for each environment",
        "production has to be isolated from tests",
        lambda s: s.cloud is not None and len(s.cloud.environments) > 1,
    ),
    Decision(
        "Delivery",
        "Argo CD",
        "the cluster pulls; CI has no access to it",
        "`delivery: direct`",
        "one person deploys: then direct is less to operate",
        _by("argocd"),
    ),
    Decision(
        "Delivery",
        "`lapwing deploy`",
        "no controller to operate",
        "Argo CD",
        "several people deploy, or CI must not reach the cluster",
        _by("lapwing"),
    ),
    Decision(
        "Delivery",
        "the agent of the machine",
        "it pulls the desired state; no port is open for CI",
        "Argo CD on a cluster",
        "the environment moves to a cluster",
        lambda s: s.on_machine and not s.environment.over_ssh,
    ),
    Decision(
        "Delivery",
        "the agent of the machine, which gets commits over SSH",
        "deployments need no open port but that of SSH",
        "an agent that pulls a repository",
        "the machine must not accept connections of CI",
        lambda s: s.environment.over_ssh,
    ),
    Decision(
        "Releases",
        "blue-green, all services at once",
        "instant rollback while the old slot runs",
        "restart in place",
        "both slots do not fit on the machine",
        lambda s: s.on_machine and bool(s.blue_green),
    ),
    Decision(
        "Releases",
        "blue-green by Argo Rollouts",
        "health checks before the switch, instant rollback after it",
        "rolling updates",
        "twice the pods during a release cost too much",
        lambda s: not s.on_machine and bool(s.blue_green),
    ),
    Decision(
        "Releases",
        "rolling updates",
        "no second set of pods, no controller",
        "blue-green (`rollouts: true`)",
        "a bad release must be undone in seconds",
        lambda s: not s.on_machine and not s.blue_green,
    ),
    Decision(
        "Ingress",
        "global HTTPS load balancer with CDN, then Envoy",
        "static files are cached near users; certificates are managed",
        "Gateway or Ingress of the cluster",
        "users are in one city: then without CDN",
        lambda s: s.has_cdn,
    ),
    Decision(
        "Ingress",
        "global HTTPS load balancer, then Envoy",
        "certificates are managed, and one address serves every domain",
        "Gateway or Ingress of the cluster",
        "the stack gets static files: then with CDN",
        lambda s: s.https_balancer is not None and not s.has_cdn,
    ),
    Decision(
        "Database",
        "MongoDB Atlas",
        "replicas, backups and upgrades are included",
        "MongoDB in the cluster",
        "its cost exceeds that of the work it saves",
        lambda s: bool(s.databases) and all(d.backup for _, d in s.databases),
    ),
    Decision(
        "Database",
        "MongoDB Atlas",
        "replicas and upgrades are included",
        "MongoDB in the cluster",
        "its cost exceeds that of the work it saves",
        lambda s: not all(d.backup for _, d in s.databases),
    ),
    Decision(
        "Database",
        "in the cluster",
        "no further service to pay",
        "a managed database (`managed: true`)",
        "an outage of minutes or a restore by hand is too much",
        lambda s: not s.on_machine and any(p.component != "redis" for p in s.data),
    ),
    Decision(
        "Database",
        lambda s: joined(m.product or "a service at its URL" for m in s.facts.managed),
        "its provider operates it",
        "in the cluster",
        "its cost exceeds that of the work it saves",
        lambda s: bool(s.facts.managed),
    ),
    Decision(
        "Database",
        "on the machine",
        "no further service to pay",
        "a managed database, by its URL",
        "the data must survive the loss of the machine without a restore",
        lambda s: s.on_machine and bool(s.data),
    ),
    Decision(
        "Secrets",
        "Secret Manager and External Secrets",
        "access per secret, an audit log, no secret in git",
        "Kubernetes Secrets by `lapwing deploy`",
        "secrets must be dynamic, or are in several clouds",
        lambda s: bool(s.facts.secret_reads),
    ),
    Decision(
        "Secrets",
        "the encrypted store of `lapwing secret`",
        "nothing to operate",
        "a secret server",
        "secrets must be dynamic, or are in several clouds",
        lambda s: s.environment.deployed_by != "argocd",
    ),
)


def decisions(subject: Subject) -> Iterator[Decision]:
    """Yield the decisions that an environment shows."""
    return (row for row in DECISIONS if row.holds(subject))
