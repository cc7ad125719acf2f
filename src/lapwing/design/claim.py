"""A claim: a sentence or a label, with the facts of the inventory under which it is true.

A claim is written only if it holds for what is rendered, so that no document and no picture can
state what does not exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from lapwing.design.subject import Subject, joined

Holds = Callable[[Subject], bool]
Names = Callable[[Subject], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence or a label, and whether it holds for an environment."""

    text: str | Callable[[Subject], str]
    holds: Holds
    pattern: str = ""
    """The text about one part, with `{}` for its name; empty if the text names no part."""

    def __call__(self, subject: Subject) -> str:
        """Return the text with the values of an environment."""
        return self.text if isinstance(self.text, str) else self.text(subject)


def sentences(claims: Iterable[Claim], subject: Subject) -> Iterator[str]:
    """Yield the texts that hold for an environment."""
    return (claim(subject) for claim in claims if claim.holds(subject))


def about(names: Names, one: str, many: str = "") -> Claim:
    """Return a claim about named parts; it holds if there are any. `{}` is their names."""

    def text(subject: Subject) -> str:
        found = names(subject)
        return (one if len(found) == 1 or not many else many).format(joined(found))

    return Claim(text, lambda subject: bool(names(subject)), one)
