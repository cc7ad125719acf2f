"""Retention of images: which manifests of a repository can be removed.

    manifests of a repository + deployed digests -> roots to keep -> what those need -> decisions

A root is kept because an environment needs it, because of its tag, its age, or its place among the
newest. Then everything that a kept manifest needs is kept: the children of an index, and what
refers to it (signatures, SBOMs), whatever their own age. The rest is removed.

The same policy is written as the clean-up policies of Artifact Registry, which applies it without
the desired state: there, tags that begin with `deployed-` protect what is deployed, and tagged
images have to be older than `days` as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

DAY_S = 86400
LATEST = "latest"
DEPLOYED = "deployed-"
"""The prefix of the tags of images that an environment runs."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A manifest in a repository.

    `time` is when it was pushed, or else created, in Unix time; None if unknown. `children` are the
    digests below an index, `subject` is the digest that it refers to.
    """

    digest: str
    tags: tuple[str, ...] = ()
    time: float | None = None
    children: tuple[str, ...] = ()
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a manifest is kept, and why."""

    stored: Stored
    keep: bool
    reason: str


@dataclass(frozen=True, slots=True)
class ImageRetention:
    """The policy: the `newest` tagged images of a service, and untagged ones of `days` are kept."""

    newest: int = 10
    days: int = 30
    protected: str = DEPLOYED
    """Images with a tag that begins with this text are kept."""

    def decide(
        self, manifests: Iterable[Stored], deployed: Mapping[str, str], now: float
    ) -> list[Decision]:
        """Decide on each manifest: tagged images first, the newest first.

        `deployed` has the digests that an environment needs, with the reason.
        """
        known = {each.digest: each for each in manifests}
        reasons = self._roots(known, deployed, now)
        reasons |= _needed(known, reasons)
        parts = {child for each in known.values() for child in each.children}
        ordered = sorted(known.values(), key=_order)
        return [
            Decision(each, True, reasons[each.digest])
            if each.digest in reasons
            else Decision(each, False, self._removal(each, each.digest in parts))
            for each in ordered
        ]

    def cleanup_policies(self) -> list[dict[str, Any]]:
        """Return the policy for Artifact Registry, as Terraform writes it."""
        untagged = self._condition("UNTAGGED")
        return [
            {"id": "collect-untagged", "action": "DELETE", "condition": untagged},
            {
                "id": "keep-newest",
                "action": "KEEP",
                "most_recent_versions": {"keep_count": self.newest},
            },
            {
                "id": "keep-deployed",
                "action": "KEEP",
                "condition": {"tag_state": "TAGGED", "tag_prefixes": [self.protected]},
            },
        ]

    def collect_tagged(self) -> dict[str, Any]:
        """Return the condition under which Artifact Registry removes tagged images."""
        return self._condition("TAGGED")

    def _condition(self, state: str) -> dict[str, Any]:
        return {"tag_state": state, "older_than": f"{self.days * DAY_S}s"}

    def _roots(
        self, known: Mapping[str, Stored], deployed: Mapping[str, str], now: float
    ) -> dict[str, str]:
        """Return the digests that are kept for their own sake, with the reason."""
        parts = {child for each in known.values() for child in each.children}
        images = [each for each in known.values() if each.tags and each.subject is None]
        newest = {each.digest for each in sorted(images, key=_order)[: self.newest]}
        reasons: dict[str, str] = {}
        for each in known.values():
            if each.digest in deployed:
                reasons[each.digest] = deployed[each.digest]
            elif each.subject is not None:
                continue  # It is kept if its subject is.
            elif each.tags:
                if (reason := self._tagged(each, each.digest in newest)) is not None:
                    reasons[each.digest] = reason
            elif each.digest not in parts and not self._is_old(each, now):
                reasons[each.digest] = f"not known to be older than {self.days} days"
        return reasons

    def _tagged(self, each: Stored, is_new: bool) -> str | None:
        """Return why a tagged image is kept; None if it is not."""
        protected = next((t for t in each.tags if t.startswith(self.protected)), None)
        if protected or LATEST in each.tags:
            return f"tagged {protected or LATEST}"
        if is_new:
            return f"one of the newest {self.newest}"
        return "its age is unknown" if each.time is None else None

    def _is_old(self, each: Stored, now: float) -> bool:
        return each.time is not None and now - each.time > self.days * DAY_S

    def _removal(self, each: Stored, is_part: bool) -> str:
        if each.subject is not None:
            return "refers to an image that is removed or missing"
        if each.tags:
            return f"not one of the newest {self.newest}"
        return "part of an image that is removed" if is_part else f"older than {self.days} days"


def _needed(known: Mapping[str, Stored], kept: Iterable[str]) -> dict[str, str]:
    """Return what kept manifests need: children, and referrers, and what those need."""
    referrers: dict[str, list[str]] = {}
    for each in known.values():
        if each.subject is not None:
            referrers.setdefault(each.subject, []).append(each.digest)
    found: dict[str, str] = {}
    waiting, seen = list(kept), set(kept)
    while waiting:
        digest = waiting.pop()
        children = known[digest].children if digest in known else ()
        for others, reason in ((children, "part of"), (referrers.get(digest, ()), "refers to")):
            for other in others:
                if other not in seen:
                    seen.add(other)
                    waiting.append(other)
                    found[other] = f"{reason} {digest[:19]}, which is kept"
    return found


def _order(each: Stored) -> tuple[bool, bool, float, str]:
    """Sort images before untagged manifests and referrers, then the newest first."""
    is_image = bool(each.tags) and each.subject is None
    return (not is_image, each.time is None, -(each.time or 0.0), each.digest)
