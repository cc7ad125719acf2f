"""The architecture document of a stack, as Markdown and as PDF."""
