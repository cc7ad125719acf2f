"""The architecture document as Markdown, with its pictures as Mermaid. Pure."""

from __future__ import annotations

from lapwing.design.diagrams.text import mermaid
from lapwing.design.document import Document, Figure, Heading, Paragraph, Part


def markdown(document: Document) -> str:
    """The file."""
    parts = [f"# {document.title}", *(_part(part) for part in document.parts)]
    parts.append("*Written by `lapwing design` from the stack file. Change that, not this.*")
    return "\n\n".join(parts) + "\n"


def _part(part: Part) -> str:
    if isinstance(part, Heading):
        return f"## {part.text}"
    if isinstance(part, Paragraph):
        return part.text
    if isinstance(part, Figure):
        return f"```mermaid\n{mermaid(part.picture)}```"
    rows = [part.header, tuple("---" for _ in part.header), *part.rows]
    return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in rows)
