"""The sentences of the document, each with the facts of the inventory under which it is true.

To add one, add a row to the module of its section, and its evidence to `evidence.py` of the tests:
they evaluate every row for every golden stack and compare it with the rendered files.
"""

from __future__ import annotations

from lapwing.design.claim import sentences
from lapwing.design.claims_of_data import DATA, OPEN, SECURITY
from lapwing.design.claims_of_delivery import (
    CLOUD,
    COMPUTE,
    CONTAINERS,
    DELIVERY,
    NETWORK,
    PROJECTS,
)
from lapwing.design.parts import Heading, Paragraph, Part
from lapwing.design.subject import Subject

SECTIONS = {
    "cloud": CLOUD,
    "projects": PROJECTS,
    "network": NETWORK,
    "compute": COMPUTE,
    "delivery": DELIVERY,
    "containers": CONTAINERS,
    "data": DATA,
    "security": SECURITY,
    "open": OPEN,
}
"""The sentences of the document, by section."""


def section(subject: Subject, name: str, title: str) -> list[Part]:
    """Return the title of a section and its sentences as one paragraph."""
    text = " ".join(sentences(SECTIONS[name], subject))
    return [Heading(title), Paragraph(text)] if text else [Heading(title)]
