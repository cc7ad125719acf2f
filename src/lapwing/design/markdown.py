"""Format the architecture document as Markdown, with its pictures as Mermaid."""

from __future__ import annotations

from lapwing.design.diagrams.mermaid import mermaid
from lapwing.design.parts import (
    GENERATED,
    Bullets,
    Document,
    Figure,
    Heading,
    Paragraph,
    Part,
    Table,
)


def markdown(document: Document) -> str:
    """Format a document."""
    parts = [f"# {document.title}", *(_part(part) for part in document.parts)]
    return "\n\n".join([*parts, f"*{GENERATED}*"]) + "\n"


def _part(part: Part) -> str:
    if isinstance(part, Heading):
        return f"## {part.text}"
    if isinstance(part, Paragraph):
        return part.text
    if isinstance(part, Bullets):
        return "\n".join(f"- {item}" for item in part.items)
    if isinstance(part, Figure):
        return f"```mermaid\n{mermaid(part.picture)}```"
    return _table(part)


def _table(table: Table) -> str:
    rows = [table.header, tuple("---:" if n else "---" for n in table.numeric), *table.rows]
    return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in rows)
